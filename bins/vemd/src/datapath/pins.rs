//! Pins: loading, attaching, finding again.
//!
//! ```text
//! <bpffs>/v1/map/<name>           maps
//! <bpffs>/v1/program/<name>       programs, of the last build loaded
//! <bpffs>/v1/link/<ifindex>-in    the link of an interface's ingress, `-out` of its egress
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, Pod};
use vem::FailMode;

use super::PortDevice;
use super::abi::{ABI_VERSION, FlowKey, PORTS_MAX, Port, Settings, Tap};

/// The compiled datapath.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath.bpf.o"));

const MAPS: [&str; 10] = [
    "flows",
    "ports",
    "taps",
    "counters",
    "settings",
    "liveness",
    "reports",
    "highest_epoch",
    "tickets",
    "sweeper",
];
const PROGRAMS: [&str; 5] = [
    "port_from_vm",
    "port_to_vm",
    "tap_in",
    "tap_out",
    "flow_control",
];

/// The folder of pins.
pub(crate) struct Pins {
    folder: PathBuf,
}

/// Removes everything that is pinned: programs are detached, flows forgotten.
pub(crate) fn remove(bpffs: &Path) -> io::Result<()> {
    let folder = Pins::new(bpffs).folder;
    // Links first: nothing is decided any more before what decides goes.
    for part in ["link", "program", "map"] {
        let part = folder.join(part);
        if part.is_dir() {
            fs::remove_dir_all(&part)?;
        }
    }
    if folder.is_dir() {
        fs::remove_dir(&folder)
    } else {
        Ok(())
    }
}

impl Pins {
    pub(crate) fn new(bpffs: &Path) -> Self {
        Self {
            folder: bpffs.join(format!("v{ABI_VERSION}")),
        }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("program").join(name)
    }

    fn map_path(&self, name: &str) -> PathBuf {
        self.folder.join("map").join(name)
    }

    fn link(&self, ifindex: u32, attach: TcAttachType) -> PathBuf {
        let side = if attach == TcAttachType::Ingress {
            "in"
        } else {
            "out"
        };
        self.folder.join("link").join(format!("{ifindex}-{side}"))
    }

    /// A pinned map.
    pub(crate) fn map(&self, name: &str) -> Result<MapData> {
        MapData::from_pin(self.map_path(name)).with_context(|| {
            format!(
                "no datapath below {}: is vemd running?",
                self.folder.display()
            )
        })
    }

    pub(crate) fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>> {
        HashMap::try_from(Map::HashMap(self.map(name)?)).context("map of another shape")
    }

    pub(crate) fn array<V: Pod>(&self, name: &str) -> Result<Array<MapData, V>> {
        Array::try_from(Map::Array(self.map(name)?)).context("map of another shape")
    }

    /// Makes sure that this build's programs guard these ports and their taps, and no others.
    pub(crate) fn ensure(&self, devices: &[PortDevice]) -> Result<()> {
        if devices.len() > PORTS_MAX {
            bail!("{} ports, at most {PORTS_MAX} are possible", devices.len());
        }
        let build = crc32fast::hash(OBJECT);
        let loaded = if self.is_complete(build) {
            None
        } else {
            Some(self.load(build)?)
        };
        self.configure(devices)?;
        self.attach(loaded, devices)
    }

    fn is_complete(&self, build: u32) -> bool {
        let maps = MAPS.iter().all(|name| self.map_path(name).exists());
        let programs = PROGRAMS.iter().all(|name| self.program(name).exists());
        let settings = self
            .array::<Settings>("settings")
            .and_then(|map| Ok(map.get(&0, 0)?));
        maps && programs
            && settings.is_ok_and(|own| own.abi_version == ABI_VERSION && own.build == build)
    }

    /// Loads this build's programs onto the pinned maps, which are created if they are not there.
    fn load(&self, build: u32) -> Result<Ebpf> {
        for part in ["map", "program", "link"] {
            let part = self.folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("{}", part.display()))?;
        }
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name, self.map_path(name));
        }
        let mut ebpf = loader
            .load(OBJECT)
            .context("loading the datapath (CAP_BPF, Linux 6.6+)")?;
        for name in PROGRAMS {
            let program = program(&mut ebpf, name)?;
            program.load().with_context(|| format!("program {name}"))?;
            let pin = self.program(name);
            if pin.exists() {
                fs::remove_file(&pin)?;
            }
            program
                .pin(&pin)
                .with_context(|| format!("{}", pin.display()))?;
        }
        let mut settings = self.array::<Settings>("settings")?;
        let old = settings.get(&0, 0)?;
        let marks = if old.reinject_mark == 0 {
            fresh_marks()?
        } else {
            old
        };
        settings.set(
            0,
            Settings {
                abi_version: ABI_VERSION,
                build,
                ..marks
            },
            0,
        )?;
        Ok(ebpf)
    }

    fn configure(&self, devices: &[PortDevice]) -> Result<()> {
        let mut ports = self.hash::<u32, Port>("ports")?;
        let mut taps = self.hash::<u32, Tap>("taps")?;
        for (slot, device) in (0..).zip(devices) {
            let (tap, mac) = (device.tap_ifindex, device.mac);
            let fail_mode = u8::from(device.fail_mode == FailMode::Open);
            taps.insert(
                tap,
                Tap {
                    port: device.ifindex,
                    mac,
                    zero: [0; 2],
                },
                0,
            )?;
            ports.insert(
                device.ifindex,
                Port {
                    tap,
                    slot,
                    mac,
                    fail_mode,
                    zero: 0,
                },
                0,
            )?;
        }
        let gone = |ifindex: &u32| !devices.iter().any(|device| device.ifindex == *ifindex);
        let stale: Vec<_> = ports.keys().filter_map(Result::ok).filter(gone).collect();
        for ifindex in stale {
            ports.remove(&ifindex)?;
        }
        Ok(())
    }

    fn attach(&self, loaded: Option<Ebpf>, devices: &[PortDevice]) -> Result<()> {
        let fresh = loaded.is_some();
        let mut wanted = Vec::new();
        for device in devices {
            let port = (device.ifindex, device.interface.as_str());
            let tap = (device.tap_ifindex, device.tap.as_str());
            // The tap before the port: nothing is sent to a tap that would not send it on.
            wanted.push((tap, TcAttachType::Ingress, "tap_in"));
            wanted.push((tap, TcAttachType::Egress, "tap_out"));
            wanted.push((port, TcAttachType::Ingress, "port_from_vm"));
            wanted.push((port, TcAttachType::Egress, "port_to_vm"));
        }
        for ((ifindex, interface), attach, name) in &wanted {
            let pin = self.link(*ifindex, *attach);
            if fresh || !pin.exists() {
                let mut program = SchedClassifier::from_pin(self.program(name))?;
                attach_pinned(&mut program, interface, *attach, &pin)
                    .with_context(|| format!("attaching {name} to {interface}"))?;
            }
        }
        let pins: Vec<_> = wanted
            .iter()
            .map(|((ifindex, _), attach, _)| self.link(*ifindex, *attach))
            .collect();
        for entry in fs::read_dir(self.folder.join("link"))? {
            let path = entry?.path();
            if !pins.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// Attaches at the head of the chain, or exchanges the program of the link that is there. A link
/// whose interface has gone cannot be exchanged, and is made anew.
fn attach_pinned(
    program: &mut SchedClassifier,
    interface: &str,
    attach: TcAttachType,
    pin: &Path,
) -> Result<()> {
    if let Ok(old) = PinnedLink::from_pin(pin) {
        let link: SchedClassifierLink = FdLink::from(old).try_into()?;
        if let Ok(id) = program.attach_to_link(link) {
            // The pin keeps it; dropping our descriptor detaches nothing.
            let _link: FdLink = program.take_link(id)?.try_into()?;
            return Ok(());
        }
        fs::remove_file(pin)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, attach, options)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin)?;
    Ok(())
}

fn fresh_marks() -> Result<Settings> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    let [a, b, c, d, e, f, g, h] = bytes;
    // Never 0, which is no mark, and never equal.
    let reinject_mark = u32::from_ne_bytes([a, b, c, d]) | 1;
    let upcall_mark = (u32::from_ne_bytes([e, f, g, h]) & !1) | 2;
    Ok(Settings {
        reinject_mark,
        upcall_mark,
        ..Settings::default()
    })
}

/// `union bpf_attr` of `BPF_MAP_GET_NEXT_KEY`.
#[repr(C)]
struct NextKey {
    map_fd: u32,
    zero: u32,
    key: u64,
    next_key: u64,
}

/// From `enum bpf_cmd`.
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

/// The key behind `after` in the map's own order, from the start if that has gone; which aya's iterators cannot be begun with.
pub(super) fn next_key(flows: &MapData, after: Option<FlowKey>) -> Option<FlowKey> {
    let mut next = FlowKey::default();
    let mut attributes = NextKey {
        map_fd: flows.fd().as_fd().as_raw_fd() as u32,
        zero: 0,
        key: after
            .as_ref()
            .map_or(0, |key| std::ptr::from_ref(key) as u64),
        next_key: std::ptr::from_mut(&mut next) as u64,
    };
    #[allow(unsafe_code, reason = "a system call that libc does not wrap")]
    // SAFETY: the attributes are as large as told; `key` is null or points to a key, and
    // `next_key` to room for one, of the map's key size; all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_GET_NEXT_KEY,
            std::ptr::from_mut(&mut attributes),
            size_of::<NextKey>(),
        )
    };
    (result == 0).then_some(next)
}
