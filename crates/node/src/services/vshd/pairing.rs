//! The commands about whom a node trusts.

use core::net::SocketAddr;
use core::time::Duration;

use cli::PairingCommand;
use cli::answer::{
    CodeState, FoundNode, IdentityReport, PairingCode, PairingPurpose, PeerIdentity,
    REMOVE_VEM_WARNING, UNPAIR_QUESTION, UNPAIR_WARNING, remove_vem_question,
};
use wire::pairing::{Code, DEFAULT_PORT, Purpose};
use wire::service::ToVemMgr;
use wire::supervision::{Ask, IdentityStatus, OfferedCode};

use super::dispatch::{Outcome, Plan, Question, SHOW_LIMIT};
use super::session::Fetch;
use super::wall;

/// A pairing is six steps, of which two may take five seconds each on a bad day; most take none.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// The limits of its steps together, and a disk's.
const ROTATE_LIMIT: Duration = Duration::from_secs(15);

pub(super) fn plan(command: &PairingCommand) -> Plan {
    let manager = |ask, limit| Plan::Fetch([Fetch::Manager(ask)].into(), limit);
    match command {
        PairingCommand::Pair => manager(Ask::Pair(Purpose::Node), SHOW_LIMIT),
        PairingCommand::RotateIdentity { force } => {
            manager(Ask::RotateIdentity { force: *force }, ROTATE_LIMIT)
        }
        PairingCommand::EnrollVem => manager(Ask::Pair(Purpose::Vem), SHOW_LIMIT),
        PairingCommand::Join {
            address: (address, port),
            code,
        } => match Code::parse(&code.0) {
            Some(code) => {
                let address = SocketAddr::from((*address, port.unwrap_or(DEFAULT_PORT)));
                manager(Ask::Join { address, code }, JOIN_LIMIT)
            }
            None => Plan::Now(Outcome::Failed(
                "% Not a code: it has nine letters and digits\n".to_owned(),
            )),
        },
        PairingCommand::RemoveVem(module) => Plan::Now(Outcome::Confirm(Question {
            warning: REMOVE_VEM_WARNING.to_owned(),
            text: remove_vem_question(*module),
            then: Fetch::VemMgr(ToVemMgr::Remove { module: *module }),
            notice: String::new(),
        })),
        PairingCommand::Unpair => Plan::Now(Outcome::Confirm(Question {
            warning: UNPAIR_WARNING.to_owned(),
            text: UNPAIR_QUESTION.to_owned(),
            then: Fetch::Manager(Ask::Unpair),
            notice: String::new(),
        })),
    }
}

const fn purpose(purpose: Purpose) -> PairingPurpose {
    match purpose {
        Purpose::Node => PairingPurpose::Supervisor,
        Purpose::Vem => PairingPurpose::HostAgent,
    }
}

pub(super) fn code(offered: &OfferedCode) -> PairingCode {
    PairingCode {
        code: offered.code.to_string(),
        purpose: purpose(offered.purpose),
        valid_s: offered.valid_s,
        tries: offered.tries,
        addresses: offered.addresses.clone(),
        usual_port: DEFAULT_PORT,
    }
}

pub(super) fn identity(status: &IdentityStatus) -> IdentityReport {
    IdentityReport {
        fingerprint: status.fingerprint.to_string(),
        node_key: status.node.to_string(),
        peer: status.peer.as_ref().map(|peer| PeerIdentity {
            fingerprint: peer.fingerprint.to_string(),
            next: peer.next.map(|key| key.to_string()),
            since: (peer.since_unix_s > 0).then(|| wall::ctime(peer.since_unix_s)),
            connected: peer.connected,
        }),
        code: status.code.map(|code| CodeState {
            purpose: purpose(code.purpose),
            left_s: code.left_s,
            tries: code.tries,
        }),
        found_not_paired: status
            .found
            .iter()
            .map(|found| FoundNode {
                fingerprint: found.fingerprint.to_string(),
                address: found.address.clone(),
                count: found.count,
                first_seen_s: found.first_s,
                last_seen_s: found.last_s,
            })
            .collect(),
        vems: status.vems.iter().map(ToString::to_string).collect(),
    }
}
