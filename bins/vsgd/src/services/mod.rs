//! The processes of a node above the System Manager: `vsgd service NAME`.
//!
//! Each is one pure value from [`node::services`] (or the core of `mts` or `pss`), driven with
//! sockets here. All that decides is in there; what stands here opens, reads, writes and closes.

mod broker_client;
mod harness;
mod mts;
mod pss;
mod supervision;
mod vem_mgr;
mod vshd;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use model::{ServiceName, Time};
use node::service::Service;
use node::services::{cfgmgr, policy_engine};
use runtime::clock;
use runtime::identity::Identity;

use broker_client::BrokerClient;
use supervision::Supervision;

/// What a service process must know of its node's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Sockets; on a tmpfs, so that what is there does not survive the machine.
    pub(crate) run_dir: PathBuf,
    /// Durable files.
    pub(crate) state_dir: PathBuf,
    /// The node's key pair.
    pub(crate) identity_file: PathBuf,
    /// Where host agents connect.
    pub(crate) service_listen: Option<SocketAddr>,
    /// Bulk connections.
    pub(crate) bulk_links: Vec<BulkLink>,
    /// Name shown while the configuration sets none.
    pub(crate) hostname: String,
}

/// Where the brokers of the two nodes meet on one HA link.
#[derive(Clone, Debug)]
pub(crate) struct BulkLink {
    /// Name of the link.
    pub(crate) name: String,
    /// Our address.
    pub(crate) local: SocketAddr,
    /// The peer's.
    pub(crate) peer: SocketAddr,
}

impl Settings {
    fn identity(&self) -> anyhow::Result<Identity> {
        Identity::load(&self.identity_file).context("the node's identity")
    }
}

/// What every service process has.
pub(crate) struct Parts {
    now: Time,
    supervision: Supervision,
    broker: BrokerClient,
}

/// Runs a service that speaks with nobody but the broker and the System Manager.
async fn alone<S: Service>(
    service: S,
    supervision: Supervision,
    broker: BrokerClient,
) -> anyhow::Result<()> {
    // The sender is kept, so that the channel stays open and silent.
    let (_inputs, none) = tokio::sync::mpsc::channel(1);
    harness::run(service, supervision, broker, harness::NoEdge, none).await
}

/// Real-time priority of the services that a packet waits for. Below the System Manager's, which
/// watches them.
const DECISION_PRIORITY: i32 = 3;
/// Real-time priority of the others: a switchover waits until each has said that it is drained.
const OTHER_PRIORITY: i32 = 1;

/// Puts this process ahead of what merely computes, on a machine that does other things too. A
/// niceness would not do: it counts only within one session (autogroup). The kernel keeps a
/// twentieth of the time for the rest whatever we do. Refused without the right to it, and then
/// things take as long as they take.
fn prefer(name: ServiceName) {
    let priority = match name {
        ServiceName::Mts | ServiceName::PolicyEngine | ServiceName::VemMgr => DECISION_PRIORITY,
        ServiceName::Pss | ServiceName::Cfgmgr | ServiceName::Vshd => OTHER_PRIORITY,
    };
    if let Err(refused) = runtime::process::become_real_time(priority) {
        eprintln!("{name}: {refused}");
    }
}

/// Name of the broker's socket in the run directory.
const BROKER_SOCKET: &str = "mts.sock";

/// Runs the service `name` until the System Manager ends it.
pub(crate) fn run(name: ServiceName, settings: &Settings) -> anyhow::Result<()> {
    prefer(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("event loop")?;
    runtime.block_on(async {
        let now = clock::now();
        let supervision = Supervision::open(name, now)?;
        let broker = BrokerClient::new(settings.run_dir.join(BROKER_SOCKET), name);
        match name {
            ServiceName::Mts => mts::run(settings, supervision).await,
            ServiceName::Pss => {
                pss::run(
                    settings,
                    Parts {
                        now,
                        supervision,
                        broker,
                    },
                )
                .await
            }
            ServiceName::VemMgr => {
                vem_mgr::run(
                    settings,
                    Parts {
                        now,
                        supervision,
                        broker,
                    },
                )
                .await
            }
            ServiceName::PolicyEngine => {
                alone(policy_engine::PolicyEngine::new(now), supervision, broker).await
            }
            ServiceName::Cfgmgr => alone(cfgmgr::Cfgmgr::new(now), supervision, broker).await,
            ServiceName::Vshd => {
                vshd::run(
                    settings,
                    Parts {
                        now,
                        supervision,
                        broker,
                    },
                )
                .await
            }
        }
    })
}
