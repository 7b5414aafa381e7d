//! What stands beside the cores: host agents and their votes, stores and commits, reports.

use model::{Epoch, Lsn};
use redundancy::Input;
use vem::fence::Ruling;
use wire::supervision::{Activity, SyncReport, Tally, VemReport};

use crate::engine::name;
use crate::rules::Rule;
use crate::site::{A, B, Event, Site, Vem};

impl Site {
    /// What a standby's store lacks arrives: at once what is new, the rest with the interval.
    pub(crate) fn replicate(&mut self, bulk: bool) {
        if !self.replicates() {
            return;
        }
        for node in [A, B] {
            let leads = matches!(
                self.nodes[1 - node].told,
                Activity::Active(_) | Activity::Quiesce(_)
            );
            if self.nodes[node].told != Activity::Standby || !leads {
                continue;
            }
            if !self.nodes[node].bulk_done && !bulk {
                continue;
            }
            let (history, has_newest) = {
                let leader = &self.nodes[1 - node];
                (leader.history, leader.has_newest)
            };
            let side = &mut self.nodes[node];
            side.bulk_done = true;
            side.history = history;
            side.has_newest = has_newest;
            if self.forked {
                // The loser's commits are in its archive; what is here now is what counts.
                self.forked = false;
                for side in &mut self.nodes {
                    side.has_newest = true;
                }
            }
        }
    }

    /// A standby asks its VEMs whether the active lives. Who hears it act says so at once.
    pub(crate) fn ask_votes(&mut self, node: usize, vote: u64, candidate: Option<Epoch>) {
        self.nodes[node].tally = Tally {
            vote,
            candidate,
            ..Tally::default()
        };
        self.nodes[node].asked = self.now;
        for index in 0..self.vems.len() {
            self.vems[index].ballots[node] = None;
            if !self.vems[index].reaches[node] {
                continue;
            }
            if self.hears_active(index, node) {
                self.nodes[node].tally.alive += 1;
            } else {
                self.nodes[node].tally.open += 1;
                self.vems[index].ballots[node] = Some((vote, candidate));
            }
        }
    }

    /// A VEM is answered by another gateway than `asker` that it acts.
    fn hears_active(&self, index: usize, asker: usize) -> bool {
        let (vem, other) = (&self.vems[index], &self.nodes[1 - asker]);
        let acts = other
            .acting()
            .is_some_and(|epoch| epoch >= vem.fence.held().obeyed);
        vem.reaches[1 - asker] && other.is_awake() && acts
    }

    /// An interval after the question, whoever has not answered is silent: the VEM promises.
    pub(crate) fn end_votes(&mut self) {
        for (index, node) in [(0, A), (0, B), (1, A), (1, B)] {
            let Some((_, candidate)) = self.vems[index].ballots[node].take() else {
                continue;
            };
            let alive = self.hears_active(index, node);
            let vem = &mut self.vems[index];
            let tally = &mut self.nodes[node].tally;
            tally.open -= 1;
            if !vem.reaches[node] {
                continue;
            }
            if alive {
                tally.alive += 1;
                continue;
            }
            if candidate.is_none_or(|candidate| vem.fence.promise(candidate)) {
                tally.silent += 1;
            }
            let held = vem.fence.held();
            vem.fence.persisted(held);
            let floor = vem.fence.floor();
            vem.obeyed = vem.obeyed.filter(|(_, epoch)| *epoch >= floor);
        }
    }

    /// A node claims every VEM that it reaches for the epoch it acts under, or releases it.
    pub(crate) fn claim(&mut self, node: usize) {
        if self.nodes[node].paused {
            return;
        }
        let acting = self.nodes[node].acting();
        for index in 0..self.vems.len() {
            let vem = &mut self.vems[index];
            if !vem.reaches[node] {
                continue;
            }
            let Some(epoch) = acting else {
                vem.obeyed = vem.obeyed.filter(|(by, _)| usize::from(*by) != node);
                continue;
            };
            match vem.fence.judge(epoch) {
                Ruling::Obey | Ruling::Await => vem.obeyed = Some((node as u8, epoch)),
                Ruling::Raise => {
                    let held = vem.fence.held();
                    vem.fence.persisted(held);
                    vem.obeyed = Some((node as u8, epoch));
                }
                Ruling::Refuse => {}
                Ruling::RefuseClone => self.nodes[node].clone_seen = true,
            }
            let vem = &mut self.vems[index];
            if let Some((_, obeyed)) = vem.obeyed {
                let back = obeyed < vem.highest_obeyed || obeyed < vem.fence.floor();
                vem.highest_obeyed = vem.highest_obeyed.max(obeyed);
                if back {
                    self.fail(
                        Rule::VemNeverGoesBack,
                        format!("VEM {index} obeys {obeyed} again"),
                    );
                }
            }
        }
    }

    /// One commit by whoever acts.
    pub(crate) fn commit(&mut self, node: usize) {
        let other = &self.nodes[1 - node];
        let follows = other.told == Activity::Standby && other.bulk_done;
        if self.nodes[node].redundant && follows && self.replicates() {
            let epoch = self.nodes[node].acting().unwrap_or_default();
            let lsn = self.nodes[node].history.1.next();
            for side in &mut self.nodes {
                side.history = (epoch, lsn);
            }
            return;
        }
        self.nodes[node].commit_waits = true;
        let input = Input::AskAlone { question: 1 };
        self.queue.push_back(Event::Tell(node, input));
    }

    /// The answer `local`.
    pub(crate) fn commit_alone(&mut self, node: usize) {
        let said = self.nodes[node].said.as_ref();
        let granted = said.is_some_and(|said| said.grant);
        if !self.nodes[node].durable.alone || granted {
            let text = format!("{} has leave without a durable mark", name(node));
            self.fail(Rule::LeaveNeedsDurableMark, text);
        }
        if !core::mem::take(&mut self.nodes[node].commit_waits) {
            return;
        }
        let Some(epoch) = self.nodes[node].acting() else {
            return;
        };
        let lsn = self.nodes[node].history.1.next();
        // What an active commits that no VEM obeys is not what who asks the VEMs finds (design:
        // who boots alone and is the one that they last obeyed may lead).
        let obeyed = |vem: &Vem| vem.obeyed.is_some_and(|(by, _)| usize::from(by) == node);
        self.forked |= !self.nodes[node].has_newest || !self.vems.iter().any(obeyed);
        self.nodes[node].history = (epoch, lsn);
        self.nodes[1 - node].has_newest = false;
    }

    /// What services report, when it is news.
    pub(crate) fn report(&mut self) {
        self.replicate(false);
        let replicates = self.replicates();
        let connected = |node: usize, site: &Self| {
            site.vems.iter().filter(|vem| vem.reaches[node]).count() as u16
        };
        for node in [A, B] {
            if !self.nodes[node].is_awake() {
                continue;
            }
            let mut learnt = self.nodes[node].learnt;
            for vem in self.vems.iter().filter(|vem| vem.reaches[node]) {
                let held = vem.fence.held();
                learnt.obeyed = learnt.obeyed.max(held.obeyed);
                learnt.promised = learnt.promised.max(held.promised);
            }
            let (side, other) = (&self.nodes[node], &self.nodes[1 - node]);
            let vems = VemReport {
                registered: self.vems.len() as u16,
                connected: connected(node, self),
                highest_epoch: learnt.obeyed,
                promised_epoch: learnt.promised,
                obeying: self
                    .vems
                    .iter()
                    .filter(|vem| vem.reaches[node])
                    .filter(|vem| vem.obeyed.map(|(_, epoch)| epoch) == side.acting())
                    .count() as u16,
                clone_seen: side.clone_seen,
                tally: side.tally,
                asked: side.idle_since,
            };
            let leads = matches!(side.told, Activity::Active(_) | Activity::Quiesce(_));
            let sync = SyncReport {
                lsn: side.history.1,
                epoch: side.history.0,
                acked: match (leads, other.bulk_done) {
                    (false, _) => side.history.1,
                    (true, true) => other.history.1,
                    (true, false) => Lsn(0),
                },
                bulk_done: if leads {
                    other.bulk_done && replicates
                } else {
                    side.bulk_done
                },
                config_hash: side.history.1.0,
            };
            let health = side.health;
            let side = &mut self.nodes[node];
            side.learnt = learnt;
            if side.last_health != Some(health) {
                side.last_health = Some(health);
                self.queue
                    .push_back(Event::Tell(node, Input::Services(health)));
            }
            if side.last_vems != Some(vems) {
                side.last_vems = Some(vems);
                self.queue.push_back(Event::Tell(node, Input::Vems(vems)));
            }
            if side.last_sync != Some(sync) {
                side.last_sync = Some(sync);
                self.queue.push_back(Event::Tell(node, Input::Sync(sync)));
            }
        }
    }
}
