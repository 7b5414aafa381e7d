//! Where the persistent commits of this content were made: enough to say whether one history
//! contains another long after the commits themselves have gone from memory.
//!
//! Volatile commits do not count here: what is lost with them is connections that the hosts know
//! better, and a node that died with some of them unsent has lost no change of an operator.
//!
//! The lineage travels inside the content, under [`KEY`] of [`wire::conflict::KEPT`], in snapshots
//! and in bulk syncs. It is written there just before either is made, and follows from the log
//! after that; the record itself is never replicated by a commit.
//!
//! Invariants: positions and counts grow strictly; no epoch stands twice.

use model::{Epoch, Lsn};
use serde::{Deserialize, Serialize};
use wire::conflict::KEPT;

use crate::content::Content;
use crate::limits::LINEAGE_EPOCHS;

/// Its place in the content.
const KEY: &[u8] = b"lineage";

/// The last persistent commit of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reach {
    epoch: Epoch,
    lsn: Lsn,
    /// Persistent commits up to it.
    count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage {
    /// Oldest first.
    reaches: Vec<Reach>,
}

impl Lineage {
    /// That of `content`; that of an empty store if there is none.
    pub(crate) fn of(content: &Content) -> Self {
        let bytes = content.get(KEPT, KEY);
        bytes
            .and_then(|bytes| postcard::from_bytes(bytes).ok())
            .unwrap_or_default()
    }

    /// Writes it into `content`.
    pub(crate) fn put_into(&self, content: &mut Content) {
        let bytes = postcard::to_allocvec(self).expect("a Vec grows, and all of it is sized");
        content.put(KEPT, KEY.to_vec(), bytes.into());
    }

    /// One more persistent commit. One that is known already changes nothing.
    pub(crate) fn push(&mut self, epoch: Epoch, lsn: Lsn) {
        let count = match self.reaches.last_mut() {
            Some(last) if lsn <= last.lsn => return,
            Some(last) if last.epoch == epoch => {
                last.lsn = lsn;
                last.count += 1;
                return;
            }
            Some(last) => last.count + 1,
            None => 1,
        };
        self.reaches.push(Reach { epoch, lsn, count });
        if self.reaches.len() > LINEAGE_EPOCHS {
            self.reaches.remove(0);
        }
    }

    /// The newest persistent commit.
    pub(crate) fn newest(&self) -> (Epoch, Lsn) {
        self.reaches
            .last()
            .map_or((Epoch::default(), Lsn(0)), |last| (last.epoch, last.lsn))
    }

    /// Whether this persistent commit is among these.
    pub(crate) fn includes(&self, epoch: Epoch, lsn: Lsn) -> bool {
        let reach = self.reaches.iter().find(|reach| reach.epoch == epoch);
        reach.is_some_and(|reach| lsn <= reach.lsn)
    }

    /// How many persistent commits of `other` are not among these.
    ///
    /// An epoch's commits are one node's, in a row: of one that both know, they have the same up
    /// to the shorter reach.
    pub(crate) fn missing_of(&self, other: &Self) -> u64 {
        let Some(newest) = other.reaches.last() else {
            return 0;
        };
        for theirs in other.reaches.iter().rev() {
            let ours = self.reaches.iter().find(|ours| ours.epoch == theirs.epoch);
            if let Some(ours) = ours {
                let shorter = if theirs.lsn <= ours.lsn { theirs } else { ours };
                return newest.count.saturating_sub(shorter.count);
            }
        }
        // Nothing in common, or it is older than what is remembered: nothing can be told apart.
        newest.count
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let grows = |pair: &[Reach]| pair[0].lsn < pair[1].lsn && pair[0].count < pair[1].count;
        if self.reaches.windows(2).all(grows) {
            Ok(())
        } else {
            Err("the lineage does not grow".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Incarnation, NodeKey};

    use super::*;

    fn epoch(counter: u64) -> Epoch {
        Epoch {
            counter,
            node: NodeKey([1; 32]),
            incarnation: Incarnation(1),
        }
    }

    fn lineage(commits: &[(u64, u64)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (counter, lsn) in commits {
            lineage.push(epoch(*counter), Lsn(*lsn));
        }
        lineage.check().expect("an invariant");
        lineage
    }

    #[test]
    fn what_one_lacks_of_the_other_is_counted_from_the_fork() {
        let leader = lineage(&[(1, 1), (1, 5), (3, 6), (3, 8)]);
        let cases: [(&[(u64, u64)], u64); 6] = [
            (&[], 0),
            (&[(1, 1)], 0),
            (&[(1, 1), (1, 5)], 0),
            (&[(1, 1), (1, 5), (1, 9)], 1),
            (&[(1, 1), (1, 5), (2, 6), (2, 7)], 2),
            (&[(9, 1), (9, 2)], 2),
        ];
        for (commits, missing) in cases {
            let other = lineage(commits);
            assert_eq!(leader.missing_of(&other), missing, "{commits:?}");
        }
    }

    #[test]
    fn it_forgets_the_oldest_epochs_only() {
        let mut long = Lineage::default();
        for n in 1..=LINEAGE_EPOCHS as u64 + 5 {
            long.push(epoch(n), Lsn(n));
        }
        assert_eq!(long.reaches.len(), LINEAGE_EPOCHS);
        assert_eq!(long.missing_of(&lineage(&[(6, 6)])), 0);
        assert_eq!(long.missing_of(&lineage(&[(5, 5)])), 1);
    }

    #[test]
    fn it_travels_in_the_content() {
        let mut content = Content::new();
        let lineage = lineage(&[(1, 1), (2, 2)]);
        lineage.put_into(&mut content);
        assert_eq!(Lineage::of(&content), lineage);
    }
}
