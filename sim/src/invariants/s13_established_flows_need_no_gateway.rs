//! S13: without a gateway a host keeps the flows that are established, and its ports' fail modes
//! decide new ones.

use model::Verdict;
use vem::{EntryState, FailMode};

/// What an agent does to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Decides it, by whichever epoch (0: by the fail mode).
    Decides(Verdict, u64),
    /// Removes its entry.
    Forgets,
}

/// An agent acts on a flow whose entry is in this state; `connected` tells whether it has a
/// connection to any gateway.
///
/// # Errors
/// If an established flow ends without a gateway, or a fail mode decides what it must not.
pub fn acts(
    connected: bool,
    entry: EntryState,
    fail_mode: FailMode,
    act: Act,
) -> Result<(), String> {
    let established = matches!(entry, EntryState::Permitted);
    let ends = matches!(act, Act::Forgets | Act::Decides(Verdict::Drop, _));
    if established && ends && !connected {
        return Err("S13: an established flow ends without a gateway".to_owned());
    }
    if let Act::Decides(verdict, 0) = act {
        let wanted = match fail_mode {
            FailMode::Open => Verdict::Permit,
            FailMode::Close => Verdict::Drop,
        };
        if verdict != wanted || established {
            return Err(format!(
                "S13: fail mode {fail_mode:?} decides {verdict:?} for a flow that is {entry:?}"
            ));
        }
    }
    Ok(())
}
