//! Whether the standby is in step: what it lacks, in words for both sides, and what mends it.
//!
//! Invariants:
//! - Y1 a standby that lags without catching up, or whose configuration differs at the same
//!   position, is not stable a hold time later (at least [`FLOOR`]), and cannot take over;
//! - Y2 it then asks for what mends it, at most once per [`RESYNC_PACE`].
//!
//! A service of the *active* that has died takes the pair's redundancy away from the displays,
//! but not the grant: the standby holds every commit that was acknowledged, and if the service
//! does not come back it is the standby that carries on.

use core::fmt;
use core::time::Duration;

use model::{Lsn, ServiceName, Slot, Time};
use serde::Serialize;
use wire::heartbeat::{Content, State};

use crate::context::Context;
use crate::output::Output;

/// How long a standby may lag or differ before it counts as out of step: a hold time, but at
/// least this. A flush of a busy disk takes 100 ms and more now and then, and the positions that
/// are compared travel with heartbeats and reports; at the fast profile (30 ms) each of those
/// would cost the pair its redundancy.
pub(crate) const FLOOR: Duration = Duration::from_millis(300);
/// How long the standby may be out of step without any progress before it asks again for what it
/// lacks: `pss` asks by itself within less.
const STALLED: Duration = Duration::from_secs(2);
/// Shortest time between two resynchronisations: a bulk sync of a full table takes about as long.
const RESYNC_PACE: Duration = Duration::from_secs(5);

/// How long a standby may lag or differ.
pub(crate) fn limit(ctx: &Context) -> Duration {
    FLOOR.max(ctx.hold_time())
}

/// What a standby lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Fault {
    /// It has no complete copy.
    Bulk,
    /// So many commits of the active are not durable there.
    Behind(u64),
    /// The configurations' hashes, the active's first, differ at this position.
    Differs(Lsn, u64, u64),
    /// A service that synchronisation needs does not run there.
    Down(Slot, ServiceName),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk => f.write_str("the standby has no complete copy"),
            Self::Behind(1) => f.write_str("the standby is 1 commit behind"),
            Self::Behind(commits) => write!(f, "the standby is {commits} commits behind"),
            Self::Differs(at, active, standby) => write!(
                f,
                "the standby's configuration differs at commit {} (hash {standby:016x}, the \
                 active's is {active:016x})",
                at.0
            ),
            Self::Down(slot, service) => write!(f, "service {service} does not run on {slot}"),
        }
    }
}

/// What the standby that says `content` lacks, as its active sees it.
pub(crate) fn of_standby(ctx: &Context, content: &Content) -> Option<Fault> {
    let ours = &ctx.sync;
    if let Some(service) = content.down {
        return Some(Fault::Down(ctx.slot().other(), service));
    }
    if !ours.bulk_done {
        return Some(Fault::Bulk);
    }
    // At different positions different hashes are no news.
    if content.lsn == ours.lsn && content.config_hash != ours.config_hash {
        return Some(Fault::Differs(
            ours.lsn,
            ours.config_hash,
            content.config_hash,
        ));
    }
    (ours.acked < ours.lsn).then(|| Fault::Behind(ours.lsn.0 - ours.acked.0))
}

/// What this standby lacks of the active that says `content`.
pub(crate) fn of_this(ctx: &Context, content: &Content) -> Option<Fault> {
    let ours = &ctx.sync;
    if let Some(service) = ctx.down {
        return Some(Fault::Down(ctx.slot(), service));
    }
    if !ours.bulk_done {
        return Some(Fault::Bulk);
    }
    if content.lsn == ours.lsn && content.config_hash != ours.config_hash {
        return Some(Fault::Differs(
            ours.lsn,
            content.config_hash,
            ours.config_hash,
        ));
    }
    (ours.lsn < content.lsn).then(|| Fault::Behind(content.lsn.0 - ours.lsn.0))
}

/// A service of the active, be it this node or the other, that has been down for too long.
pub(crate) fn actives_service_down(now: Time, ctx: &Context, leads: bool) -> Option<Fault> {
    if leads {
        let (service, since) = ctx.down.zip(ctx.down_since)?;
        return (now.since(since) >= limit(ctx)).then_some(Fault::Down(ctx.slot(), service));
    }
    let content = ctx.peer_says(now)?;
    let service = content
        .down
        .filter(|_| matches!(content.state, State::Active | State::Paused))?;
    Some(Fault::Down(ctx.slot().other(), service))
}

/// Out of step since `since`, as far as the other side was heard meanwhile: what it would have
/// done after its last word is not known.
pub(crate) fn lasted(now: Time, ctx: &Context, since: Time) -> Duration {
    ctx.peer.beat_at().unwrap_or(now).since(since)
}

/// A standby's watch over its own synchronisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Watch {
    differs_since: Option<Time>,
    /// Position when it last moved on, and when that was, while it lags.
    lags: Option<(Lsn, Time)>,
    asked: Option<Time>,
    /// It has been out of step for too long (Y1).
    pub(crate) out_of_step: bool,
}

impl Watch {
    /// Takes in what the active says, and asks for what mends a fault (Y2).
    pub(crate) fn look(&mut self, now: Time, ctx: &mut Context, content: &Content) {
        let fault = of_this(ctx, content);
        match fault {
            Some(Fault::Differs(..)) => {
                self.lags = None;
                self.differs_since.get_or_insert(now);
            }
            Some(Fault::Behind(_)) => {
                self.differs_since = None;
                let lsn = ctx.sync.lsn;
                self.lags = self.lags.filter(|(at, _)| *at == lsn).or(Some((lsn, now)));
            }
            // Known by itself, and mended by whoever restarts the service or pulls the copy.
            Some(Fault::Bulk | Fault::Down(..)) | None => self.look_away(),
        }
        let lasted = |since: Option<Time>| since.map(|since| lasted(now, ctx, since));
        let (differs, lags) = (
            lasted(self.differs_since),
            lasted(self.lags.map(|(_, since)| since)),
        );
        let limit = limit(ctx);
        self.out_of_step = differs.max(lags) >= Some(limit);
        let differs = differs >= Some(limit);
        let stalled = lags >= Some(STALLED.max(limit));
        let may_ask = self
            .asked
            .is_none_or(|asked| now.since(asked) >= RESYNC_PACE);
        let Some(fault) = fault.filter(|_| (differs || stalled) && may_ask) else {
            return;
        };
        self.asked = Some(now);
        ctx.log(
            3,
            "SYNC_FAILED",
            format!("Synchronization is begun again: {fault}."),
        );
        ctx.outputs.push_back(Output::Resync { whole: differs });
    }

    /// The active is not heard, or not ours: nothing can be compared. What it was found to be
    /// when last compared, it stays.
    pub(crate) const fn look_away(&mut self) {
        (self.differs_since, self.lags) = (None, None);
    }
}
