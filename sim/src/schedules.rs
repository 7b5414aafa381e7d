//! The schedules that must come out right, as scripts.

use crate::script::Script;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Its number.
    pub number: usize,
    /// What happens in it.
    pub what: &'static str,
    script: fn(&mut Script) -> Result<(), String>,
}

impl Schedule {
    /// Plays it.
    ///
    /// # Errors
    /// What did not come out as it must.
    pub fn run(&self, readable: bool) -> Result<(), String> {
        let mut script = Script::new(self.number as u64, readable);
        (self.script)(&mut script)?;
        script.ends()
    }
}

/// All of them.
pub const ALL: [Schedule; 0] = [];
