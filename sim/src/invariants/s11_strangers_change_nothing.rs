//! S11: a datagram that the peer did not send, or that was taken in before, gets no further than
//! the envelope: nothing behind it ever sees one.

use std::collections::BTreeSet;

/// What each start of a node has taken in.
#[derive(Debug, Default)]
pub struct StrangersChangeNothing {
    accepted: BTreeSet<(usize, u64, u64)>,
}

impl StrangersChangeNothing {
    /// A datagram is taken in; `sent` is its number if the peer sent it just so.
    ///
    /// # Errors
    /// If nobody of the pair sent it, or it is a repetition.
    pub fn accepts(&mut self, node: usize, boot: u64, sent: Option<u64>) -> Result<(), String> {
        let Some(sent) = sent else {
            return Err(format!(
                "S11: node {node} takes in a datagram that its peer did not send"
            ));
        };
        if self.accepted.insert((node, boot, sent)) {
            return Ok(());
        }
        Err(format!("S11: node {node} takes in datagram {sent} again"))
    }
}
