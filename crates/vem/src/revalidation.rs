//! Verdicts of an older policy are asked for again, in the background and in small batches.
//!
//! Invariants:
//! - At most [`IN_FLIGHT_MAX`] plus one batch of requests are open.
//! - Nothing is asked while nobody is obeyed.

use std::collections::BTreeMap;

use core::time::Duration;
use model::{Generation, Time};

use crate::types::{Flow, FlowId};

/// Map entries looked at in one step: about 0.2 ms of system calls, less than a first packet may
/// wait.
pub(crate) const WALK_ENTRIES: u32 = 64;
/// Open requests at which the walk pauses, so that new flows are not delayed behind old ones.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Pause between two steps, for the packets.
pub(crate) const STEP_EVERY: Duration = Duration::from_millis(1);
/// A walk whose answers do not come begins again after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where the walk is.
///
/// | state | policy raised, somebody obeyed | walked, more | walked, end | all answered | nobody obeyed |
/// |---|---|---|---|---|---|
/// | idle | → stepping | – | – | – | – |
/// | stepping | begin again | → paused | → ending | – | → idle, to be done |
/// | paused | begin again | – | – | – | → idle, to be done |
/// | ending | begin again | – | – | → idle, done | → idle, to be done |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Idle,
    /// `Walk` has been asked for.
    Stepping,
    /// The next step is at this time, from here.
    Paused {
        at: Time,
        after: Option<FlowId>,
    },
    /// The whole map has been seen; answers are awaited.
    Ending,
}

/// A step to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) older_than: Generation,
    pub(crate) after: Option<FlowId>,
}

/// A finished walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) generation: Generation,
    pub(crate) asked: u64,
    pub(crate) turned: u64,
}

#[derive(Debug)]
pub(crate) struct Revalidation {
    walk: Walk,
    target: Generation,
    /// All flows have a verdict of at least this; `None` if fail-open flows may be about.
    done: Option<Generation>,
    open: BTreeMap<u64, Flow>,
    progress_at: Time,
    asked: u64,
    turned: u64,
    /// Something stale was installed behind the walk.
    again: bool,
}

impl Revalidation {
    pub(crate) const fn new() -> Self {
        Self {
            walk: Walk::Idle,
            target: Generation(0),
            done: None,
            open: BTreeMap::new(),
            progress_at: Time(0),
            asked: 0,
            turned: 0,
            again: false,
        }
    }

    /// The obeyed gateway's policy is `generation`: begins a walk if there may be older verdicts.
    pub(crate) fn aim(&mut self, now: Time, generation: Generation) {
        let needed = self.done.is_none_or(|done| done < generation);
        let under_way = self.walk != Walk::Idle && self.target == generation;
        if needed && !under_way {
            self.begin(now, generation);
        }
    }

    /// A verdict older than the policy has been installed, or a flow permitted by the fail mode.
    pub(crate) fn mark_stale(&mut self) {
        self.done = None;
        self.again = self.walk != Walk::Idle;
    }

    /// Nobody is obeyed any more.
    pub(crate) fn stop(&mut self) {
        self.walk = Walk::Idle;
        self.open.clear();
    }

    /// The next step, if it is time.
    pub(crate) fn due(&mut self, now: Time) -> Option<Step> {
        let stalled = self.walk != Walk::Idle && now.since(self.progress_at) >= ANSWER_WITHIN;
        if stalled {
            self.begin(now, self.target);
        }
        let Walk::Paused { at, after } = self.walk else {
            return None;
        };
        if at > now || self.open.len() >= IN_FLIGHT_MAX {
            return None;
        }
        self.walk = Walk::Stepping;
        Some(Step {
            older_than: self.target,
            after,
        })
    }

    /// The shell took a step.
    pub(crate) fn walked(&mut self, now: Time, next: Option<FlowId>) {
        if self.walk != Walk::Stepping {
            return;
        }
        self.progress_at = now;
        self.walk = match next {
            Some(_) => Walk::Paused {
                at: now + STEP_EVERY,
                after: next,
            },
            None => Walk::Ending,
        };
    }

    /// A stale flow has been asked for.
    pub(crate) fn asked(&mut self, request: u64, flow: Flow) {
        self.asked += 1;
        self.open.insert(request, flow);
    }

    /// The flow of an open request, which this closes.
    pub(crate) fn answered(&mut self, now: Time, request: u64, permit: bool) -> Option<Flow> {
        let flow = self.open.remove(&request)?;
        self.progress_at = now;
        self.turned += u64::from(!permit);
        Some(flow)
    }

    /// The walk has ended and all is answered.
    pub(crate) fn take_done(&mut self) -> Option<Done> {
        if self.walk != Walk::Ending || !self.open.is_empty() {
            return None;
        }
        self.walk = Walk::Idle;
        self.done = (!core::mem::take(&mut self.again)).then_some(self.target);
        Some(Done {
            generation: self.target,
            asked: self.asked,
            turned: self.turned,
        })
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        match self.walk {
            Walk::Idle => None,
            Walk::Paused { at, .. } if self.open.len() < IN_FLIGHT_MAX => Some(at),
            Walk::Ending if self.open.is_empty() => Some(self.progress_at),
            Walk::Paused { .. } | Walk::Stepping | Walk::Ending => {
                Some(self.progress_at + ANSWER_WITHIN)
            }
        }
    }

    fn begin(&mut self, now: Time, generation: Generation) {
        self.target = generation;
        self.walk = Walk::Paused {
            at: now,
            after: None,
        };
        self.open.clear();
        self.again = false;
        self.progress_at = now;
        (self.asked, self.turned) = (0, 0);
    }

    pub(crate) fn check(&self, somebody_obeyed: bool) {
        assert!(
            self.open.len() <= IN_FLIGHT_MAX + WALK_ENTRIES as usize,
            "too many open"
        );
        if !somebody_obeyed {
            assert!(
                self.open.is_empty() && self.walk == Walk::Idle,
                "revalidating for nobody"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Direction, Protocol};

    use super::*;
    use crate::types::PortIndex;

    fn flow(n: u16) -> Flow {
        let id = FlowId {
            port: PortIndex(0),
            vm_ip: [10, 0, 0, 1].into(),
            remote_ip: [10, 0, 0, 2].into(),
            vm_port: n,
            remote_port: 80,
            protocol: Protocol::TCP,
        };
        Flow {
            id,
            born_ns: 1,
            opened: Direction::Egress,
        }
    }

    fn at(walk: &mut Revalidation, state: Walk) {
        walk.begin(Time(0), Generation(3));
        walk.walk = state;
    }

    #[test]
    fn every_event_in_every_state() {
        let paused = Walk::Paused {
            at: Time(0),
            after: None,
        };
        let resumed = |n| Walk::Paused {
            at: Time(0) + STEP_EVERY,
            after: Some(flow(n).id),
        };
        for (state, on_more, on_end, on_raise) in [
            (Walk::Idle, Walk::Idle, Walk::Idle, paused),
            (Walk::Stepping, resumed(1), Walk::Ending, paused),
            (paused, paused, paused, paused),
            (Walk::Ending, Walk::Ending, Walk::Ending, paused),
        ] {
            let mut walk = Revalidation::new();
            at(&mut walk, state);
            walk.walked(Time(0), Some(flow(1).id));
            assert_eq!(walk.walk, on_more, "{state:?}");
            at(&mut walk, state);
            walk.walked(Time(0), None);
            assert_eq!(walk.walk, on_end, "{state:?}");
            at(&mut walk, state);
            walk.aim(Time(0), Generation(4));
            assert_eq!(walk.walk, on_raise, "{state:?}");
            at(&mut walk, state);
            walk.stop();
            walk.check(false);
            at(&mut walk, state);
            assert_eq!(
                walk.take_done().is_some(),
                state == Walk::Ending,
                "{state:?}"
            );
            at(&mut walk, state);
            assert_eq!(walk.due(Time(0)).is_some(), state == paused, "{state:?}");
            at(&mut walk, state);
            assert_eq!(
                walk.due(Time(0) + ANSWER_WITHIN).is_some(),
                state != Walk::Idle
            );
        }
    }

    #[test]
    fn walks_once_per_generation_and_again_after_fail_open() {
        let mut walk = Revalidation::new();
        walk.aim(Time(0), Generation(1));
        assert!(walk.due(Time(0)).is_some());
        walk.walked(Time(0), None);
        assert!(walk.take_done().is_some());
        walk.aim(Time(0), Generation(1));
        assert_eq!(walk.next_deadline(), None);
        walk.mark_stale();
        walk.aim(Time(0), Generation(1));
        assert!(walk.due(Time(0)).is_some());
    }

    #[test]
    fn pauses_while_too_many_are_open() {
        let mut walk = Revalidation::new();
        walk.aim(Time(0), Generation(1));
        assert!(walk.due(Time(0)).is_some());
        (0..IN_FLIGHT_MAX as u16).for_each(|n| walk.asked(u64::from(n), flow(n)));
        walk.walked(Time(0), Some(flow(1).id));
        let later = Time(0) + STEP_EVERY;
        assert_eq!(walk.due(later), None);
        assert_eq!(walk.answered(later, 0, true), Some(flow(0)));
        assert!(walk.due(later).is_some());
    }
}
