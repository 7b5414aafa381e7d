//! Booting: who leads?
//!
//! History before precedence, no preemption (chapter, "Cisco VSG Roles"; design §4):
//! - a node that meets an active follows it, be it primary or secondary;
//! - of two that boot together, the newer history leads (alone mark, then epoch and position of
//!   the newest commit); between equals the primary;
//! - a node that boots by itself leads if it is standalone, alone-marked, or was never paired, or
//!   if every registered VEM says that the last epoch it obeyed was this node's own, and that it
//!   has promised none since;
//! - any other waits, says why, and can be told to lead by the operator: now, or beforehand by a
//!   limit to the wait (default: none).
//!
//! Not done here: merging or archiving a forked history. The older one is replaced.

use core::cmp::Ordering;
use core::time::Duration;

use model::{Epoch, Lsn, Role, Time};
use wire::control::Hello;
use wire::heartbeat::State;

use crate::context::Context;
use crate::input::ServicesHealth;
use crate::phase::{Cause, Loss, Step};

/// How long a node that may lead by itself looks for a peer first. An alone-marked one has
/// nothing to learn from the peer but that somebody forced it active: short.
const LOOK_ALONE_MARKED: Duration = Duration::from_secs(1);
/// A primary that was never paired: time for the other machine's start and the first handshake.
const LOOK_PRIMARY: Duration = Duration::from_secs(3);
/// A secondary that was never paired: long, so that a primary which is being installed leads.
const LOOK_SECONDARY: Duration = Duration::from_secs(15);
/// How long `pss` may take to say what the history is; then the node goes by what it was started
/// with.
const HISTORY_WAIT: Duration = Duration::from_secs(5);

/// State of a node that has not settled who leads.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Booting {
    since: Time,
    /// Since when no peer has been connected or heard.
    lonely_since: Time,
    /// Why it waits.
    pub(crate) reason: String,
    logged: String,
}

impl Booting {
    pub(crate) fn enter(now: Time) -> Self {
        Self {
            since: now,
            lonely_since: now,
            reason: String::new(),
            logged: String::new(),
        }
    }

    pub(crate) fn deadline(&self, ctx: &Context) -> Option<Time> {
        let history = (!ctx.history_known).then_some(self.since + HISTORY_WAIT);
        let lonely = may_lead_alone(ctx)
            .ok()
            .map(|(look, _)| self.lonely_since + look)
            .or(ctx.boot_wait().map(|wait| self.lonely_since + wait));
        history.into_iter().chain(lonely).min()
    }

    pub(crate) fn forgive(&mut self, pause: Duration) {
        self.lonely_since = self.lonely_since + pause;
    }

    pub(crate) fn evaluate(&mut self, now: Time, ctx: &mut Context) -> Step {
        if ctx.health == ServicesHealth::Failed {
            return Step::Reset {
                reason: "a service failed while booting".into(),
                loss: Loss::None,
            };
        }
        if ctx.role == Role::Standalone {
            return if ctx.record.cloned {
                self.wait(ctx, CLONED.to_owned())
            } else {
                Step::Activate(Cause::Standalone)
            };
        }
        if now.since(self.since) >= HISTORY_WAIT {
            ctx.history_known = true;
        }
        if let Some(fault) = ctx.peer.fault.clone() {
            self.lonely_since = now;
            return self.wait(ctx, fault);
        }
        match ctx
            .peer_says(now)
            .map(|content| (content.state, content.epoch))
        {
            Some((State::Active | State::Paused, epoch)) => return Step::Follow(epoch),
            Some((State::Standby | State::Synchronizing | State::Yielded, _)) => {
                self.lonely_since = now;
                return self.wait(ctx, "waiting for the other supervisor to settle".into());
            }
            Some((State::Initializing | State::Resetting, _)) | None => {}
        }
        if ctx.peer.connected {
            self.lonely_since = now;
            return self.negotiate(now, ctx);
        }
        if !ctx.peer_silent(now) {
            self.lonely_since = now;
            return self.wait(ctx, "waiting for the control connection".into());
        }
        self.lead_alone(now, ctx)
    }

    fn negotiate(&mut self, now: Time, ctx: &mut Context) -> Step {
        let (Some(hello), Some(ours)) = (ctx.peer.hello.clone(), ctx.greeted) else {
            return self.wait(ctx, "negotiating with the other supervisor".into());
        };
        if hello.active {
            return self.wait(
                ctx,
                "the other supervisor is active; waiting to hear it".into(),
            );
        }
        // Until its heartbeats are understood, which after our own start takes one of ours, only
        // its greeting tells that it is about to take over.
        if hello.follows && ctx.peer_says(now).is_none() {
            return self.wait(
                ctx,
                "waiting to hear the other supervisor, a standby".into(),
            );
        }
        if leads(ctx.role, ours, &hello) {
            Step::Activate(Cause::Negotiated)
        } else {
            self.wait(ctx, "waiting for the other supervisor to lead".into())
        }
    }

    fn lead_alone(&mut self, now: Time, ctx: &mut Context) -> Step {
        match may_lead_alone(ctx) {
            Ok((look, _)) if now.since(self.lonely_since) >= look.max(ctx.hold_time() * 2) => {
                Step::Activate(Cause::BootedAlone)
            }
            Ok((_, why)) => self.wait(ctx, format!("looking for the other supervisor ({why})")),
            Err(Wait::ForEver(why)) => self.wait(ctx, why),
            Err(Wait::ForPeer) => match ctx.boot_wait() {
                Some(limit) if now.since(self.lonely_since) >= limit => {
                    Step::Activate(Cause::Waited)
                }
                Some(limit) => {
                    let seconds = limit.as_secs();
                    self.wait(
                        ctx,
                        format!("{FOR_PEER}; leads nevertheless after {seconds} s"),
                    )
                }
                None => self.wait(ctx, format!("{FOR_PEER} (force-active leads nevertheless)")),
            },
        }
    }

    fn wait(&mut self, ctx: &mut Context, reason: String) -> Step {
        self.reason = reason;
        if self.logged != self.reason {
            self.logged.clone_from(&self.reason);
            ctx.log(
                5,
                "WAITING",
                format!("This supervisor does not lead yet: {}.", self.reason),
            );
        }
        Step::Stay
    }
}

/// Why a node that has met nobody does not lead.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wait {
    /// The other node may have the newer history. It ends when the operator has set so.
    ForPeer,
    /// Only a peer that leads, or an operator, ends it; and why.
    ForEver(String),
}

/// What an operator is told of [`Wait::ForPeer`].
const FOR_PEER: &str = "the other supervisor may have led since this one did; waiting for it";

/// What an operator is told of a node that was told of a clone of itself.
const CLONED: &str = "a clone of this supervisor was seen; when there is only one again, force-active \
                      makes it lead";

/// Whether this node may lead without having met its peer: how long it looks first, and why, or
/// what it waits for.
fn may_lead_alone(ctx: &Context) -> Result<(Duration, &'static str), Wait> {
    if ctx.record.cloned {
        return Err(Wait::ForEver(CLONED.to_owned()));
    }
    if !ctx.record.paired {
        let look = match ctx.role {
            Role::Secondary => LOOK_SECONDARY,
            Role::Standalone | Role::Primary => LOOK_PRIMARY,
        };
        return Ok((look, "it was never paired"));
    }
    let last_was_own = ctx.has_led(ctx.seen) && ctx.promised <= ctx.seen;
    if ctx.seen.node == ctx.node && !ctx.has_led(ctx.seen) {
        return Err(Wait::ForEver(format!(
            "epoch {} bears this supervisor's identity, but is none it has led under: a clone of it \
             runs or ran, or its disk was set back (force-active leads nevertheless)",
            ctx.seen
        )));
    }
    if ctx.record.alone && last_was_own {
        return Ok((LOOK_ALONE_MARKED, "it led alone"));
    }
    let vems = ctx.vems;
    let all_asked = vems.registered > 0 && vems.connected >= vems.registered;
    if all_asked && last_was_own && ctx.has_led(vems.highest_epoch) {
        return Ok((LOOK_ALONE_MARKED, "every VEM last obeyed it"));
    }
    if !ctx.pinned {
        return Err(Wait::ForEver(
            "it was part of a pair and is paired with nobody now; run redundancy pair on the \
             supervisor that leads and redundancy join here (force-active leads nevertheless)"
                .to_owned(),
        ));
    }
    Err(Wait::ForPeer)
}

/// Whether this node leads, of two that boot together. Symmetric: exactly one of both says so,
/// since both judge by what they told each other.
fn leads(role: Role, ours: (bool, (Epoch, Lsn)), peer: &Hello) -> bool {
    match compare(ours, (peer.alone, peer.history)) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => role == Role::Primary,
    }
}

/// The newer history is the greater one. Only one alone mark: that side committed since without
/// the other. Two: both did, and the later epoch is the newer.
fn compare(ours: (bool, (Epoch, Lsn)), theirs: (bool, (Epoch, Lsn))) -> Ordering {
    ours.cmp(&theirs)
}

#[cfg(test)]
mod tests {
    use core::cmp::Ordering;

    use model::{Epoch, Incarnation, Lsn, NodeKey};

    use super::compare;

    #[test]
    fn the_alone_mark_then_the_epoch_then_the_position_tells_the_newer_history() {
        let epoch = |counter| Epoch {
            counter,
            node: NodeKey([1; 32]),
            incarnation: Incarnation(1),
        };
        let history = |counter, lsn| (epoch(counter), Lsn(lsn));
        assert_eq!(
            compare((true, history(1, 1)), (false, history(2, 9))),
            Ordering::Greater
        );
        assert_eq!(
            compare((true, history(1, 9)), (true, history(2, 1))),
            Ordering::Less
        );
        assert_eq!(
            compare((false, history(2, 8)), (false, history(2, 9))),
            Ordering::Less
        );
        assert_eq!(
            compare((false, history(2, 9)), (false, history(2, 9))),
            Ordering::Equal
        );
    }
}
