//! Carrying out what the core asks for, and reading what it is to know.

use std::os::fd::AsFd;

use anyhow::Result;
use model::{Time, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vem::{
    EntryState, Flow, FlowId, Input, KernelReport, KernelReportKind, Output, PortIndex,
    SettleOutcome, SlotId,
};
use wire::vem::Fenced;

use super::{PinJob, Worker};
use crate::datapath::With;
use crate::datapath::abi::{self, Operation, Outcome};
use crate::packet;
use crate::tap::VNET_HEADER_BYTES;

/// Packets read from one tap before the others have their turn.
const PACKETS_PER_TURN: usize = 64;
/// Reports read before packets have their turn.
const REPORTS_PER_TURN: usize = 256;

impl Worker {
    /// Until the core has nothing more to ask for.
    pub(super) fn do_effects(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.do_effect(output);
        }
        self.set_timer();
    }

    fn do_effect(&mut self, output: Output) {
        match output {
            Output::Send { gateway, message } => {
                if let Some(Some(sender)) = self.senders.get(usize::from(gateway.0))
                    && sender.send(&message).is_err()
                {
                    // Too slow to take it, or gone: its task says so when it has ended.
                    sender.abort();
                }
            }
            Output::Persist(fenced) => {
                if self.epochs.send(fenced).is_err() {
                    self.handle(Input::PersistFailed(fenced));
                }
            }
            Output::Drain {
                flow,
                generation,
                epoch_counter,
                discarded,
            } => {
                let with = With {
                    generation,
                    epoch_counter,
                    discarded,
                    ..With::default()
                };
                self.command(&flow, Operation::Drain, with);
            }
            Output::Deny {
                flow,
                verdict,
                generation,
                epoch_counter,
            } => {
                self.install(&flow, Operation::Deny, verdict, generation, epoch_counter);
            }
            Output::Revalidate {
                flow,
                verdict,
                generation,
                epoch_counter,
            } => {
                self.install(
                    &flow,
                    Operation::Revalidate,
                    verdict,
                    generation,
                    epoch_counter,
                );
            }
            Output::Forget(flow) => {
                self.command(&flow, Operation::Forget, With::default());
            }
            Output::Settle { flow, force } => self.settle(flow, force),
            Output::Write(slot) => self.write(slot),
            Output::Discard(slot) => {
                self.held_since.forget(slot);
                self.pool.release(slot);
            }
            Output::Walk {
                older_than,
                after,
                limit,
            } => {
                let (stale, next) = self.datapath.walk(older_than, after, limit);
                self.handle(Input::Walked { stale, next });
            }
            Output::Log(event) => self.journal.line(&event.to_string()),
            Output::Trust { gateway, keys } => {
                if let Some(Some(answer)) = self.senders.get(usize::from(gateway.0)) {
                    let answer = answer.clone();
                    // The thread ends with this process only.
                    let _ = self.pin_writer.send(PinJob { keys, answer });
                }
            }
            Output::Restart => self.restarts = true,
        }
    }

    fn install(
        &mut self,
        flow: &Flow,
        operation: Operation,
        verdict: Verdict,
        generation: model::Generation,
        epoch_counter: u64,
    ) {
        let verdict = abi::verdict_number(verdict);
        self.command(
            flow,
            operation,
            With {
                verdict,
                generation,
                epoch_counter,
                ..With::default()
            },
        );
    }

    fn command(&mut self, flow: &Flow, operation: Operation, with: With) -> Option<Outcome> {
        match self.datapath.command(flow, operation, with) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                self.journal
                    .line(&format!("{operation:?} of {flow:?}: {error:#}"));
                None
            }
        }
    }

    fn settle(&mut self, flow: Flow, force: bool) {
        let with = With {
            force,
            ..With::default()
        };
        let outcome = match self.command(&flow, Operation::Settle, with) {
            Some(Outcome::Done) => SettleOutcome::Settled,
            Some(Outcome::NotDrained) => SettleOutcome::NotDrained,
            Some(Outcome::Absent | Outcome::WrongState | Outcome::NoMemory) | None => {
                SettleOutcome::Gone
            }
        };
        let tap_empty = outcome == SettleOutcome::NotDrained && self.is_tap_empty(flow.id.port);
        self.handle(Input::Settled {
            flow,
            outcome,
            tap_empty,
        });
    }

    fn is_tap_empty(&self, port: PortIndex) -> bool {
        let Some(tap) = self.taps.get(usize::from(port.0)) else {
            return true;
        };
        let mut fds = [PollFd::new(tap, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&at_once)), Ok(0))
    }

    /// Back into the tap, then free: a kill in between makes a duplicate, never a loss.
    fn write(&mut self, slot: SlotId) {
        let tap = self.taps.get(usize::from(self.pool.port(slot).0));
        let packet = self.pool.packet(slot);
        let written = tap.map(|tap| rustix::io::write(tap.as_fd(), packet));
        if !matches!(written, Some(Ok(length)) if length == packet.len()) {
            self.unwritable += 1;
        }
        self.held_since.written(slot);
        self.pool.release(slot);
    }

    /// Packets that were redirected to the tap of `port`.
    pub(super) fn read_tap(&mut self, port: PortIndex) {
        let now = runtime::clock::now();
        for _ in 0..PACKETS_PER_TURN {
            let Some(tap) = self.taps.get(usize::from(port.0)) else {
                return;
            };
            match self.pool.fill(port, |slot| rustix::io::read(tap, slot)) {
                Some(Ok(slot)) => {
                    self.held_since.held(slot);
                    self.take_up(now, slot, port);
                }
                Some(Err(Errno::INTR)) => {}
                // EAGAIN; anything else comes again and is then no better.
                Some(Err(_)) => return,
                // The core's limits lie below the pool's: slots come free with its next effects.
                None => return,
            }
        }
    }

    /// A packet in a slot, just read or found there.
    pub(super) fn take_up(&mut self, now: Time, slot: SlotId, port: PortIndex) {
        let packet = self.pool.packet(slot);
        let bytes = packet.len() as u32;
        let frame = packet.get(VNET_HEADER_BYTES..).unwrap_or_default();
        let named = self
            .mac(port)
            .and_then(|mac| packet::flow_of(frame, port, mac));
        let Some((id, direction)) = named else {
            self.pool.release(slot);
            return;
        };
        let (flow, entry) = self.datapath.look_up(id, direction);
        self.core.handle(
            now,
            Input::Held {
                slot,
                flow,
                entry,
                bytes,
            },
        );
        debug_assert!(entry != EntryState::Absent || flow.born_ns == 0);
    }

    /// What the datapath says of flows that ended.
    pub(super) fn read_reports(&mut self) {
        let now = runtime::clock::now();
        for _ in 0..REPORTS_PER_TURN {
            let Some(report) = self
                .datapath
                .reports()
                .next()
                .map(|bytes| abi::Report::from_bytes(&bytes))
            else {
                return;
            };
            let Some(report) = report.and_then(|report| self.kernel_report(&report)) else {
                continue;
            };
            self.core.handle(now, Input::Reported(report));
        }
    }

    fn kernel_report(&self, report: &abi::Report) -> Option<KernelReport> {
        let id: FlowId = report.key.id(self.datapath.port_of(report.key.port)?);
        let kind = match report.kind {
            1 => KernelReportKind::Closed,
            2 => KernelReportKind::Idle,
            3 => KernelReportKind::Undecided,
            _ => return None,
        };
        let opened = abi::direction_of(report.first_direction);
        Some(KernelReport {
            flow: Flow {
                id,
                born_ns: report.created_ns,
                opened,
            },
            kind,
            packets: report.packets.iter().sum(),
            bytes: report.bytes.iter().sum(),
        })
    }

    /// The epoch thread has finished a write.
    pub(super) fn persisted(&mut self, outcome: Result<Fenced, Fenced>) -> Result<()> {
        match outcome {
            Ok(fenced) => {
                self.datapath.set_highest_epoch(fenced.floor())?;
                self.handle(Input::Persisted(fenced));
            }
            Err(fenced) => self.handle(Input::PersistFailed(fenced)),
        }
        Ok(())
    }
}
