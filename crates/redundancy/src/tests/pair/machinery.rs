//! What moves the site: turns, links, connections, disks, VEMs, stores, and the checks.

use model::{LinkId, Lsn};
use wire::heartbeat::Datagram;
use wire::supervision::{Activity, SyncReport, Tally, VemReport};
use wire::vem::Fenced;

use core::time::Duration;

use super::{
    A, B, BULK, Ballot, CONNECT, DISCONNECT, LINK_DELAY, Pair, REBOOT, SETTLED, STEP, VEM_DELAY,
    Vem,
};
use crate::{Core, Input, Output, ServicesHealth, Timing};

impl Pair {
    pub(super) fn awake(&self, node: usize) -> bool {
        self.sides[node].core.is_some() && self.now >= self.sides[node].paused_until
    }

    pub(super) fn step(&mut self) {
        self.now = self.now + STEP;
        for node in [A, B] {
            if self.sides[node].boots_at.is_some_and(|at| self.now >= at) {
                self.boot(node);
            }
        }
        self.connect();
        for node in [A, B] {
            if self.awake(node) {
                self.turn(node);
            }
        }
        self.claim();
        self.vote();
        self.replicate();
        self.check();
    }

    fn turn(&mut self, node: usize) {
        let now = self.now;
        if self.sides[node].services_at.is_some_and(|at| now >= at) {
            self.sides[node].services_at = None;
            self.sides[node].health = ServicesHealth::Ready;
            self.tell(node, Input::Services(ServicesHealth::Ready));
        }
        if let Some(sequence) = self.sides[node].applied_due.take() {
            self.tell(node, Input::PostureApplied { sequence });
        }
        while self.sides[node]
            .writes
            .front()
            .is_some_and(|(at, ..)| now >= *at)
        {
            let (_, write, record) = self.sides[node].writes.pop_front().expect("just seen");
            self.sides[node].durable = record;
            self.tell(node, Input::Persisted { write });
        }
        if let Some((_, number)) = self.sides[node].archive_due.take_if(|(at, _)| now >= *at) {
            self.archive(node);
            self.tell(node, Input::Archived { number });
        }
        while let Some((at, connection, _)) = self.sides[node].control.front() {
            let ours = self.sides[node].connected;
            if now < *at || ours.is_none_or(|ours| *connection > ours) {
                break;
            }
            let stale = ours != Some(*connection);
            let (_, _, message) = self.sides[node].control.pop_front().expect("just seen");
            if !stale {
                self.tell(node, Input::Control(message));
            }
        }
        while self.sides[node]
            .inbox
            .front()
            .is_some_and(|(at, ..)| now >= *at)
        {
            let (_, link, datagram) = self.sides[node].inbox.pop_front().expect("just seen");
            self.receive(node, link, datagram);
        }
        self.report(node);
        let due = self.sides[node].core.as_ref().and_then(Core::next_deadline);
        if due.is_some_and(|due| now >= due) {
            self.tell(node, Input::Tick);
        }
        if self.sides[node].core.is_none() {
            return;
        }
        self.sides[node].path.main_loop_turned(now);
        while let Some((link, datagram)) = self.sides[node].path.poll_send(now) {
            self.send(node, link, datagram);
        }
    }

    fn receive(&mut self, node: usize, link: LinkId, datagram: Datagram) {
        let now = self.now;
        match datagram {
            Datagram::Heartbeat(frame) => {
                if let Some(told) = self.sides[node].path.received(now, link, &frame) {
                    self.tell(
                        node,
                        Input::Heartbeat {
                            link,
                            content: frame.content,
                            peer_hold_time: told.peer_hold_time,
                            echo: told.echo,
                        },
                    );
                }
            }
            Datagram::Gasp(gasp) => {
                self.send(node, link, Datagram::GaspHeard(gasp.clone()));
                self.tell(node, Input::Gasp(gasp));
            }
            Datagram::GaspHeard(gasp) => {
                if self.sides[node].path.gasp_heard(&gasp) {
                    self.tell(node, Input::GaspHeard(gasp));
                }
            }
        }
    }

    fn send(&mut self, from: usize, link: LinkId, datagram: Datagram) {
        let up = self.links[usize::from(link.0)][from] && !self.deaf;
        if up && self.sides[1 - from].core.is_some() && self.random(1000) >= self.loss {
            let at = self.now + LINK_DELAY;
            self.sides[1 - from].inbox.push_back((at, link, datagram));
        }
    }

    fn report(&mut self, node: usize) {
        let answers = |vem: &Vem| vem.reaches[node] || !self.connections_outlive;
        if self.sides[node].told == Activity::Idle && self.vems.iter().all(answers) {
            self.sides[node].asked = self.sides[node].told_sequence;
        }
        let registered = self.vems.len() as u16;
        let reached = self.vems.iter().filter(|vem| vem.reaches[node]);
        let fenced = reached.clone().map(|vem| vem.fenced);
        let fenced = fenced.reduce(Fenced::max).unwrap_or_default();
        let report = VemReport {
            registered,
            connected: if self.connections_outlive {
                registered
            } else {
                reached.clone().count() as u16
            },
            highest_epoch: fenced.obeyed,
            promised_epoch: fenced.promised,
            obeying: self.obeying(node),
            clone_seen: self.refused_as_clone(node),
            tally: self.sides[node].tally,
            asked: self.sides[node].asked,
        };
        if self.sides[node].last_vems != Some(report) && self.sides[node].services_at.is_none() {
            self.sides[node].last_vems = Some(report);
            self.tell(node, Input::Vems(report));
        }
        let side = &self.sides[node];
        let acting = side.acting().is_some();
        let other = &self.sides[1 - node];
        let acked = if !acting {
            side.history.1
        } else if other.bulk_done {
            other.history.1
        } else {
            Lsn(0)
        };
        let sync = SyncReport {
            lsn: side.history.1,
            epoch: side.history.0,
            acked,
            bulk_done: if acting {
                other.bulk_done && self.carries()
            } else {
                side.bulk_done
            },
            config_hash: side.history.1.0 ^ u64::from(side.corrupt) << 63,
        };
        if side.last_sync != Some(sync) && side.services_at.is_none() {
            self.sides[node].last_sync = Some(sync);
            self.tell(node, Input::Sync(sync));
        }
    }

    /// A VEM refuses its claim: it obeyed the same epoch of another start.
    fn refused_as_clone(&self, node: usize) -> bool {
        let acting = self.sides[node].acting();
        let refuses = |vem: &Vem| {
            vem.reaches[node] && acting.is_some_and(|epoch| epoch.is_clone_of(vem.fenced.obeyed))
        };
        self.vems.iter().any(refuses)
    }

    /// VEMs that it reaches and whose highest epoch is its own.
    fn obeying(&self, node: usize) -> u16 {
        let epoch = self.sides[node].acting();
        let obeying = self
            .vems
            .iter()
            .filter(|vem| vem.reaches[node] && epoch.is_some_and(|epoch| vem.obeys(epoch)));
        obeying.count() as u16
    }

    /// The control connection and bulk path stand when some link works both ways.
    fn carries(&self) -> bool {
        self.links.iter().any(|link| link[A] && link[B])
            && self.sides.iter().all(|side| side.core.is_some())
    }

    fn connect(&mut self) {
        if self.carries() {
            self.links_down_since = None;
            if self.connected_since.is_none() {
                self.connected_since = Some(self.now);
                self.connection += 1;
            }
            let since = self.connected_since.unwrap_or(self.now);
            if self.now.since(since) >= CONNECT {
                for node in [A, B] {
                    let current = Some(self.connection);
                    if self.sides[node].connected != current && self.awake(node) {
                        if self.sides[node].connected.is_some() {
                            self.tell(node, Input::PeerDisconnected);
                        }
                        self.sides[node].connected = current;
                        self.tell(node, Input::PeerConnected);
                    }
                }
            }
            return;
        }
        let since = *self.links_down_since.get_or_insert(self.now);
        // A reset closes its connections; a machine that dies does not.
        let closed = self.sides.iter().any(|side| side.boots_at.is_some());
        if !closed && self.now.since(since) < DISCONNECT {
            return;
        }
        self.connected_since = None;
        for node in [A, B] {
            if self.sides[node].connected.is_some() && self.awake(node) {
                self.sides[node].connected = None;
                self.tell(node, Input::PeerDisconnected);
            }
        }
    }

    pub(in crate::tests) fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(core) = &mut self.sides[node].core else {
            return;
        };
        core.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = core.poll_output() {
            outputs.push(output);
        }
        if let Err(violation) = core.check() {
            panic!("{violation} on node {node} at {now}");
        }
        for output in outputs {
            if self.crashes(node) {
                return;
            }
            self.carry_out(node, output);
        }
    }

    /// The machine dies between two effects, and comes back.
    fn crashes(&mut self, node: usize) -> bool {
        let Some((victim, left)) = &mut self.crash else {
            return false;
        };
        if *victim != node {
            return false;
        }
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.crash = None;
        self.kill(node);
        self.sides[node].boots_at = Some(self.now + REBOOT);
        true
    }

    /// What its store archives.
    fn archive(&mut self, node: usize) {
        let side = &mut self.sides[node];
        if side.archives.last() != Some(&side.history) {
            side.archives.push(side.history);
        }
        side.archived.append(&mut side.log.clone());
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let now = self.now;
        let carries = self.carries();
        let side = &mut self.sides[node];
        match output {
            Output::Persist { write, record } => {
                side.writes
                    .push_back((now + side.write_time, write, record));
            }
            Output::HeartbeatContent(content) => side.path.set_content(now, content),
            Output::HeartbeatTiming {
                interval_ms,
                misses,
            } => {
                side.path.set_timing(now, interval_ms, misses);
            }
            Output::Control(message) => {
                if let Some(connection) = side.connected.filter(|_| carries) {
                    let at = now + LINK_DELAY;
                    self.sides[1 - node]
                        .control
                        .push_back((at, connection, message));
                }
            }
            Output::Gasp(gasp) => {
                assert!(side.acting().is_none(), "V2: gasps while its services act");
                side.path.start_gasp(now, gasp);
            }
            Output::SealGasp(_) => {}
            Output::Posture {
                sequence,
                activity,
                redundant,
                ..
            } => {
                side.told = activity;
                side.told_sequence = sequence;
                side.redundant = redundant;
                if activity != Activity::Standby {
                    side.bulk_due = None;
                }
                side.applied_due = Some(sequence);
            }
            Output::AskVotes {
                vote,
                candidate,
                within_ms,
            } => {
                let from = now + VEM_DELAY;
                let connected = |vem: &&mut Vem| vem.reaches[node] || self.connections_outlive;
                let asked: Vec<&mut Vem> = self.vems.iter_mut().filter(connected).collect();
                side.tally = Tally {
                    vote,
                    candidate,
                    open: asked.len() as u16,
                    ..Tally::default()
                };
                for vem in asked.into_iter().filter(|vem| vem.reaches[node]) {
                    vem.ballot = Some(Ballot {
                        asked_by: node,
                        vote,
                        candidate,
                        from,
                        until: from + Duration::from_millis(within_ms.into()),
                    });
                }
            }
            Output::Archive { number, .. } => {
                assert!(
                    side.acting().is_none(),
                    "V2: archives while its services act"
                );
                side.archive_due = side.archive_time.map(|time| (now + time, number));
            }
            Output::Resync { whole } => {
                side.resyncs.push(whole);
                side.stalls = false;
                if whole {
                    side.bulk_done = false;
                    side.bulk_due = None;
                }
            }
            Output::AloneGranted { question } => {
                assert!(side.durable.alone, "A2: leave without a durable mark");
                side.alone_granted.push(question);
            }
            Output::Log(record) => {
                if std::env::var_os("TRACE").is_some() {
                    eprintln!("{now} {node} {} {}", record.mnemonic, record.text);
                }
                side.logs.push(record);
            }
            Output::CommandDone { command, result } => side.done.push((command, result)),
            Output::Reset { reason } => {
                assert!(side.acting().is_none(), "V2: resets while its services act");
                side.resets.push(reason);
                self.kill(node);
                self.sides[node].boots_at = Some(now + REBOOT);
            }
            Output::Activated { epoch } => {
                self.acts.push((now, node, epoch));
                let other = self.acted.insert(epoch, node);
                assert!(other.is_none(), "S1: epoch {epoch} used twice");
                let durable = &self.sides[node].durable;
                assert!(
                    durable.reserved_epoch >= epoch || durable.highest_epoch >= epoch,
                    "S2: epoch {epoch} used before it was durable"
                );
            }
        }
    }

    /// VEMs obey the highest claim they hear, and tell everyone.
    fn claim(&mut self) {
        let claims = [self.sides[A].acting(), self.sides[B].acting()];
        for vem in &mut self.vems {
            for (node, claim) in claims.into_iter().enumerate() {
                let claim = claim.filter(|epoch| {
                    *epoch >= vem.fenced.floor() && !epoch.is_clone_of(vem.fenced.obeyed)
                });
                if vem.reaches[node] && self.now >= self.sides[node].paused_until {
                    vem.fenced.obeyed = vem.fenced.obeyed.max(claim.unwrap_or_default());
                }
            }
        }
    }

    /// VEMs that are asked whether the active lives ask it, and answer.
    fn vote(&mut self) {
        let now = self.now;
        for at in 0..self.vems.len() {
            let Some(ballot) = self.vems[at].ballot else {
                continue;
            };
            let Ballot {
                asked_by,
                vote,
                candidate,
                ..
            } = ballot;
            let active = 1 - asked_by;
            let acts = self.awake(active) && self.sides[active].acting().is_some();
            let vem = &mut self.vems[at];
            let alive = acts && vem.reaches[active] && now >= ballot.from + VEM_DELAY;
            let known = candidate.is_some()
                && now >= ballot.from
                && vem.quiet
                    == vem
                        .quiet
                        .filter(|(by, until)| *by == asked_by && now <= *until)
                && vem.quiet.is_some();
            if !alive && now < ballot.until && !known {
                continue;
            }
            let silent_to = (candidate.is_none() && !alive).then_some(asked_by);
            vem.quiet = silent_to.map(|by| (by, now + Duration::from_millis(100)));
            vem.ballot = None;
            let may = candidate.is_none_or(|candidate| candidate >= vem.fenced.floor());
            if let Some(candidate) = candidate.filter(|_| may && !alive) {
                vem.fenced.promised = candidate;
            }
            let alone = alive && !self.sides[active].redundant;
            let tally = &mut self.sides[asked_by].tally;
            if vem.reaches[asked_by] && tally.vote == vote {
                tally.open -= 1;
                tally.alive += u16::from(alive);
                tally.silent += u16::from(!alive && may);
                tally.alone |= alone;
            }
        }
    }

    fn replicate(&mut self) {
        let carries = self.carries();
        for node in [A, B] {
            let follows = self.sides[node].told == Activity::Standby;
            if !follows {
                self.sides[node].bulk_done = false;
                continue;
            }
            let leader = &self.sides[1 - node];
            let leads = matches!(leader.told, Activity::Active(_) | Activity::Quiesce(_));
            if !(carries && leads && self.awake(node) && self.awake(1 - node)) {
                continue;
            }
            let history = leader.history;
            let copied = leader.history == self.sides[node].history && self.sides[node].bulk_done;
            if self.sides[node].stalls || copied {
                continue;
            }
            let log = leader.log.clone();
            let now = self.now;
            let side = &mut self.sides[node];
            if side.bulk_done {
                (side.history, side.log) = (history, log);
            } else if *side.bulk_due.get_or_insert(now + BULK) <= now {
                side.bulk_done = true;
                side.corrupt = false;
                // The store's own guard, beside what the core asks for.
                if !side.log.is_subset(&log) {
                    self.archive(node);
                }
                let side = &mut self.sides[node];
                (side.history, side.log) = (history, log);
            }
        }
    }

    fn check(&mut self) {
        let healthy = self.links == [[true; 2]; 2]
            && self.loss == 0
            && [A, B].into_iter().all(|node| self.awake(node));
        if !healthy {
            self.healthy_since = self.now;
        }
        let hold = Timing::clamped(
            self.sides[A]
                .durable
                .interval_ms
                .max(self.sides[B].durable.interval_ms),
            self.sides[A]
                .durable
                .misses
                .max(self.sides[B].durable.misses),
        );
        let settled = self.now.since(self.healthy_since) > SETTLED + hold.hold_time() * 3;
        if settled {
            assert!(
                self.actives().len() <= 1,
                "S4: two actives: {}",
                self.describe()
            );
        }
    }
}
