//! What every system test begins with: the right to run, and a lab of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::lab::{Lab, Plan};
use crate::{site, wait};

/// The folder of the release binaries, set by `cargo xtask test`.
const BINARIES: &str = "TWINWALL_BIN_DIR";

/// Longest wait for the hosts: a handshake and a replicated registration.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// Tells the labs of one test program apart.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Whether system tests can run here.
///
/// Without root they are left out, aloud; in CI that would be a hole nobody sees, so there it
/// fails.
///
/// # Panics
/// In CI without root.
#[must_use]
pub fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !in_ci,
        "system tests need root, and in CI none may be left out"
    );
    eprintln!("SKIPPED: system tests make network namespaces and need root");
    false
}

/// A plan for a lab with a name that no other test uses.
///
/// # Panics
/// When the binaries have not been built.
#[must_use]
pub fn plan(topology: Option<PathBuf>) -> Plan {
    let binaries = binaries();
    assert!(
        binaries.join("vsg-lab").is_file(),
        "no vsg-lab in {}: `cargo xtask test system` builds it",
        binaries.display()
    );
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Plan {
        binaries,
        name: format!("t{}-{number}", std::process::id()),
        topology,
    }
}

/// A redundant pair of the default topology, with both hosts attached to both nodes.
///
/// # Panics
/// When it does not come up.
#[must_use]
pub fn pair() -> Lab {
    let lab = Lab::up(plan(None)).expect("the lab comes up");
    // They attach by themselves, a moment after the pair has found itself.
    wait::until("every node lists every host", ATTACH_LIMIT, || {
        for node in site::NODES {
            let text = lab.shell(node, &["show module"])?.text;
            if !site::HOSTS.iter().all(|host| text.contains(host)) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .expect("the hosts attach");
    lab
}

/// A redundant pair with the sample policy, and the node that leads.
///
/// # Panics
/// When it does not come up, or refuses the policy.
#[must_use]
pub fn pair_with_policy() -> (Lab, &'static str) {
    let lab = pair();
    let active = lab.await_redundant().expect("a redundant pair");
    lab.configure(active, site::POLICY)
        .expect("the sample policy is accepted");
    (lab, active)
}

/// Beside `target/debug/deps`, where the tests are, unless the environment says otherwise.
fn binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os(BINARIES) {
        return folder.into();
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors()
        .nth(3)
        .map(|target| target.join("release"))
        .unwrap_or_default()
}
