//! Events of the hosts, and what their agents ask for.

use vem::{EntryState, Flow, GatewayId, Input, KernelReport, KernelReportKind, Output};
use wire::vem::{Fenced, FromVem};

use super::{Event, MS, S, World};
use crate::invariants::s13_established_flows_need_no_gateway::{self, Act};
use crate::invariants::{s2_epochs_never_decrease, s3_vem_obeys_the_highest};
use crate::network::{Payload, vem_stream};

impl World {
    pub(super) fn host_boot(&mut self, host: usize) {
        if self.hosts[host].agent.is_some() {
            return;
        }
        self.trace
            .line(self.now, format_args!("host {host} starts its agent"));
        self.hosts[host].start(self.now, host);
        // Packets that the pool held through the restart are asked for again.
        let held: Vec<_> = self.hosts[host]
            .pool
            .iter()
            .map(|(slot, flow)| (*slot, *flow))
            .collect();
        for (slot, flow) in held {
            let entry = self.hosts[host].entry_state(flow);
            self.feed_host(
                host,
                Input::Held {
                    slot,
                    flow,
                    entry,
                    bytes: 100,
                },
            );
        }
        self.feed_host(host, Input::Tick);
    }

    pub(super) fn host_tick(&mut self, host: usize, boot: u64) {
        let known = &mut self.hosts[host];
        if known.boot == boot && known.tick_at.is_some_and(|at| at <= self.now) {
            known.tick_at = None;
            self.feed_host(host, Input::Tick);
        }
    }

    pub(super) fn host_persisted(&mut self, host: usize, boot: u64, fenced: Fenced) {
        // The file is written by a thread: it happens even if the agent has died meanwhile.
        self.hosts[host].durable = self.hosts[host].durable.max(fenced);
        if self.hosts[host].boot == boot {
            self.feed_host(host, Input::Persisted(fenced));
        }
    }

    pub(super) fn new_flow(&mut self, host: usize, again: bool) {
        let pause = self.random(50 * MS, 2 * S);
        if again {
            self.after(pause, Event::NewFlow { host, again });
        }
        let (slot, flow) = self.hosts[host].new_flow(self.now);
        self.feed_host(
            host,
            Input::Held {
                slot,
                flow,
                entry: EntryState::Pending,
                bytes: 100,
            },
        );
        // Now and then a settled flow ends.
        let settled = self.hosts[host].kernel.values();
        let ended = settled
            .filter(|entry| entry.state == EntryState::Permitted)
            .map(|e| e.flow);
        if let Some(flow) = ended
            .min_by_key(|flow| flow.born_ns)
            .filter(|_| pause.is_multiple_of(2))
        {
            self.hosts[host].forget(flow);
            let kind = KernelReportKind::Closed;
            let report = KernelReport {
                flow,
                kind,
                packets: 10,
                bytes: 1000,
            };
            self.feed_host(host, Input::Reported(report));
        }
    }

    /// The agent is killed; the kernel and the pool go on.
    pub(crate) fn kill_agent(&mut self, host: usize) {
        self.hosts[host].agent = None;
        for node in 0..2 {
            self.end_died(vem_stream(host, node), 0);
        }
        let delay = self.random(20 * MS, 300 * MS);
        self.after(delay, Event::HostBoot { host });
    }

    /// Tells an agent what happened and does what it asks for.
    pub(super) fn feed_host(&mut self, host: usize, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let clock = self.hosts[host].clock(self.now);
            let Some(agent) = &mut self.hosts[host].agent else {
                return;
            };
            agent.handle(clock, input);
            agent.check();
            let mut outputs = Vec::new();
            while let Some(output) = agent.poll_output() {
                outputs.push(output);
            }
            self.trace
                .mix(&[self.now, 2 + host as u64, outputs.len() as u64]);
            for output in outputs {
                inputs.extend(self.agent_wants(host, output));
            }
        }
        self.schedule_host_tick(host);
    }

    pub(crate) fn schedule_host_tick(&mut self, host: usize) {
        let known = &mut self.hosts[host];
        let deadline = known.agent.as_ref().and_then(|agent| agent.next_deadline());
        let Some(deadline) = deadline else { return };
        let at = known.world_time(deadline).max(self.now);
        if known.tick_at.is_none_or(|scheduled| at < scheduled) {
            known.tick_at = Some(at);
            let boot = known.boot;
            self.schedule(at, Event::HostTick { host, boot });
        }
    }

    fn agent_wants(&mut self, host: usize, output: Output) -> Option<Input> {
        match output {
            Output::Send { gateway, message } => {
                if let FromVem::ClaimAccepted { epoch } = &message {
                    let epoch = *epoch;
                    let result = s2_epochs_never_decrease::host_obeys(&self.hosts[host], epoch);
                    self.hosts[host].told = self.hosts[host].told.max(epoch);
                    self.insist(result);
                }
                let stream = vem_stream(host, usize::from(gateway.0));
                self.send(stream, 0, Payload::FromVem(message));
                None
            }
            // Nobody has identities here.
            Output::Trust { .. } => None,
            Output::Persist(fenced) => {
                let boot = self.hosts[host].boot;
                let delay = self.random(MS / 2, 5 * MS);
                self.after(delay, Event::HostPersisted { host, boot, fenced });
                None
            }
            Output::Drain {
                flow,
                generation,
                epoch_counter,
                ..
            } => {
                let act = Act::Decides(model::Verdict::Permit, epoch_counter);
                self.acts_on(host, flow, act);
                self.applied(host, epoch_counter);
                self.hosts[host].set(flow, EntryState::Draining, Some(generation));
                None
            }
            Output::Deny {
                flow,
                generation,
                epoch_counter,
                ..
            } => {
                let act = Act::Decides(model::Verdict::Drop, epoch_counter);
                self.acts_on(host, flow, act);
                self.applied(host, epoch_counter);
                self.hosts[host].set(flow, EntryState::Denied, Some(generation));
                None
            }
            Output::Revalidate {
                flow,
                verdict,
                generation,
                epoch_counter,
            } => {
                self.acts_on(host, flow, Act::Decides(verdict, epoch_counter));
                self.applied(host, epoch_counter);
                let permit = verdict == model::Verdict::Permit;
                let state = if permit {
                    EntryState::Permitted
                } else {
                    EntryState::Denied
                };
                self.hosts[host].set(flow, state, Some(generation));
                None
            }
            Output::Forget(flow) => {
                self.acts_on(host, flow, Act::Forgets);
                self.hosts[host].forget(flow);
                None
            }
            Output::Settle { flow, .. } => {
                let outcome = self.hosts[host].settle(flow);
                Some(Input::Settled {
                    flow,
                    outcome,
                    tap_empty: true,
                })
            }
            Output::Write(slot) | Output::Discard(slot) => {
                self.hosts[host].pool.remove(&slot);
                None
            }
            Output::Walk {
                older_than,
                after,
                limit,
            } => {
                let (stale, next) = self.hosts[host].walk(older_than, after, limit);
                Some(Input::Walked { stale, next })
            }
            // `reload module` is no command of the simulated operator.
            Output::Restart => None,
            Output::Log(event) => {
                self.trace
                    .line(self.now, format_args!("host {host}: {event}"));
                None
            }
        }
    }

    fn acts_on(&mut self, host: usize, flow: Flow, act: Act) {
        let connected = (0..2).any(|node| self.net.streams[vem_stream(host, node)].believed[0]);
        let known = &self.hosts[host];
        let (entry, mode) = (known.entry_state(flow), known.fail_mode);
        let result = s13_established_flows_need_no_gateway::acts(connected, entry, mode, act);
        self.insist(result);
    }

    fn applied(&mut self, host: usize, epoch_counter: u64) {
        let result = match &self.hosts[host].agent {
            Some(agent) => s3_vem_obeys_the_highest::verdict_applied(agent, epoch_counter),
            None => Ok(()),
        };
        self.insist(result);
        if epoch_counter != 0 {
            self.outcome.decided += 1;
            self.hosts[host].decided += 1;
        }
        self.trace.mix(&[epoch_counter]);
    }

    /// A message of a gateway reaches an agent.
    pub(super) fn tell_agent(&mut self, host: usize, node: usize, message: wire::vem::ToVem) {
        let gateway = GatewayId(node as u8);
        self.feed_host(host, Input::Received { gateway, message });
    }

    /// The agent's connection to a gateway stands or is gone.
    pub(super) fn agent_connection(&mut self, host: usize, node: usize, stands: bool) {
        let gateway = GatewayId(node as u8);
        let input = if stands {
            Input::Connected(gateway)
        } else {
            Input::Disconnected(gateway)
        };
        self.feed_host(host, input);
    }
}
