//! What stands before the cursor, and when it changes by itself.

use cli::Mode;
use wire::console::ToShell;

use super::Vshd;
use super::session::{Session, State};
use crate::service::SessionId;

/// Told to whoever was configuring when their node stopped leading.
const CONFIGURATION_ENDED: &str = "Configuration mode has ended: this supervisor is not active any \
                                   more. Lines that were answered are kept; configure the active.";

impl Vshd {
    /// The line is done: the next may be entered.
    pub(super) fn prompt(&mut self, id: SessionId, failed: bool) {
        let standing = self.standing();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let prompt = session.mode.prompt(&self.hostname, standing);
        session.prompt_columns = prompt.chars().count();
        session.prompt.clone_from(&prompt);
        self.tell(id, ToShell::Prompt { prompt, failed });
    }

    /// This node does not lead any more: whoever was configuring is told.
    pub(super) fn leave_configuration(&mut self) {
        let configuring = |session: &Session| session.mode != Mode::Exec;
        let ids: Vec<SessionId> = self
            .sessions
            .iter_mut()
            .filter(|(_, session)| configuring(session))
            .map(|(id, session)| {
                session.mode = Mode::Exec;
                session.entered = None;
                session.configured = false;
                *id
            })
            .collect();
        for id in ids {
            self.tell(id, ToShell::Console(CONFIGURATION_ENDED.to_owned()));
        }
    }

    /// Tells those who sit before a prompt that it has become another.
    pub(super) fn refresh_prompts(&mut self) {
        let standing = self.standing();
        let mut changed = Vec::new();
        for (id, session) in &mut self.sessions {
            let prompt = session.mode.prompt(&self.hostname, standing);
            let shown = session.prompt_columns > 0;
            if matches!(session.state, State::Ready) && shown && session.prompt != prompt {
                session.prompt_columns = prompt.chars().count();
                session.prompt.clone_from(&prompt);
                changed.push((*id, prompt));
            }
        }
        for (id, prompt) in changed {
            self.tell(id, ToShell::NewPrompt(prompt));
        }
    }
}
