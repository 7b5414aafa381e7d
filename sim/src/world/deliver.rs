//! Connections: made, used, stalled, broken.

use node::node::NodeInput;
use node::service::{VemConnection, VemEvent};

use super::{CLONE, Event, MS, S, World};
use crate::network::{Network, Payload, StreamKind};

/// How often an end that is not connected tries.
const DIAL_NS: u64 = 200 * MS;
/// An end whose path is cut gives up after this much, at least and at most.
const GIVE_UP_NS: (u64, u64) = (500 * MS, 4 * S);

impl World {
    /// Both ends are there to be connected.
    fn is_ready(&self, kind: StreamKind) -> bool {
        let [first, second] = self.net.at.map(|machine| &self.machines[machine]);
        match kind {
            StreamKind::Control => first.is_awake() && second.is_awake(),
            StreamKind::Bulk => {
                let ready = |m: &crate::machine::Machine| m.is_awake() && m.bulk_listens;
                ready(first) && ready(second)
            }
            StreamKind::Vem { host, node } => {
                let machine = &self.machines[self.net.at[node]];
                self.hosts[host].agent.is_some() && machine.is_awake() && machine.vems_listen
            }
        }
    }

    pub(super) fn dial(&mut self, stream: usize) {
        let jitter = self.random(0, 50 * MS);
        self.after(DIAL_NS + jitter, Event::Dial { stream });
        if self.net.streams[stream].up {
            self.flush_stalled(stream);
            return;
        }
        let kind = self.net.streams[stream].kind;
        if !self.is_ready(kind) {
            return;
        }
        if matches!(kind, StreamKind::Control | StreamKind::Bulk) {
            let open = self.net.links.iter().position(Network::is_open);
            let Some(link) = open else { return };
            self.net.streams[stream].link = link;
        } else if !Network::is_open(self.net.path(&self.net.streams[stream])) {
            return;
        }
        let lives = self.order;
        let known = &mut self.net.streams[stream];
        known.life += 1;
        known.up = true;
        known.checking = false;
        known.connection = VemConnection(lives);
        known.stalled = [Vec::new(), Vec::new()];
        let life = known.life;
        for end in 0..2 {
            let at = self.now + MS + self.random(0, 3 * MS);
            self.net.streams[stream].last_arrival[end] = at;
            self.schedule(at, Event::StreamUp { stream, life, end });
        }
    }

    /// The machine whose processes an end belongs to, if it is a node's.
    fn node_of(kind: StreamKind, end: usize) -> Option<usize> {
        match (kind, end) {
            (StreamKind::Control | StreamKind::Bulk, _) => Some(end),
            (StreamKind::Vem { node, .. }, 1) => Some(node),
            (StreamKind::Vem { .. }, _) => None,
        }
    }

    /// The slot of a machine whose addresses lead to it.
    pub(super) fn slot_reached(&self, machine: usize) -> Option<usize> {
        let slot = self.machines[machine].slot;
        (self.net.at[slot] == machine).then_some(slot)
    }

    /// A gateway's addresses lead to another machine from now on: its connections break.
    pub(crate) fn give_addresses(&mut self, slot: usize, to: usize) {
        if self.net.at[slot] == to {
            return;
        }
        for stream in 0..self.net.streams.len() {
            let end = match self.net.streams[stream].kind {
                StreamKind::Control | StreamKind::Bulk => slot,
                StreamKind::Vem { node, .. } if node == slot => 1,
                StreamKind::Vem { .. } => continue,
            };
            if self.net.streams[stream].believed[end] && self.is_there(stream, end) {
                self.tell_end(stream, end, false);
            }
            self.end_died(stream, end);
        }
        self.net.at[slot] = to;
        self.trace.line(
            self.now,
            format_args!("machine {to} has the addresses of gateway {slot}"),
        );
    }

    /// A clone takes the addresses of its original, or loses them again.
    pub(super) fn steal(&mut self) {
        let Some(clone) = self.machines.get(CLONE) else {
            return;
        };
        let slot = clone.slot;
        let pause = self.random(500 * MS, 3 * S);
        self.after(pause, Event::Steal);
        // A machine that is stopped could not be told that its connections broke.
        if self.machines[self.net.at[slot]].paused_until.is_none() {
            let to = if self.net.at[slot] == slot {
                CLONE
            } else {
                slot
            };
            self.give_addresses(slot, to);
        }
    }

    /// Puts an event off while the machine at that end is stopped; true if it did.
    fn put_off(&mut self, stream: usize, end: usize, event: Event) -> Option<Event> {
        let node = Self::node_of(self.net.streams[stream].kind, end);
        let machine = node.map(|slot| self.net.at[slot]);
        match machine.filter(|at| self.machines[*at].paused_until.is_some()) {
            Some(machine) => {
                self.waiting.push((machine, event));
                None
            }
            None => Some(event),
        }
    }

    pub(super) fn stream_up(&mut self, stream: usize, life: u64, end: usize) {
        let event = Event::StreamUp { stream, life, end };
        if self.put_off(stream, end, event).is_none() {
            return;
        }
        if self.net.streams[stream].life != life || !self.is_there(stream, end) {
            return;
        }
        if core::mem::replace(&mut self.net.streams[stream].believed[end], true) {
            self.tell_end(stream, end, false);
        }
        self.tell_end(stream, end, true);
    }

    /// The process at that end runs.
    fn is_there(&self, stream: usize, end: usize) -> bool {
        match (self.net.streams[stream].kind, end) {
            (StreamKind::Control, _) => self.machines[self.net.at[end]].node.is_some(),
            (StreamKind::Bulk, _) => self.machines[self.net.at[end]].bulk_listens,
            (StreamKind::Vem { host, .. }, 0) => self.hosts[host].agent.is_some(),
            (StreamKind::Vem { node, .. }, _) => self.machines[self.net.at[node]].vems_listen,
        }
    }

    fn tell_end(&mut self, stream: usize, end: usize, stands: bool) {
        let connection = self.net.streams[stream].connection;
        match (self.net.streams[stream].kind, end) {
            (StreamKind::Control, slot) => {
                let node = self.net.at[slot];
                if stands {
                    // The datagrams' keys come from the connection. Node 0 listens.
                    let life = self.net.streams[stream].life;
                    self.machines[node].wire.connected(life, slot == 0);
                    self.feed(node, NodeInput::ControlConnected);
                } else {
                    self.feed(node, NodeInput::ControlGone);
                }
            }
            (StreamKind::Bulk, slot) => {
                let node = self.net.at[slot];
                let input = if stands {
                    NodeInput::BulkConnected
                } else {
                    NodeInput::BulkGone
                };
                self.feed(node, input);
            }
            (StreamKind::Vem { host, node }, 0) => self.agent_connection(host, node, stands),
            (StreamKind::Vem { host, node }, _) => {
                let event = if stands {
                    let key = self.hosts[host].key;
                    VemEvent::Connected {
                        key,
                        address: format!("host-{host}"),
                    }
                } else {
                    VemEvent::Closed
                };
                // The node knows a connection by its number: the one that is gone has the old.
                let told = &mut self.net.streams[stream].told_connection;
                let connection = if stands { connection } else { *told };
                *told = connection;
                self.feed(self.net.at[node], NodeInput::Vem { connection, event });
            }
        }
    }

    pub(super) fn send(&mut self, stream: usize, from: usize, payload: Payload) {
        let known = &self.net.streams[stream];
        if !known.up || !known.believed[from] {
            return;
        }
        self.net.streams[stream].stalled[1 - from].push(payload);
        self.flush_stalled(stream);
    }

    fn flush_stalled(&mut self, stream: usize) {
        if self.net.streams[stream].stalled.iter().all(Vec::is_empty) {
            return;
        }
        let path = *self.net.path(&self.net.streams[stream]);
        if !Network::is_open(&path) {
            return self.check_later(stream);
        }
        let life = self.net.streams[stream].life;
        for end in 0..2 {
            let waiting = core::mem::take(&mut self.net.streams[stream].stalled[end]);
            for payload in waiting {
                let direction = &path[1 - end];
                let mut delay = direction.draw_delay(&mut self.rng);
                // What a datagram path loses, TCP sends again.
                use rand::Rng;
                if self.rng.random_bool(direction.loss) {
                    delay += self.random(20 * MS, 200 * MS);
                }
                let last = self.net.streams[stream].last_arrival[end];
                let at = (self.now + delay).max(last + 1);
                self.net.streams[stream].last_arrival[end] = at;
                let payload = Box::new(payload);
                self.schedule(
                    at,
                    Event::StreamMessage {
                        stream,
                        life,
                        end,
                        payload,
                    },
                );
            }
        }
    }

    pub(crate) fn check_later(&mut self, stream: usize) {
        let known = &mut self.net.streams[stream];
        if known.up && !core::mem::replace(&mut known.checking, true) {
            let life = known.life;
            let delay = self.random(GIVE_UP_NS.0, GIVE_UP_NS.1);
            self.after(delay, Event::StreamCheck { stream, life });
        }
    }

    /// Paths have changed: whoever is connected finds out.
    pub(crate) fn check_streams(&mut self) {
        (0..self.net.streams.len()).for_each(|stream| self.check_later(stream));
    }

    pub(super) fn stream_check(&mut self, stream: usize, life: u64) {
        let known = &mut self.net.streams[stream];
        if known.life != life || !known.up {
            return;
        }
        known.checking = false;
        if !Network::is_open(self.net.path(&self.net.streams[stream])) {
            self.break_stream(stream);
        }
    }

    /// The transport dies; both ends hear of it.
    pub(super) fn break_stream(&mut self, stream: usize) {
        let known = &mut self.net.streams[stream];
        known.up = false;
        known.stalled = [Vec::new(), Vec::new()];
        let life = known.life;
        for end in 0..2 {
            if self.net.streams[stream].believed[end] {
                let delay = self.random(0, 50 * MS);
                self.after(delay, Event::StreamGone { stream, life, end });
            }
        }
    }

    /// The process at one end has ended or closed; the other hears of it, at once if it can.
    pub(crate) fn end_died(&mut self, stream: usize, end: usize) {
        let open = Network::is_open(self.net.path(&self.net.streams[stream]));
        let known = &mut self.net.streams[stream];
        known.believed[end] = false;
        if !core::mem::replace(&mut known.up, false) {
            return;
        }
        known.stalled = [Vec::new(), Vec::new()];
        let life = known.life;
        let other = 1 - end;
        let last = known.last_arrival[other];
        let delay = if open {
            self.random(MS / 10, 2 * MS)
        } else {
            self.random(GIVE_UP_NS.0, GIVE_UP_NS.1)
        };
        let at = (self.now + delay).max(last + 1);
        self.schedule(
            at,
            Event::StreamGone {
                stream,
                life,
                end: other,
            },
        );
    }

    pub(super) fn stream_gone(&mut self, stream: usize, life: u64, end: usize) {
        let event = Event::StreamGone { stream, life, end };
        if self.put_off(stream, end, event).is_none() {
            return;
        }
        let known = &mut self.net.streams[stream];
        if known.life == life && core::mem::replace(&mut known.believed[end], false) {
            self.tell_end(stream, end, false);
        }
    }

    pub(super) fn stream_message(
        &mut self,
        stream: usize,
        life: u64,
        end: usize,
        payload: Box<Payload>,
    ) {
        let event = Event::StreamMessage {
            stream,
            life,
            end,
            payload,
        };
        let Some(Event::StreamMessage { payload, .. }) = self.put_off(stream, end, event) else {
            return;
        };
        let known = &self.net.streams[stream];
        if known.life != life || !known.believed[end] {
            return;
        }
        let (kind, connection) = (known.kind, known.connection);
        match (*payload, kind) {
            (Payload::Control(message), _) => {
                let node = self.net.at[end];
                if end == 0 {
                    self.machines[node].wire.heard_on(life);
                }
                self.feed(node, NodeInput::Control(message));
            }
            (Payload::Bulk(frame), _) => self.feed(self.net.at[end], NodeInput::Bulk(frame)),
            (Payload::ToVem(message), StreamKind::Vem { host, node }) => {
                self.tell_agent(host, node, message);
            }
            (Payload::FromVem(message), StreamKind::Vem { node, .. }) => {
                let event = VemEvent::Message(message);
                self.feed(self.net.at[node], NodeInput::Vem { connection, event });
            }
            (Payload::ToVem(_) | Payload::FromVem(_), StreamKind::Control | StreamKind::Bulk) => {}
        }
    }

    /// The connection of that number, if it still stands at the node's end.
    pub(super) fn vem_stream_of(&self, node: usize, connection: VemConnection) -> Option<usize> {
        let slot = self.slot_reached(node)?;
        self.net.streams.iter().position(|stream| {
            matches!(stream.kind, StreamKind::Vem { node: at, .. } if at == slot)
                && stream.connection == connection
                && stream.believed[1]
        })
    }
}
