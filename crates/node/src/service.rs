//! The one shape of a service: a pure value that is told what happened and asked what to do.
//!
//! `vsgd service NAME` drives one such value with real sockets; the simulation drives the same
//! values on virtual time. The broker and the checkpoint store have cores of their own; whatever
//! else a node runs is a [`Service`].
//!
//! Rules of the shape:
//! - `handle` never blocks and never fails; a bad message is dropped or refused, and said so;
//! - after each `handle` the driver drains `poll_output`, in order, before the next input;
//! - `next_deadline` is the earliest time at which the service wants [`ServiceInput::Tick`];
//!   an earlier or a superfluous tick changes nothing;
//! - a service that is started anew starts as a new value: what it must not lose is in `pss`.

use model::{Epoch, NodeKey, ServiceName, Time};
use serde::{Deserialize, Serialize};
use wire::broker::Message;
use wire::console::{FromShell, ToShell};
use wire::supervision::{Answer, FromService, Posture, Trust};
use wire::vem::{FromVem, ToVem};

/// A service of a node.
pub trait Service {
    /// Which one it is.
    fn name(&self) -> ServiceName;
    /// Tells it what happened.
    fn handle(&mut self, now: Time, input: ServiceInput);
    /// What it wants done next; `None` when there is nothing more.
    fn poll_output(&mut self) -> Option<ServiceOutput>;
    /// When it wants to be ticked; `None` is never.
    fn next_deadline(&self) -> Option<Time>;
}

/// One TLS connection of a host agent, numbered by the driver, never reused within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VemConnection(pub u64);

/// One operator's session, numbered by the driver, never reused within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// What a service is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceInput {
    /// First input of a run.
    Start,
    /// [`Service::next_deadline`] has come.
    Tick,
    /// What the node does now.
    Posture(Posture),
    /// The System Manager answers a question of this service.
    Answer {
        /// The question's number.
        question: u64,
        /// The answer.
        answer: Answer,
    },
    /// A log line for open consoles (`vshd` only).
    Console(String),
    /// Ask every registered host agent whether the active lives (`vem_mgr` only); to be told as
    /// [`wire::supervision::VemReport::tally`].
    AskVotes {
        /// The vote's number.
        vote: u64,
        /// The epoch to be taken over under; `None` is a mere question.
        candidate: Option<Epoch>,
        /// How long the active may take to answer a host agent (milliseconds).
        within_ms: u32,
    },
    /// Archive what is stored here (`pss` only); see [`wire::supervision::ToService::Archive`].
    Archive {
        /// To be echoed in [`FromService::Archived`].
        number: u64,
        /// The epoch that prevails.
        rival: Epoch,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Synchronise afresh (`pss` of a standby only).
    Resync {
        /// The content is not trusted: take a bulk sync.
        whole: bool,
    },
    /// The wall clock, for display (`vshd`, `pss`); at start and now and then.
    WallClock {
        /// Seconds since 1970.
        unix_s: u64,
    },
    /// Finish; the driver exits once the outputs are drained.
    Stop,
    /// The broker is connected and this service's SAP is bound. Also after each reconnection.
    BrokerConnected,
    /// The broker's connection was lost: what was in flight may or may not have arrived.
    BrokerLost,
    /// Whether the peer's broker is reachable.
    PeerBroker(bool),
    /// A message for this service's SAP.
    Message(Message),
    /// Something of a host agent (`vem_mgr` only).
    Vem {
        /// Which connection.
        connection: VemConnection,
        /// What.
        event: VemEvent,
    },
    /// Something of an operator's shell (`vshd` only).
    Shell {
        /// Which session.
        session: SessionId,
        /// What.
        event: ShellEvent,
    },
    /// Whom to trust from now on (`vem_mgr` only).
    Trust(Trust),
}

/// What happens to a host agent's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VemEvent {
    /// It stands; both identities are verified.
    Connected {
        /// The agent's pinned identity.
        key: NodeKey,
        /// Address it comes from, for display.
        address: String,
    },
    /// A message came.
    Message(FromVem),
    /// Somebody connected and was refused: not pinned, or no host agent at all.
    Refused {
        /// Where from.
        address: String,
        /// Why, with the fingerprint if there was one.
        reason: String,
    },
    /// It is gone.
    Closed,
}

/// What happens to an operator's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellEvent {
    /// It was opened.
    Opened {
        /// Who, for the log.
        user: String,
    },
    /// A message came.
    Message(FromShell),
    /// It is gone.
    Closed,
}

/// What a service asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceOutput {
    /// Hand to the broker. While it is away the driver drops it: requesters ask again.
    Send(Message),
    /// Tell the System Manager.
    Supervision(FromService),
    /// Send to a host agent.
    Vem {
        /// Which connection; unknown ones are ignored.
        connection: VemConnection,
        /// What.
        message: ToVem,
    },
    /// Close a host agent's connection; no [`VemEvent::Closed`] follows.
    CloseVem(VemConnection),
    /// Send to an operator's shell.
    Shell {
        /// Which session; unknown ones are ignored.
        session: SessionId,
        /// What.
        message: ToShell,
    },
    /// Close a session after what was sent to it; no [`ShellEvent::Closed`] follows.
    CloseShell(SessionId),
}
