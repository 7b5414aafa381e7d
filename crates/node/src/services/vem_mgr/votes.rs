//! Votes: a standby asks the host agents whether the active lives; an active answers them that it
//! does.
//!
//! A host agent that is not registered, not connected, or gone before it has answered is absent.
//! One that connects later is asked in the next vote.

use model::{Epoch, Time};
use wire::supervision::Tally;
use wire::vem::{Ballot, ToVem};

use super::{VemConnection, VemMgr};

impl VemMgr {
    /// Connections of registered host agents.
    pub(super) fn voters(&self) -> impl Iterator<Item = VemConnection> {
        self.connections
            .iter()
            .filter(|(_, c)| c.greeting.is_some() && self.inventory.module(c.key).is_some())
            .map(|(id, _)| id)
    }

    /// Begins a vote; an older one is over.
    pub(super) fn ask_votes(
        &mut self,
        now: Time,
        vote: u64,
        candidate: Option<Epoch>,
        within_ms: u32,
    ) {
        for (_, connection) in self.connections.iter_mut() {
            connection.votes = None;
        }
        let voters: Vec<VemConnection> = self.voters().collect();
        self.tally = Tally {
            vote,
            candidate,
            ..Tally::default()
        };
        for id in voters {
            if let Some(connection) = self.connections.entry(id) {
                connection.votes = Some(vote);
            }
            let message = ToVem::Vote {
                vote,
                candidate,
                within_ms,
            };
            self.send(now, id, message);
        }
        self.report();
    }

    /// Counts an answer to the newest vote; any other counts nothing, nor does a second one.
    pub(super) fn count(
        &mut self,
        id: VemConnection,
        (vote, candidate): (u64, Option<Epoch>),
        ballot: Ballot,
    ) {
        if (self.tally.vote, self.tally.candidate) != (vote, candidate) {
            return;
        }
        let Some(connection) = self.connections.entry(id) else {
            return;
        };
        if connection.votes.take_if(|asked| *asked == vote).is_none() {
            return;
        }
        match ballot {
            Ballot::Alive { alone } => {
                self.tally.alive += 1;
                self.tally.alone |= alone;
            }
            Ballot::Silent => self.tally.silent += 1,
            Ballot::Higher => {}
        }
        self.report();
    }

    /// How the newest vote stands.
    pub(super) fn tally(&self) -> Tally {
        let asked = Some(self.tally.vote);
        let open = self.connections.iter().filter(|(_, c)| c.votes == asked);
        Tally {
            open: u16::try_from(open.count()).unwrap_or(u16::MAX),
            ..self.tally
        }
    }

    /// A host agent asks whether this node acts. The answer comes from the loop that does the
    /// work; one that does not act, or whose loop stands, answers nothing.
    pub(super) fn inquired(&mut self, now: Time, id: VemConnection, question: u64) {
        if let Some(connection) = self.connections.entry(id) {
            connection.inquiry = Some(question);
        }
        self.answer_inquiries(now);
    }

    /// Answers whoever has asked: also in the moment in which an active that had stopped to ask,
    /// acts again.
    pub(super) fn answer_inquiries(&mut self, now: Time) {
        let Some(epoch) = self.acting() else {
            return;
        };
        let alone = self.posture.as_ref().is_none_or(|p| !p.redundant);
        let asked = self.connections.iter_mut();
        let asked: Vec<(VemConnection, u64)> = asked
            .filter_map(|(id, connection)| Some((id, connection.inquiry.take()?)))
            .collect();
        for (id, question) in asked {
            let acting = ToVem::Acting {
                question,
                epoch,
                alone,
            };
            self.send(now, id, acting);
        }
    }
}
