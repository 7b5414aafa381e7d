//! `attach module N`: a session of this node that is carried on the other supervisor, and the
//! sessions of the other supervisor that are carried here.
//!
//! ```text
//! operator ─ Line ▶ vshd here ─ Shell ─▶ mts ═ mts ─▶ vshd there: a session like any other
//!          ◀ text ─          ◀─ Output ──
//! ```
//! Invariants: a carried session ends with the peer's broker; its number has [`CARRIED`] set, so
//! that it is never taken for a local one.

use model::{ModuleNumber, Time};
use wire::broker::{Kind, Message, decode_body};
use wire::console::{FromShell, ToShell};
use wire::service::ToVshd;

use super::Vshd;
use super::session::State;
use crate::service::{SessionId, ShellEvent};

/// Marks sessions carried here for the other node.
pub(super) const CARRIED: u64 = 1 << 63;
/// Output is cut into parts of this many bytes: half of what a broker message takes.
const PART_BYTES: usize = 64 * 1024;
/// What an operator types to leave a session that does not answer (as the banner says).
const ABORT: &str = "$.";

impl Vshd {
    /// Begins a session on `module`, or says why not.
    pub(super) fn attach(&mut self, id: SessionId, module: ModuleNumber) -> Result<(), String> {
        let slot = self.posture.as_ref().map(|posture| posture.slot);
        if slot.is_some_and(|slot| slot.module() == module) {
            return Err(format!("% Module {} is this supervisor\n", module.0));
        }
        if slot.is_none_or(|slot| slot.other().module() != module) {
            // A host's agent has no shell: `vemd show` on the host is what there is.
            return Err(format!(
                "% attach to module {} is not supported\n",
                module.0
            ));
        }
        if !self.peer_broker || id.0 & CARRIED != 0 {
            return Err(format!(
                "% Module {} cannot be reached from here\n",
                module.0
            ));
        }
        let number = self.out.number();
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        session.state = State::Attached(number);
        let user = session.user.clone();
        self.tell(id, ToShell::Output(cli::answer::attach_banner(module)));
        self.out.notify_peer(
            number,
            &ToVshd::Attach {
                session: number,
                user,
            },
        );
        Ok(())
    }

    /// Something an attached operator entered.
    pub(super) fn relay(&mut self, id: SessionId, number: u64, message: FromShell) {
        if matches!(&message, FromShell::Line(line) if line.trim() == ABORT) {
            self.out
                .notify_peer(number, &ToVshd::Detach { session: number });
            self.detached(id, "");
        } else {
            self.out.notify_peer(
                number,
                &ToVshd::Shell {
                    session: number,
                    message,
                },
            );
        }
    }

    /// The session is back here.
    pub(super) fn detached(&mut self, id: SessionId, why: &str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = State::Ready;
            if !why.is_empty() {
                self.tell(id, ToShell::Output(format!("{why}\n")));
            }
            self.prompt(id, !why.is_empty());
        }
    }

    fn attached(&self, number: u64) -> Option<SessionId> {
        let is = |state: &State| matches!(state, State::Attached(n) if *n == number);
        self.sessions
            .iter()
            .find(|(_, session)| is(&session.state))
            .map(|(id, _)| *id)
    }

    /// A message of the other node's `vshd`, or one of ours that did not reach it.
    pub(super) fn peer_message(&mut self, now: Time, message: &Message) {
        if message.kind == Kind::Undeliverable {
            if let Some(id) = self.attached(message.correlation) {
                self.detached(id, "% The other supervisor cannot be reached");
            }
            return;
        }
        let Ok(body) = decode_body::<ToVshd>(&message.body) else {
            return;
        };
        let carried = |session: u64| SessionId(session | CARRIED);
        match body {
            ToVshd::Attach { session, user } => {
                self.shell(now, carried(session), ShellEvent::Opened { user });
            }
            ToVshd::Shell { session, message } => {
                if !self.sessions.contains_key(&carried(session)) {
                    // This `vshd` has started anew meanwhile.
                    self.tell_carried(carried(session), ToShell::Bye);
                }
                self.shell(now, carried(session), ShellEvent::Message(message));
            }
            ToVshd::Detach { session } => {
                self.shell(now, carried(session), ShellEvent::Closed);
            }
            ToVshd::Output { session, message } => {
                let Some(id) = self.attached(session) else {
                    return;
                };
                match message {
                    ToShell::Bye => self.detached(id, ""),
                    other => self.tell(id, other),
                }
            }
        }
    }

    /// Sends what a carried session shows, in parts that fit a message.
    pub(super) fn tell_carried(&mut self, id: SessionId, message: ToShell) {
        let session = id.0 & !CARRIED;
        let mut send = |message| {
            self.out
                .notify_peer(session, &ToVshd::Output { session, message });
        };
        match message {
            ToShell::Output(mut text) => {
                while text.len() > PART_BYTES {
                    let rest = text.split_off(text.floor_char_boundary(PART_BYTES));
                    send(ToShell::Output(core::mem::replace(&mut text, rest)));
                }
                send(ToShell::Output(text));
            }
            other => send(other),
        }
    }

    /// The operator of an attached session is gone.
    pub(super) fn leave(&mut self, id: SessionId) {
        if let Some(State::Attached(number)) = self.sessions.get(&id).map(|session| &session.state)
        {
            let number = *number;
            self.out
                .notify_peer(number, &ToVshd::Detach { session: number });
        }
    }

    /// The other node cannot be reached any more.
    pub(super) fn peer_lost(&mut self) {
        self.sessions.retain(|id, _| id.0 & CARRIED == 0);
        let attached = |state: &State| matches!(state, State::Attached(_));
        let back: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| attached(&session.state))
            .map(|(id, _)| *id)
            .collect();
        for id in back {
            self.detached(id, "% The other supervisor is gone");
        }
    }
}
