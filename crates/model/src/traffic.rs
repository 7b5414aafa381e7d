//! What came in from outside on a node's ports, and why some of it was not taken.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A way into a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// Heartbeats: UDP, one for each HA link.
    Heartbeat,
    /// System Manager to System Manager: TLS, one for each HA link.
    Control,
    /// Broker to broker: TLS, one for each HA link.
    Bulk,
    /// Host agents: TLS on the service network.
    Service,
    /// Operators' shells: a Unix socket.
    Console,
    /// The services of this node: a Unix socket.
    Broker,
}

impl PortKind {
    /// Name in `show redundancy traffic` and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Control => "control",
            Self::Bulk => "bulk",
            Self::Service => "service",
            Self::Console => "console",
            Self::Broker => "broker",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something was not taken. Whatever is dropped changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Not a message of ours.
    Malformed,
    /// It ended before the end that it announced, or is too short for anything of ours.
    Truncated,
    /// Longer, or announced as longer, than the largest message there is.
    Oversized,
    /// Nobody known has made it: a wrong tag, or a handshake that proved nothing.
    NotAuthenticated,
    /// Its maker proved an identity that is not pinned here.
    NotPinned,
    /// Sealed under a key that is not in use here (any more, or yet).
    UnknownKey,
    /// Seen before.
    Replayed,
    /// Overtaken: what came later was taken before it.
    Late,
    /// From our peer's identity, but it states another pair ID than ours.
    ForeignPair,
    /// From our peer's identity, but it states the role that this node has.
    WrongSlot,
    /// A connection for the purpose of another port.
    OtherProtocol,
    /// A handshake that was not finished in its time.
    TimedOut,
    /// A connection beyond those that may be unauthenticated at once.
    TooMany,
    /// It was sound, but the queue behind the port was full.
    QueueFull,
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All, in the order in which they are shown.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Truncated,
        Self::Oversized,
        Self::NotAuthenticated,
        Self::NotPinned,
        Self::UnknownKey,
        Self::Replayed,
        Self::Late,
        Self::ForeignPair,
        Self::WrongSlot,
        Self::OtherProtocol,
        Self::TimedOut,
        Self::TooMany,
        Self::QueueFull,
    ];

    /// The counter's name is `rx_drops_` and this.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::NotAuthenticated => "not_authenticated",
            Self::NotPinned => "not_pinned",
            Self::UnknownKey => "unknown_key",
            Self::Replayed => "replayed",
            Self::Late => "late",
            Self::ForeignPair => "foreign_pair",
            Self::WrongSlot => "wrong_slot",
            Self::OtherProtocol => "other_protocol",
            Self::TimedOut => "timed_out",
            Self::TooMany => "too_many",
            Self::QueueFull => "queue_full",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one port has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTraffic {
    /// The port.
    pub port: PortKind,
    /// The HA link, by its name in the configuration; empty where there is one port only.
    pub link: String,
    /// Datagrams or messages taken.
    pub received: u64,
    /// Datagrams or messages sent.
    pub sent: u64,
    /// What was not taken, by reason; reasons that never occurred are absent.
    pub drops: Vec<(DropReason, u64)>,
}

impl PortTraffic {
    /// How often something was dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops
            .iter()
            .filter(|(found, _)| *found == reason)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// How often something was dropped.
    #[must_use]
    pub fn dropped_for_any_reason(&self) -> u64 {
        self.drops
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn every_reason_has_its_place_and_a_name_of_its_own() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.as_str() == reason.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
