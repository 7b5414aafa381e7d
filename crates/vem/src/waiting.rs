//! Undecided flows and the packets they hold.
//!
//! Invariants:
//! - Each held slot is in exactly one flow's queue.
//! - A draining flow holds nothing: its packets are written as they come.
//! - `requests` maps exactly the asked flows.
//! - Each flow has exactly one deadline.
//! - What a port holds, in packets and bytes, is the sum of its flows' and within its limits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::time::Duration;
use model::{Time, Verdict};

use crate::input::SettleOutcome;
use crate::types::{Flow, FlowId, PortIndex, SlotId};

/// Most packets a port holds: 8 s of 500 new connections a second. Further packets are dropped
/// and counted; TCP tries again.
pub const HELD_PER_PORT_MAX: u32 = 4096;
/// Most bytes a port holds, so that large GSO packets cannot take the host's memory.
pub const HELD_BYTES_PER_PORT_MAX: u32 = 16 << 20;
/// Most packets one flow holds: a second of a 1 kHz flow, more than a takeover at the default
/// profile lasts. Further ones are dropped and counted, so that a talkative flow leaves room for
/// others.
pub const HELD_PER_FLOW_MAX: usize = 1024;
/// How long a flow waits for a verdict before its port's fail mode decides: above the longest
/// takeover (vm-safe profile, 3 s), below the kernel's limit for undecided entries (30 s).
pub const HOLD_LIMIT: Duration = Duration::from_secs(10);
/// An unanswered request is repeated after this, in case the active lost it.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Pause before the second attempt to settle a flow; a packet needs microseconds through the tap.
/// It doubles [`SETTLE_DOUBLINGS_MAX`] times, so that many flows that drain at once leave time for
/// what they wait for.
pub(crate) const SETTLE_RETRY_AFTER: Duration = Duration::from_micros(200);
const SETTLE_DOUBLINGS_MAX: u32 = 4;
/// A packet of a draining flow was written: right behind it none may be on its way, which for a
/// flow that never pauses is the moment to settle.
const SETTLE_SOON_AFTER: Duration = Duration::from_micros(30);
/// A flow whose kernel count does not reach zero although its tap is empty has lost packets in
/// the tap's queue; after this it is settled by force.
pub const SETTLE_FORCE_AFTER: Duration = Duration::from_millis(5);
/// A flow that sends faster than we read never has an empty moment. It is settled by force after
/// this, at the price of one reordering, rather than kept on the slow path for ever.
const SETTLE_FORCE_BUSY_AFTER: Duration = Duration::from_millis(500);
/// The shell answers `Settle` at once; a lost answer is made good after this.
const SETTLE_ANSWER_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Held {
    slot: SlotId,
    bytes: u32,
}

/// Where an undecided flow stands.
///
/// | stage | packet | nobody obeyed | somebody obeyed | permit | drop | deadline | settled / not drained |
/// |---|---|---|---|---|---|---|---|
/// | unasked | hold | – | → asked | – | – | fail mode | – |
/// | asked | hold | → unasked | new request | → draining, write all | gone, discard all | ask again, at the hold limit fail mode | – |
/// | draining | write | – | – | – | – | settle | gone / try again, at last by force |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unasked,
    Asked {
        request: u64,
    },
    Draining {
        since: Time,
        last_write: Time,
        attempts: u32,
    },
}

impl Stage {
    const fn draining(now: Time) -> Self {
        Self::Draining {
            since: now,
            last_write: now,
            attempts: 0,
        }
    }
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    since: Time,
    stage: Stage,
    held: VecDeque<Held>,
    discarded: u32,
    deadline: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    packets: u32,
    bytes: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// It waits with others of its flow.
    Queued,
    /// It is the first of its flow, which is to be asked for.
    First,
    /// Its flow is draining: write it now.
    WriteNow,
    /// No room. `first`: nothing of its flow waits, so its entry is to be forgotten.
    Full { first: bool },
}

/// What is due for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Repeat the request.
    Repeat { request: u64, flow: Flow },
    /// Nobody decided within the hold limit.
    Fail(Flow),
    /// Try to settle.
    Settle(Flow),
}

/// The next step of a flow that is settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settling {
    /// No more to do.
    Over,
    /// Its deadline will ask again.
    Later,
    /// Its missing packets are lost: settle by force, now.
    Force,
}

/// A decided flow and its packets, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Freed {
    pub(crate) flow: Flow,
    pub(crate) slots: Vec<SlotId>,
    pub(crate) discarded: u32,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    entries: BTreeMap<FlowId, Entry>,
    requests: BTreeMap<u64, FlowId>,
    deadlines: BTreeSet<(Time, FlowId)>,
    loads: Vec<Load>,
}

impl Waiting {
    pub(crate) fn new(ports: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            loads: vec![Load::default(); ports],
        }
    }

    /// A packet of an undecided flow. A flow that begins here has `deadline` until it is asked.
    pub(crate) fn hold(
        &mut self,
        now: Time,
        flow: Flow,
        slot: SlotId,
        bytes: u32,
        deadline: Time,
    ) -> Holding {
        let room = self.has_room(flow.id.port, bytes);
        match self.entries.get_mut(&flow.id) {
            Some(entry) => match &mut entry.stage {
                Stage::Draining {
                    last_write,
                    attempts,
                    ..
                } => {
                    (*last_write, *attempts) = (now, 0);
                    let soon = entry.deadline.min(now + SETTLE_SOON_AFTER);
                    self.set_deadline(flow.id, soon);
                    return Holding::WriteNow;
                }
                Stage::Unasked | Stage::Asked { .. } => {
                    if !room || entry.held.len() >= HELD_PER_FLOW_MAX {
                        entry.discarded += 1;
                        return Holding::Full { first: false };
                    }
                    entry.held.push_back(Held { slot, bytes });
                }
            },
            None if !room => return Holding::Full { first: true },
            None => {
                let held = VecDeque::from([Held { slot, bytes }]);
                self.insert(now, flow, Stage::Unasked, held, deadline);
                self.load(flow.id.port, bytes);
                return Holding::First;
            }
        }
        self.load(flow.id.port, bytes);
        Holding::Queued
    }

    /// A flow that was draining when an earlier run of the shell ended.
    pub(crate) fn resume_draining(&mut self, now: Time, flow: Flow) {
        let stage = Stage::draining(now);
        self.insert(now, flow, stage, VecDeque::new(), now);
    }

    /// The life of the flow's key that waits here, if any.
    pub(crate) fn life(&self, id: FlowId) -> Option<Flow> {
        self.entries.get(&id).map(|entry| entry.flow)
    }

    /// The flow has been asked for, with this request.
    pub(crate) fn asked(&mut self, now: Time, id: FlowId, request: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match entry.stage {
            Stage::Unasked => {}
            Stage::Asked { request } => {
                self.requests.remove(&request);
            }
            Stage::Draining { .. } => return,
        }
        entry.stage = Stage::Asked { request };
        self.requests.insert(request, id);
        self.set_deadline(id, now + ASK_AGAIN_AFTER);
    }

    /// Nobody is obeyed any more: open requests are void; `deadline` is when the fail mode
    /// decides.
    pub(crate) fn unask_all(&mut self, deadline: Time) {
        let ids: Vec<_> = core::mem::take(&mut self.requests).into_values().collect();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.stage = Stage::Unasked;
            }
            self.set_deadline(id, deadline);
        }
    }

    /// All undecided flows, oldest first, so that those who wait longest are asked first.
    pub(crate) fn undecided(&self) -> Vec<Flow> {
        let undecided =
            |entry: &&Entry| matches!(entry.stage, Stage::Unasked | Stage::Asked { .. });
        let mut flows: Vec<_> = self
            .entries
            .values()
            .filter(undecided)
            .map(|entry| (entry.since, entry.flow))
            .collect();
        flows.sort();
        flows.into_iter().map(|(_, flow)| flow).collect()
    }

    /// The flow of an open request, which this closes.
    pub(crate) fn answered(&mut self, request: u64) -> Option<Flow> {
        let id = self.requests.remove(&request)?;
        let entry = self.entries.get_mut(&id)?;
        entry.stage = Stage::Unasked;
        Some(entry.flow)
    }

    /// Frees the packets of an undecided flow. With a permit it drains from here on; otherwise it
    /// is gone.
    pub(crate) fn decide(
        &mut self,
        now: Time,
        id: FlowId,
        verdict: Option<Verdict>,
    ) -> Option<Freed> {
        let entry = self.entries.get_mut(&id)?;
        if let Stage::Draining { .. } = entry.stage {
            return None;
        }
        if let Stage::Asked { request } = entry.stage {
            self.requests.remove(&request);
        }
        let held = core::mem::take(&mut entry.held);
        let freed = Freed {
            flow: entry.flow,
            slots: held.iter().map(|held| held.slot).collect(),
            discarded: entry.discarded,
        };
        if verdict == Some(Verdict::Permit) {
            entry.stage = Stage::draining(now);
            self.set_deadline(id, now + SETTLE_ANSWER_WITHIN);
        } else {
            self.remove(id);
        }
        self.unload(id.port, &held);
        Some(freed)
    }

    /// The shell tried to settle the flow.
    pub(crate) fn settled(
        &mut self,
        now: Time,
        flow: Flow,
        outcome: SettleOutcome,
        tap_empty: bool,
    ) -> Settling {
        let Some(entry) = self
            .entries
            .get_mut(&flow.id)
            .filter(|entry| entry.flow == flow)
        else {
            return Settling::Over;
        };
        let Stage::Draining {
            since,
            last_write,
            attempts,
        } = &mut entry.stage
        else {
            return Settling::Over;
        };
        let lost = tap_empty && now.since(*last_write) >= SETTLE_FORCE_AFTER;
        let busy = now.since(*since) >= SETTLE_FORCE_BUSY_AFTER;
        let pause = SETTLE_RETRY_AFTER * (1 << *attempts);
        *attempts = (*attempts + 1).min(SETTLE_DOUBLINGS_MAX);
        match outcome {
            SettleOutcome::Settled | SettleOutcome::Gone => {
                self.remove(flow.id);
                Settling::Over
            }
            SettleOutcome::NotDrained if lost || busy => {
                self.set_deadline(flow.id, now + SETTLE_ANSWER_WITHIN);
                Settling::Force
            }
            SettleOutcome::NotDrained => {
                self.set_deadline(flow.id, now + pause);
                Settling::Later
            }
        }
    }

    /// The first thing that is due, if any. Each call gives its flow a later deadline, except
    /// [`Due::Fail`], which is followed by [`Self::decide`].
    pub(crate) fn due(&mut self, now: Time) -> Option<Due> {
        let &(deadline, id) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        let entry = self
            .entries
            .get(&id)
            .expect("invariant: a deadline belongs to an entry");
        let (flow, since) = (entry.flow, entry.since);
        match entry.stage {
            Stage::Unasked => Some(Due::Fail(flow)),
            Stage::Asked { .. } if now.since(since) >= HOLD_LIMIT => Some(Due::Fail(flow)),
            Stage::Asked { request } => {
                self.set_deadline(id, now + ASK_AGAIN_AFTER);
                Some(Due::Repeat { request, flow })
            }
            Stage::Draining { .. } => {
                self.set_deadline(id, now + SETTLE_ANSWER_WITHIN);
                Some(Due::Settle(flow))
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    pub(crate) fn flows(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn held(&self) -> u32 {
        self.loads.iter().map(|load| load.packets).sum()
    }

    fn has_room(&self, port: PortIndex, bytes: u32) -> bool {
        self.loads.get(usize::from(port.0)).is_some_and(|load| {
            load.packets < HELD_PER_PORT_MAX && load.bytes + bytes <= HELD_BYTES_PER_PORT_MAX
        })
    }

    fn load(&mut self, port: PortIndex, bytes: u32) {
        if let Some(load) = self.loads.get_mut(usize::from(port.0)) {
            load.packets += 1;
            load.bytes += bytes;
        }
    }

    fn unload(&mut self, port: PortIndex, held: &VecDeque<Held>) {
        if let Some(load) = self.loads.get_mut(usize::from(port.0)) {
            load.packets -= held.len() as u32;
            load.bytes -= held.iter().map(|held| held.bytes).sum::<u32>();
        }
    }

    fn insert(
        &mut self,
        now: Time,
        flow: Flow,
        stage: Stage,
        held: VecDeque<Held>,
        deadline: Time,
    ) {
        let entry = Entry {
            flow,
            since: now,
            stage,
            held,
            discarded: 0,
            deadline,
        };
        let earlier = self.entries.insert(flow.id, entry);
        debug_assert!(earlier.is_none(), "a life of the key already waits");
        self.deadlines.insert((deadline, flow.id));
    }

    fn remove(&mut self, id: FlowId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.deadlines.remove(&(entry.deadline, id));
        }
    }

    fn set_deadline(&mut self, id: FlowId, deadline: Time) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.deadlines.remove(&(entry.deadline, id));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, id));
        }
    }

    pub(crate) fn check(&self, somebody_obeyed: bool) {
        let mut loads = vec![Load::default(); self.loads.len()];
        let mut slots = BTreeSet::new();
        for (id, entry) in &self.entries {
            assert_eq!(*id, entry.flow.id, "entry under another's key");
            assert!(
                self.deadlines.contains(&(entry.deadline, *id)),
                "entry without a deadline"
            );
            assert!(entry.held.len() <= HELD_PER_FLOW_MAX, "flow holds too much");
            match entry.stage {
                Stage::Unasked => assert!(!somebody_obeyed, "unasked although somebody is obeyed"),
                Stage::Asked { request } => {
                    assert!(somebody_obeyed, "asked although nobody is obeyed");
                    assert_eq!(self.requests.get(&request), Some(id), "request of nobody");
                }
                Stage::Draining { .. } => assert!(entry.held.is_empty(), "draining flow holds"),
            }
            let load = &mut loads[usize::from(id.port.0)];
            for held in &entry.held {
                assert!(slots.insert(held.slot), "slot held twice");
                load.packets += 1;
                load.bytes += held.bytes;
            }
        }
        assert_eq!(
            loads, self.loads,
            "a port's load is not the sum of its flows'"
        );
        assert_eq!(
            self.deadlines.len(),
            self.entries.len(),
            "deadlines of nobody"
        );
        let asked = |entry: &&Entry| matches!(entry.stage, Stage::Asked { .. });
        assert_eq!(
            self.requests.len(),
            self.entries.values().filter(asked).count()
        );
        for load in &self.loads {
            assert!(load.packets <= HELD_PER_PORT_MAX && load.bytes <= HELD_BYTES_PER_PORT_MAX);
        }
    }
}
