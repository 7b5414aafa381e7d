//! The Debian packages that a verb needs, installed when they are missing.
//!
//! A need is a file or a program, not a package: a machine that has clang from elsewhere installs
//! none. Only root may install; anyone else gets the command to run, and the verb stops.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Something outside the clone that a verb needs, and the Debian package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    what: &'static str,
    package: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Need {
    Need {
        what: name,
        package,
    }
}

/// What building the workspace needs beside Rust: `vemd` compiles its datapath.
pub(crate) const BUILD: &[Need] = &[
    program("cc", "gcc"),
    program("clang", "clang"),
    program("/usr/include/bpf/bpf_helpers.h", "libbpf-dev"),
    program("/usr/include/linux/bpf.h", "linux-libc-dev"),
];

/// What building and running the lab need: [`BUILD`], namespaces, and the witnesses.
pub(crate) const LAB: &[Need] = &[
    BUILD[0],
    BUILD[1],
    BUILD[2],
    BUILD[3],
    program("ip", "iproute2"),
    program("nft", "nftables"),
    program("nginx", "nginx"),
    program("wrk", "wrk"),
    program("iperf3", "iperf3"),
];

/// Where system programs are even when the caller's `PATH` has no `sbin`.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Debian asks this program whether a package may start its daemon; 101 is "no".
const START_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Sees to it that every need is met, installing what is missing.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let by_hand =
        format!("apt-get update && apt-get install -y --no-install-recommends {packages}");
    if !is_root() {
        bail!("missing packages; as root, run: {by_hand}");
    }
    if find("apt-get").is_none() {
        bail!("this is not Debian; install what these Debian packages bring: {packages}");
    }
    println!("installing {packages}");
    install(&missing).with_context(|| format!("cannot install; by hand: {by_hand}"))
}

/// The first kernel with TCX, the hook of the datapath.
const KERNEL: (u32, u32) = (6, 6);

/// Stops on a kernel that cannot load the datapath.
pub(crate) fn require_kernel() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("no /proc")?;
    let mut parts = release
        .trim()
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < KERNEL {
        let (major, minor) = KERNEL;
        bail!(
            "this kernel is {}; the datapath needs {major}.{minor} or newer (on Debian 12: \
             linux-image-amd64 from bookworm-backports)",
            release.trim()
        );
    }
    Ok(())
}

/// True for the superuser, told by who owns this process's entry in /proc.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = needs
        .iter()
        .filter(|need| find(need.what).is_none())
        .map(|need| need.package)
        .collect();
    packages.dedup();
    packages
}

fn find(what: &str) -> Option<PathBuf> {
    if what.starts_with('/') {
        return Some(PathBuf::from(what)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(what))
        .find(|path| path.is_file())
}

fn install(packages: &[&str]) -> Result<()> {
    let no_daemon = StartPolicy::forbid()?;
    let update = apt(&["update"]);
    let result = update.and_then(|()| {
        let mut words = vec!["install", "-y", "--no-install-recommends"];
        words.extend(packages);
        apt(&words)
    });
    drop(no_daemon);
    if result.is_ok() && packages.contains(&"nginx") && find("systemctl").is_some() {
        // The lab starts its own nginx in a namespace; none is wanted at the next boot. A machine
        // without systemd has nothing to disable, so the outcome does not matter.
        let _ = Command::new("systemctl")
            .args(["disable", "nginx"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    result
}

fn apt(words: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} failed: {}", words.join(" "), text.trim());
    }
    Ok(())
}

/// Keeps Debian from starting daemons while it lives, unless the machine has its own policy.
struct StartPolicy {
    ours: bool,
}

impl StartPolicy {
    fn forbid() -> Result<Self> {
        if Path::new(START_POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(START_POLICY, "#!/bin/sh\nexit 101\n").context(START_POLICY)?;
        fs::set_permissions(START_POLICY, fs::Permissions::from_mode(0o755))
            .context(START_POLICY)?;
        Ok(Self { ours: true })
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(START_POLICY);
        }
    }
}
