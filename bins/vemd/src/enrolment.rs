//! `vemd enroll`: this host and the pair pin each other by a one-time code.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use runtime::pairing::prove;
use runtime::tls::TlsEndpoint;
use wire::pairing::{Code, DEFAULT_PORT, Introduction, NAME_MAX_BYTES, PROTOCOL};

use crate::keys;
use crate::settings::Settings;

/// Address of a node, with or without a port.
pub(crate) fn node_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let alone = || text.parse::<IpAddr>().map(|ip| (ip, DEFAULT_PORT).into());
    with_port
        .or_else(|_| alone())
        .map_err(|_| "not an address, nor an address and a port".to_owned())
}

/// A code as it is typed.
pub(crate) fn code(text: &str) -> Result<Code, String> {
    Code::parse(text).ok_or_else(|| "not a code: it has nine letters and digits".to_owned())
}

/// Pairs with the node at `address`, and pins both nodes of its pair.
pub(crate) fn run(settings: &Settings, address: SocketAddr, code: &Code) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(enroll(settings, address, code))
}

async fn enroll(settings: &Settings, address: SocketAddr, code: &Code) -> Result<()> {
    let own = keys::init(&settings.state_dir)?;
    let identity = keys::identity(&settings.state_dir)?;
    let endpoint = TlsEndpoint::of_strangers(&identity, PROTOCOL)?;
    let connection = endpoint.connect(None, address).await?;
    let mut host = settings.host.clone();
    host.truncate(host.floor_char_boundary(NAME_MAX_BYTES));
    let introduction = Introduction::Vem { host };
    let mut node = prove(connection, own, introduction, code).await?;
    let Introduction::Node(there) = node.introduction.clone() else {
        bail!("{address} is no gateway");
    };
    node.agree(None).await.context("refused")?;
    let gateways: Vec<_> = [node.key].into_iter().chain(there.other).collect();
    keys::pin(&settings.state_dir, &gateways)?;
    node.tell_pinned().await?;
    node.await_pinned().await.with_context(|| {
        format!(
            "{} is pinned here, but has not confirmed: see show redundancy identity there",
            there.name
        )
    })?;
    println!("Enrolled at {} as {own}.", there.name);
    for gateway in &gateways {
        println!("Gateway {gateway} is pinned.");
    }
    Ok(())
}
