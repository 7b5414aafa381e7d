//! `redundancy pair`, `vem enroll` and `show redundancy identity`. The original has nothing of it.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::heading;

/// A one-time code, told to whoever asked for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingCode {
    /// The code, in groups.
    pub code: String,
    /// `supervisor` or `host_agent`: who may use it.
    pub purpose: PairingPurpose,
    /// Seconds for which it is valid.
    pub valid_s: u32,
    /// Failures that void it.
    pub tries: u8,
    /// Where this node listens.
    pub addresses: Vec<SocketAddr>,
    /// Port on which the other end looks by itself.
    pub usual_port: u16,
}

/// Who may use a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairingPurpose {
    /// The other node of the pair.
    Supervisor,
    /// A host.
    HostAgent,
}

impl core::fmt::Debug for PairingCode {
    /// Without the code.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PairingCode({:?})", self.purpose)
    }
}

impl PairingCode {
    /// The code, and what to do with it.
    #[must_use]
    pub fn text(&self) -> String {
        let minutes = self.valid_s / 60;
        let mut text = format!(
            "Code: {}   (valid for {minutes} minutes or {} failures)\n",
            self.code, self.tries
        );
        let (where_, how) = match self.purpose {
            PairingPurpose::Supervisor => ("On the other supervisor, one of:", "redundancy join"),
            PairingPurpose::HostAgent => ("On the host, as root:", "vemd enroll --node"),
        };
        text += &format!("{where_}\n");
        for address in &self.addresses {
            let usual = address.port() == self.usual_port;
            let line = match self.purpose {
                PairingPurpose::Supervisor if usual => {
                    format!("{how} {} {}", address.ip(), self.code)
                }
                PairingPurpose::Supervisor => {
                    let port = address.port();
                    format!("{how} {} {} port {port}", address.ip(), self.code)
                }
                PairingPurpose::HostAgent => format!("{how} {address} {}", self.code),
            };
            text += &format!("  {line}\n");
        }
        text
    }
}

/// The answer to `show redundancy identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// What others pin of this node.
    pub fingerprint: String,
    /// What its epochs are ordered by.
    pub node_key: String,
    /// The other node of the pair.
    pub peer: Option<PeerIdentity>,
    /// The code that is valid now, without the code.
    pub code: Option<CodeState>,
    /// Nodes that are here and not paired, those seen last first.
    pub found_not_paired: Vec<FoundNode>,
    /// Fingerprints of trusted host agents.
    pub vems: Vec<String>,
}

/// The other node of the pair, as it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Trusted beside it, while it changes its identity.
    pub next: Option<String>,
    /// Since when it is trusted; `None` if it was pinned by hand.
    pub since: Option<String>,
    /// Whether it is connected.
    pub connected: bool,
}

/// A code that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeState {
    /// Who may use it.
    pub purpose: PairingPurpose,
    /// Seconds left.
    pub left_s: u32,
    /// Failures left.
    pub tries: u8,
}

/// Somebody on an HA link who is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundNode {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Where it was last seen.
    pub address: String,
    /// How often.
    pub count: u64,
    /// Seconds since it was seen first.
    pub first_seen_s: u64,
    /// Seconds since it was seen last.
    pub last_seen_s: u64,
}

impl IdentityReport {
    /// Label, colon, value; then who was found.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = heading("This supervisor");
        text += &line("Fingerprint", &self.fingerprint);
        if self.node_key != self.fingerprint {
            text += &line("Node key", &self.node_key);
        }
        text += "\n";
        text += &heading("Other supervisor");
        match &self.peer {
            None => text += &line("Fingerprint", "none (not paired)"),
            Some(peer) => {
                text += &line("Fingerprint", &peer.fingerprint);
                if let Some(next) = &peer.next {
                    text += &line("Changes it to", next);
                }
                text += &line("Paired since", peer.since.as_deref().unwrap_or("(by hand)"));
                text += &line("Connected", if peer.connected { "yes" } else { "no" });
            }
        }
        text += "\n";
        text += &heading("Pairing code");
        text += &match self.code {
            None => line("State", "none"),
            Some(code) => {
                let whom = match code.purpose {
                    PairingPurpose::Supervisor => "a supervisor",
                    PairingPurpose::HostAgent => "a host agent",
                };
                let (left, tries) = (code.left_s, code.tries);
                line(
                    "State",
                    &format!("valid for {whom}, {left} s and {tries} failures left"),
                )
            }
        };
        if !self.found_not_paired.is_empty() {
            text += "\n";
            text += &heading("Found, not paired");
            for found in &self.found_not_paired {
                let FoundNode {
                    fingerprint,
                    address,
                    count,
                    first_seen_s,
                    last_seen_s,
                } = found;
                text += &format!(
                    "{fingerprint}\n    at {address}, {count} times, first {first_seen_s} s and \
                     last {last_seen_s} s ago\n"
                );
            }
        }
        text += "\n";
        text += &heading("Host agents");
        if self.vems.is_empty() {
            text += "none\n";
        }
        for vem in &self.vems {
            text += &format!("{vem}\n");
        }
        text
    }
}

fn line(label: &str, value: &str) -> String {
    format!("{label:>20}:   {value}\n")
}
