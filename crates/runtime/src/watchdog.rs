//! The machine's watchdog: a device that resets the machine when nobody writes to it for a time.
//!
//! Invariants:
//! - it is let go of only by [`Watchdog::release`], which tells the driver so (the *magic close*);
//!   a process that dies in any other way leaves it running, and the machine is reset;
//! - nothing here waits: a device that does not take a byte at once was not petted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `WDIOC_SETTIMEOUT` of `linux/watchdog.h`: `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;
/// Written before closing: the driver stops the watchdog (unless it is built not to).
const MAGIC_CLOSE: &[u8] = b"V";
/// Any other byte restarts the time.
const PET: &[u8] = b".";

/// A watchdog that runs.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Opens the device, which starts it, and asks for `timeout_s` seconds. A driver that has a
    /// time of its own keeps that.
    ///
    /// # Errors
    /// When there is no such device, or another process has it.
    #[allow(unsafe_code, reason = "no safe wrapper of this ioctl")]
    pub fn open(path: &Path, timeout_s: u16) -> io::Result<Self> {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)?;
        let mut seconds = libc::c_int::from(timeout_s);
        // SAFETY: the descriptor is open, and the request reads and writes one `int`, which lives
        // through the call. Something that is no watchdog refuses the request.
        let _ = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) };
        Ok(Self { device })
    }

    /// Restarts the time.
    ///
    /// # Errors
    /// When the device did not take it.
    pub fn pet(&mut self) -> io::Result<()> {
        self.device.write_all(PET)
    }

    /// Stops the watchdog.
    pub fn release(mut self) {
        // Should it not take this, the machine is reset, which is what the driver is for.
        let _ = self.device.write_all(MAGIC_CLOSE);
    }
}

#[cfg(test)]
mod tests {
    use super::Watchdog;

    #[test]
    fn it_is_petted_and_released_and_a_missing_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("watchdog");
        assert!(Watchdog::open(&path, 30).is_err());
        std::fs::write(&path, "").expect("a file");
        let mut watchdog = Watchdog::open(&path, 30).expect("opened");
        watchdog.pet().expect("petted");
        watchdog.pet().expect("petted");
        watchdog.release();
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "..V");
        drop(Watchdog::open(&path, 30).expect("opened"));
        assert_eq!(
            std::fs::read_to_string(&path).expect("readable"),
            "..V",
            "no magic close"
        );
    }
}
