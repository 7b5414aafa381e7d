//! The guardian's care for the machine's watchdog, and for a System Manager that is stuck.
//!
//! Invariants:
//! - the device is petted once a second for as long as the guardian's loop turns and the System
//!   Manager is not known to be stuck beyond help;
//! - time is counted in turns of this process, so that a machine that was paused as a whole blames
//!   nobody when it goes on;
//! - an end of the guardian that was asked for releases the device, every other end does not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::watchdog::Watchdog;
use tokio::time::MissedTickBehavior;

use crate::configuration::WatchdogDevice;

/// How often it is petted; the System Manager says as often that its main loop turns.
pub(crate) const TURN: Duration = Duration::from_secs(1);
/// A System Manager that has not said so for this many turns is killed, and a new one started: its
/// peer leads by then, and what is stuck for half a minute does not mend.
const STUCK_TURNS: u32 = 30;
/// One that even killing does not end holds the machine: it is left to the watchdog.
const HOPELESS_TURNS: u32 = 3 * STUCK_TURNS;

/// See the module.
#[derive(Clone)]
pub(crate) struct Care {
    device: Arc<Mutex<Option<Watchdog>>>,
    /// Turns since the System Manager said that it turns.
    silent: Arc<AtomicU32>,
    note: Option<String>,
}

impl Care {
    /// Opens the device, if one is configured, and begins. Must be called inside a runtime.
    pub(crate) fn start(configured: Option<&WatchdogDevice>) -> Self {
        let opened = configured.map(|watchdog| {
            let device = watchdog.device.display();
            match Watchdog::open(&watchdog.device, watchdog.timeout_s) {
                Ok(open) => (Some(open), format!("+{device}")),
                Err(error) => (None, format!("-{device}: {error}")),
            }
        });
        let (device, note) = opened.map_or((None, None), |(device, note)| (device, Some(note)));
        let care = Self {
            device: Arc::new(Mutex::new(device)),
            silent: Arc::default(),
            note,
        };
        tokio::spawn(care.clone().pet());
        care
    }

    async fn pet(self) {
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let silent = self.silent.fetch_add(1, Ordering::Relaxed);
            if silent >= HOPELESS_TURNS {
                continue;
            }
            let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Err(error)) = device.as_mut().map(Watchdog::pet) {
                eprintln!("watchdog: {error}");
            }
        }
    }

    /// What the System Manager is told of the device.
    pub(crate) const fn note(&self) -> Option<&String> {
        self.note.as_ref()
    }

    /// The System Manager turns, or a new one begins.
    pub(crate) fn turns(&self) {
        self.silent.store(0, Ordering::Relaxed);
    }

    /// It should be killed.
    pub(crate) fn is_stuck(&self) -> bool {
        self.silent.load(Ordering::Relaxed) >= STUCK_TURNS
    }

    /// Lets go of the device: this end was asked for.
    pub(crate) fn release(&self) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = device.take() {
            device.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Care, HOPELESS_TURNS, STUCK_TURNS, TURN};
    use crate::configuration::WatchdogDevice;

    #[tokio::test(start_paused = true)]
    async fn it_is_petted_while_the_system_manager_turns_or_may_yet_be_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let device = folder.path().join("watchdog");
        std::fs::write(&device, "").expect("a file");
        let written = || std::fs::read_to_string(&device).expect("readable");
        let care = Care::start(Some(&WatchdogDevice {
            device: device.clone(),
            timeout_s: 30,
        }));
        assert_eq!(
            care.note().map(String::as_str),
            Some(&*format!("+{}", device.display()))
        );
        for _ in 0..100 {
            tokio::time::sleep(TURN).await;
            care.turns();
        }
        let petted = written().len();
        assert!((99..=102).contains(&petted), "{petted}");
        assert!(!care.is_stuck());
        tokio::time::sleep(TURN * STUCK_TURNS + Duration::from_millis(500)).await;
        assert!(care.is_stuck());
        tokio::time::sleep(TURN * HOPELESS_TURNS * 2).await;
        let petted = written().len() - petted;
        assert!(petted <= HOPELESS_TURNS as usize + 2, "{petted}");
        care.release();
        assert!(written().ends_with('V'));
    }

    #[tokio::test]
    async fn a_device_that_is_not_there_is_told_and_nothing_else() {
        let care = Care::start(Some(&WatchdogDevice {
            device: "/nonexistent/watchdog".into(),
            timeout_s: 30,
        }));
        let note = care.note().expect("a note");
        assert!(note.starts_with("-/nonexistent/watchdog: "), "{note}");
        care.release();
        assert_eq!(Care::start(None).note(), None);
    }
}
