//! Events of the gateways' machines, and what nodes ask for.

use std::collections::BTreeSet;

use node::node::{NodeInput, NodeOutput};
use node::service::ShellEvent;
use node::services::policy_engine::CONNECTIONS;
use wire::console::FromShell;
use wire::heartbeat::{Datagram, State};
use wire::supervision::Activity;

use super::{CLONE, Event, MS, S, World};
use crate::coverage::Shown;
use crate::invariants::{
    s2_epochs_never_decrease, s7_only_stable_takes_over, s8_no_switchover_without_standby,
};
use crate::network::{BULK, CONTROL, LINKS, Payload, vem_stream};

/// Mnemonics of log lines that no run may contain: the product has met what cannot be.
const NEVER_LOGGED: [&str; 3] = ["STANDBY_DIVERGED", "STORAGE_DAMAGED", "STORAGE_FAILED"];

impl World {
    /// Handles what happens to a machine, later if its processes are stopped.
    pub(super) fn node_event(&mut self, event: Event) {
        let node = match &event {
            Event::NodeTick { node, .. }
            | Event::Spawned { node, .. }
            | Event::Persisted { node, .. }
            | Event::Work { node, .. }
            | Event::ShellSays { node, .. }
            | Event::NodeBoot { node }
            | Event::Resume { node, .. } => *node,
            Event::Datagram { to, .. } => self.net.at[*to],
            _ => return,
        };
        if node >= self.machines.len() {
            return; // A clone that is gone.
        }
        match event {
            Event::NodeBoot { .. } => return self.boot(node),
            Event::Resume { boot, .. } => return self.resume(node, boot),
            _ => {}
        }
        if self.machines[node].paused_until.is_some() {
            return self.waiting.push((node, event));
        }
        let current = self.machines[node].boot;
        match event {
            Event::NodeTick { boot, .. } => {
                let machine = &mut self.machines[node];
                if boot == current && machine.tick_at.is_some_and(|at| at <= self.now) {
                    machine.tick_at = None;
                    self.feed(node, NodeInput::Tick);
                }
            }
            Event::Spawned {
                boot, service, pid, ..
            } if boot == current => {
                self.feed(node, NodeInput::Spawned { service, pid });
                if matches!(service, model::ServiceName::Vshd | model::ServiceName::Pss) {
                    let wall_s = self.machines[node].wall_s + self.wall_offset_s;
                    let unix_s = wall_s + self.now / S;
                    self.feed(node, NodeInput::WallClock { unix_s });
                }
            }
            Event::Persisted { boot, write, .. } if boot == current => self.persisted(node, write),
            Event::Work {
                boot, pid, work, ..
            } if boot == current => {
                self.feed(node, NodeInput::RunWork { pid, work });
            }
            Event::ShellSays {
                boot,
                session,
                line,
                ..
            } if boot == current => {
                let event = match line {
                    None => ShellEvent::Opened {
                        user: "admin".to_owned(),
                    },
                    Some(line) => ShellEvent::Message(FromShell::Line(line)),
                };
                self.feed(node, NodeInput::Shell { session, event });
            }
            Event::Datagram {
                link, bytes, sent, ..
            } => {
                let Some(datagram) = self.machines[node].wire.open(bytes) else {
                    return;
                };
                let result = self.watch.s11.accepts(node, current, sent);
                self.insist(result);
                let link = model::LinkId(link as u8);
                self.feed(node, NodeInput::Datagram { link, datagram });
            }
            _ => {}
        }
    }

    fn boot(&mut self, node: usize) {
        if self.machines[node].node.is_some() {
            return;
        }
        let incarnation = self.incarnation();
        self.trace.mix(&[self.now, node as u64, incarnation.0]);
        self.trace
            .line(self.now, format_args!("node {node} starts"));
        let result = self.machines[node].start(self.now, incarnation);
        self.insist(result.map_err(|error| error.to_string()));
        self.feed(node, NodeInput::Tick);
    }

    fn resume(&mut self, node: usize, boot: u64) {
        let machine = &mut self.machines[node];
        if machine.boot == boot && machine.paused_until.is_some() {
            machine.paused_until = None;
            machine.up_since = Some(self.now);
            self.happen_now(node);
            self.trace
                .line(self.now, format_args!("node {node} resumes"));
            self.schedule_tick(node);
        }
    }

    /// What has waited for a machine that was stopped happens, in order.
    fn happen_now(&mut self, node: usize) {
        let of_node = |(at, _): &mut (usize, Event)| *at == node;
        let events: Vec<_> = self.waiting.extract_if(.., of_node).collect();
        events
            .into_iter()
            .for_each(|(_, event)| self.after(0, event));
    }

    fn persisted(&mut self, node: usize, write: u64) {
        if self.machines[node].node_file_fails {
            self.machines[node]
                .writes
                .retain(|(number, _)| *number != write);
            return self.feed(node, NodeInput::PersistFailed { write });
        }
        let machine = &mut self.machines[node];
        let writes = &mut machine.writes;
        let Some(index) = writes.iter().position(|(number, _)| *number == write) else {
            return;
        };
        // Writes happen in order: one that is durable makes all before it so.
        if let Some((_, record)) = writes.drain(..=index).next_back() {
            machine.record = record;
        }
        self.feed(node, NodeInput::Persisted { write });
    }

    /// Tells a node what happened and does what it asks for.
    pub(crate) fn feed(&mut self, node: usize, input: NodeInput) {
        let machine = &mut self.machines[node];
        let clock = machine.clock(self.now);
        let Some(running) = &mut machine.node else {
            return;
        };
        let before = running.activity();
        machine.lacked = if machine.said == Some(State::Synchronizing) {
            s7_only_stable_takes_over::lacking(&running.status(clock))
        } else {
            0
        };
        running.handle(clock, input);
        let mut outputs = Vec::new();
        while let Some(output) = running.poll_output() {
            outputs.push(output);
        }
        let after = running.activity();
        let sound = running.supervisor().check();
        // The whole node is looked at now and then: its stores are large.
        let sound = sound.and_then(|()| {
            if self.outcome.events.is_multiple_of(512) {
                running.check()
            } else {
                Ok(())
            }
        });
        if running.is_stable_standby() {
            machine.stable_at = Some(self.now);
        }
        self.trace
            .mix(&[self.now, node as u64, outputs.len() as u64]);
        self.insist(sound);
        if before != after {
            self.trace.line(
                self.now,
                format_args!("node {node}: {before:?} -> {after:?}"),
            );
            if matches!(after, Activity::Quiesce(_)) {
                let peer = self.machines[1 - node].stable_at;
                self.insist(s8_no_switchover_without_standby::quiesces(self.now, peer));
            }
        }
        for output in outputs {
            if let Some(left) = &mut self.machines[node].dies_after {
                if *left == 0 {
                    return self.loses_power_now(node);
                }
                *left -= 1;
            }
            self.node_wants(node, output);
            if self.machines.get(node).is_none_or(|m| m.node.is_none()) {
                return; // It has ended meanwhile; what it still wanted is not done.
            }
        }
        self.note_shown(node);
        self.watch_flows(node);
        self.schedule_tick(node);
    }

    /// Power fails between two effects of a turn.
    fn loses_power_now(&mut self, node: usize) {
        self.power_off(node);
        let off = self.random(300 * MS, 8 * S);
        self.after(off, Event::NodeBoot { node });
    }

    /// Whether a gateway acts at this moment.
    pub(crate) fn acts_now(&self, node: usize) -> bool {
        let running = self.machines[node].node.as_ref();
        running.is_some_and(|running| running.acting().is_some())
    }

    /// What is seen of a node has changed, perhaps.
    fn note_shown(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let shown = match (&machine.node, machine.said) {
            (None, _) => Shown::Off,
            (Some(_), None) => return,
            (Some(_), Some(state)) => Shown::Says(state),
        };
        let before = core::mem::replace(&mut machine.shown, shown);
        if before != shown && node < CLONE {
            let slot = machine.slot;
            self.trace.line(
                self.now,
                format_args!("node {node}: {before:?} -> {shown:?}"),
            );
            let result = self.coverage.changed(self.now, slot, before, shown);
            self.insist(result);
        }
    }

    /// The machine loses power, if it has any.
    pub(crate) fn power_off(&mut self, node: usize) {
        self.trace
            .line(self.now, format_args!("node {node} loses power"));
        self.machines[node].lose_power(&mut self.rng);
        self.node_ended(node);
    }

    /// What the machine's disks held is lost, or not what it was.
    pub(crate) fn lost_disk(&mut self, node: usize) {
        let other = &self.machines[1 - self.machines[node].slot];
        let kept = other.durable_texts();
        self.watch.s5.lost_disk(self.now, &kept);
        self.watch.s6.forget();
    }

    pub(crate) fn schedule_tick(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Some(running) = &machine.node else { return };
        let at = machine.world_time(running.next_deadline()).max(self.now);
        if machine.tick_at.is_none_or(|scheduled| at < scheduled) {
            machine.tick_at = Some(at);
            let boot = machine.boot;
            self.schedule(at, Event::NodeTick { node, boot });
        }
    }

    fn node_wants(&mut self, node: usize, output: NodeOutput) {
        let boot = self.machines[node].boot;
        match output {
            NodeOutput::Datagram { link, datagram } => {
                self.send_datagram(node, usize::from(link.0), datagram);
            }
            NodeOutput::Control(message) => {
                if let Some(slot) = self.slot_reached(node) {
                    self.send(CONTROL, slot, Payload::Control(message));
                }
            }
            NodeOutput::Bulk(frame) => {
                if let Some(slot) = self.slot_reached(node) {
                    self.send(BULK, slot, Payload::Bulk(frame));
                }
            }
            NodeOutput::BulkListens(listens) => {
                self.machines[node].bulk_listens = listens;
                if let Some(slot) = self.slot_reached(node).filter(|_| !listens) {
                    self.end_died(BULK, slot);
                }
            }
            NodeOutput::CloseBulk => {
                if self.slot_reached(node).is_some() {
                    self.break_stream(BULK);
                }
            }
            NodeOutput::Persist { write, record } => {
                self.machines[node].writes.push((write, record));
                let delay = self.machines[node].disk_ns + self.random(0, 2 * MS);
                self.after(delay, Event::Persisted { node, boot, write });
            }
            NodeOutput::Work { pid, work } => {
                let delay = self.machines[node].disk_ns + self.random(0, 2 * MS);
                self.after(
                    delay,
                    Event::Work {
                        node,
                        boot,
                        pid,
                        work,
                    },
                );
            }
            NodeOutput::Spawn { service } => {
                let pid = self.machines[node].next_pid;
                self.machines[node].next_pid += 1;
                let delay = self.random(2 * MS, 80 * MS) + self.machines[node].slow_start_ns;
                self.after(
                    delay,
                    Event::Spawned {
                        node,
                        boot,
                        service,
                        pid,
                    },
                );
            }
            NodeOutput::SealGasp(gasp) => self.machines[node].wire.keep_gasp(gasp),
            NodeOutput::Reset { reason } => {
                self.trace
                    .line(self.now, format_args!("node {node} resets: {reason}"));
                self.trace.mix_text(&reason);
                self.restart(node);
            }
            NodeOutput::Activated { epoch } => self.acts(node, epoch),
            NodeOutput::Log(record) => {
                let (facility, mnemonic) = (&record.facility, &record.mnemonic);
                self.trace.mix_text(mnemonic);
                let severity = record.severity;
                self.trace.line(
                    self.now,
                    format_args!(
                        "node {node} %{facility}-{severity}-{mnemonic}: {}",
                        record.text
                    ),
                );
                if self.scripted {
                    let (word, text) = (record.mnemonic.clone(), record.text.clone());
                    self.logged.push((node, word, text));
                }
                let damaged = self.machines[node].damaged;
                if NEVER_LOGGED.contains(&record.mnemonic.as_str()) && !damaged {
                    self.insist(Err(format!("log: {}: {}", record.mnemonic, record.text)));
                }
            }
            NodeOutput::VemsListen(listens) => {
                self.machines[node].vems_listen = listens;
                if let Some(slot) = self.slot_reached(node).filter(|_| !listens) {
                    (0..self.hosts.len()).for_each(|host| self.end_died(vem_stream(host, slot), 1));
                }
            }
            NodeOutput::Vem {
                connection,
                message,
            } => {
                if let Some(stream) = self.vem_stream_of(node, connection) {
                    self.send(stream, 1, Payload::ToVem(message));
                }
            }
            NodeOutput::CloseVem(connection) => {
                if let Some(stream) = self.vem_stream_of(node, connection) {
                    self.end_died(stream, 1);
                }
            }
            NodeOutput::Changed { reached } => self.changed(node, reached),
            NodeOutput::Shell { session, message } => self.shell_says(node, session, message),
            NodeOutput::CloseShell(_) | NodeOutput::ShellsGone => self.operator.session_gone(node),
        }
    }

    fn acts(&mut self, node: usize, epoch: model::Epoch) {
        self.outcome.role_changes += 1;
        self.trace
            .mix(&[self.now, node as u64, epoch.counter, epoch.incarnation.0]);
        self.trace
            .line(self.now, format_args!("node {node} ACTS under {epoch}"));
        let machine = &self.machines[node];
        let s2 = s2_epochs_never_decrease::node_acts(machine, epoch);
        let running = self.running(node);
        let missing = self
            .watch
            .s5
            .lacking(&running)
            .filter(|_| !running.is_empty());
        let s7 = s7_only_stable_takes_over::acts(machine.said, machine.lacked, missing);
        let s1 = self.watch.s1.acts(node, machine.boot, epoch);
        self.machines[node].acted = self.machines[node].acted.max(epoch);
        self.insist(s1);
        self.insist(s2);
        self.insist(s7);
        let result = self.flows_survive(node);
        self.insist(result);
    }

    /// S6: the flows that a node holds as it begins to act.
    fn flows_survive(&mut self, node: usize) -> Result<(), String> {
        let followed = self.machines[node].acked;
        let (Some((_, acked)), Some(keys)) = (followed, self.flow_keys(node)) else {
            return Ok(());
        };
        // A heartbeat says the highest epoch that was seen; the newest commit tells whom it followed.
        let running = self.machines[node].node.as_ref();
        let store = running.and_then(|running| running.store());
        let epoch = store.map(|store| store.history().0).unwrap_or_default();
        self.watch.s6.takes_over(epoch, acked, &keys)
    }

    fn flow_keys(&self, node: usize) -> Option<BTreeSet<Vec<u8>>> {
        let store = self.machines[node].node.as_ref()?.store()?;
        let flows = store.pairs(CONNECTIONS).into_iter();
        Some(flows.map(|(key, _)| key).collect())
    }

    /// Looks at the flows of an active that has committed something.
    fn watch_flows(&mut self, node: usize) {
        let Some(running) = &self.machines[node].node else {
            return;
        };
        let Some(store) = running.store() else {
            return;
        };
        // What is in flight is committed while it quiesces, and in the turn that ends that.
        let yielded = self.machines[node].said == Some(State::Yielded);
        let epoch = match running.activity() {
            Activity::Active(epoch) | Activity::Quiesce(epoch) => epoch,
            Activity::Idle if yielded && self.watch.s6.is_of(store.history().0) => {
                store.history().0
            }
            Activity::Idle | Activity::Standby => return,
        };
        let lsn = store.history().1;
        if self.watch.s6.wants(epoch, lsn)
            && let Some(keys) = self.flow_keys(node)
        {
            self.watch.s6.looks(epoch, lsn, keys);
        }
    }

    fn send_datagram(&mut self, from: usize, link: usize, datagram: Datagram) {
        if let Datagram::Heartbeat(frame) = &datagram {
            let content = &frame.content;
            let follows = matches!(content.state, State::Standby | State::Synchronizing);
            self.machines[from].said = Some(content.state);
            self.machines[from].acked = follows.then_some((content.epoch, content.acked));
        }
        if let Some(bytes) = self.machines[from].wire.seal(&datagram) {
            self.sent += 1;
            self.send_bytes(from, link, &bytes, self.sent);
        }
    }

    fn send_bytes(&mut self, from: usize, link: usize, bytes: &[u8], sent: u64) {
        let Some(from) = self.slot_reached(from) else {
            return;
        };
        let to = 1 - from;
        if self.sent.is_multiple_of(16) {
            self.overheard.note(to, bytes, sent);
        }
        let Some(path) = self.net.links.get(link) else {
            return;
        };
        let direction = path[from];
        use rand::Rng;
        if direction.cut || self.rng.random_bool(direction.loss) {
            return;
        }
        let copies = if self.rng.random_bool(direction.doubled) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = direction.draw_delay(&mut self.rng);
            let mut bytes = bytes.to_vec();
            let damaged = direction.damaged > 0.0 && self.rng.random_bool(direction.damaged);
            if damaged {
                let bit = self.rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let sent = Some(sent).filter(|_| !damaged);
            let event = Event::Datagram {
                to,
                link,
                bytes,
                sent,
            };
            self.after(delay, event);
        }
    }

    /// Every process of a node ends; its guardian starts it afresh.
    pub(crate) fn restart(&mut self, node: usize) {
        self.machines[node].stop(&mut self.rng);
        self.node_ended(node);
        let delay = self.random(100 * MS, S);
        self.after(delay, Event::NodeBoot { node });
    }

    /// The node's ends of its connections are closed.
    pub(crate) fn node_ended(&mut self, node: usize) {
        if let Some(slot) = self.slot_reached(node) {
            self.end_died(CONTROL, slot);
            self.end_died(BULK, slot);
            for host in 0..self.hosts.len() {
                self.end_died(vem_stream(host, slot), 1);
            }
        }
        self.note_shown(node);
        self.happen_now(node);
        self.operator.session_gone(node);
    }

    /// The System Manager is killed: the guardian says so with the gasp it was given.
    pub(crate) fn kill_system_manager(&mut self, node: usize) {
        if let Some(gasp) = self.machines[node].wire.take_gasp() {
            self.sent += 1;
            for link in 0..LINKS {
                self.send_bytes(node, link, &gasp, self.sent);
            }
        }
        self.restart(node);
    }
}
