//! What is broken in a round, how it is mended, and what may come of it.
//!
//! Faults name the nodes by what they are when it strikes, so that a seed means the same faults
//! whoever leads.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::lab::Lab;
use crate::{clock, site};

/// Services whose crash fails the node over: `policy_engine` is native.
const NATIVE: [&str; 1] = ["policy_engine"];
/// Services that restart, and nobody fails over.
const BORROWED: [&str; 5] = ["mts", "pss", "vem_mgr", "cfgmgr", "vshd"];
/// The links between the nodes.
const LINKS: [&str; 2] = ["ha0", "ha1"];

/// A hold time of which an interval is within what a busy scheduler may take.
const SHORT_HOLD_MS: u64 = 100;

/// A node, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one that leads.
    Active,
    /// The other one.
    Standby,
}

impl Side {
    fn of(self, active: &str) -> &'static str {
        match self {
            Self::Active => site::other(site::other(active)),
            Self::Standby => site::other(active),
        }
    }
}

/// Which frames of a link are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// All.
    Both,
    /// Those that the active sends.
    FromActive,
    /// Those that are sent to the active.
    ToActive,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// `kill -9` of one service.
    KillService {
        /// Where.
        side: Side,
        /// Which.
        service: &'static str,
    },
    /// `kill -9` of the System Manager.
    KillSysmgr {
        /// Where.
        side: Side,
    },
    /// `kill -9` of the guardian, and so of the node; it is started again at once.
    KillGuardian {
        /// Where.
        side: Side,
    },
    /// The node vanishes from the network and all its processes are killed.
    PowerOff {
        /// Where.
        side: Side,
        /// How long it stays off.
        for_ms: u64,
    },
    /// Every process of the node is stopped.
    Pause {
        /// Where.
        side: Side,
        /// How long.
        for_ms: u64,
    },
    /// One process of the node is stopped.
    PauseService {
        /// Where.
        side: Side,
        /// Which.
        service: &'static str,
        /// How long.
        for_ms: u64,
    },
    /// One of the links between the nodes is cut.
    CutLink {
        /// Which.
        link: &'static str,
        /// Which way.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// One of the links comes and goes.
    Flap {
        /// Which.
        link: &'static str,
        /// How long it is cut, and as long whole.
        half_ms: u64,
        /// How often.
        times: u32,
    },
    /// All links between the nodes are cut; both still reach all hosts.
    CutLinks {
        /// Which way.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// A node is unplugged from everything.
    Unplug {
        /// Which.
        side: Side,
        /// How long.
        for_ms: u64,
    },
    /// A node loses the service network.
    CutService {
        /// Which.
        side: Side,
        /// How long.
        for_ms: u64,
    },
    /// One host loses the service network.
    CutHost {
        /// Which.
        host: &'static str,
        /// How long.
        for_ms: u64,
    },
    /// All links are cut, and each host reaches one node only: both may lead until they meet.
    SplitHosts {
        /// How long.
        for_ms: u64,
    },
    /// `system switchover`.
    Switchover,
    /// `reload` of the active.
    Reload,
    /// `kill -9` of a host agent's worker.
    KillVemd {
        /// Of which host.
        host: &'static str,
    },
    /// `kill -9` of a host agent and its guardian; it is started again at once.
    KillVemdGuardian {
        /// Of which host.
        host: &'static str,
    },
}

/// Who leads after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// The other node must.
    Moves,
    /// The same node must.
    Stays,
    /// Either may.
    Any,
}

/// When a fault took effect, and when it was mended.
#[derive(Debug, Clone, Copy)]
pub struct Struck {
    /// Just before its first effect, in nanoseconds of [`clock::now_ns`].
    pub at_ns: u64,
    /// When it was mended, on the same clock.
    pub mended_ns: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Fault {
    /// A fault by chance; every second one fails over.
    pub fn draw(chance: &mut StdRng) -> Self {
        let side = one_of(
            chance,
            &[Side::Active, Side::Active, Side::Active, Side::Standby],
        );
        let host = one_of(chance, &site::HOSTS);
        let link = one_of(chance, &LINKS);
        let way = one_of(chance, &[Way::Both, Way::FromActive, Way::ToActive]);
        match chance.random_range(0..100_u32) {
            0..18 => Self::KillService {
                side,
                service: one_of(chance, &NATIVE),
            },
            18..22 => Self::KillService {
                side,
                service: one_of(chance, &BORROWED),
            },
            22..32 => Self::KillSysmgr { side },
            32..38 => Self::KillGuardian { side },
            38..50 => Self::PowerOff {
                side,
                for_ms: chance.random_range(50..1200),
            },
            50..60 => Self::Pause {
                side,
                for_ms: chance.random_range(20..1500),
            },
            60..64 => Self::PauseService {
                side,
                service: one_of(
                    chance,
                    &["sysmgr", "policy_engine", "mts", "pss", "vem_mgr"],
                ),
                for_ms: chance.random_range(20..1000),
            },
            64..68 => Self::CutLink {
                link,
                way,
                for_ms: chance.random_range(50..1000),
            },
            68..70 => Self::Flap {
                link,
                half_ms: chance.random_range(50..600),
                times: 3,
            },
            70..74 => Self::CutLinks {
                way,
                for_ms: chance.random_range(50..1500),
            },
            74..78 => Self::Unplug {
                side,
                for_ms: chance.random_range(50..1500),
            },
            78..80 => Self::CutService {
                side,
                for_ms: chance.random_range(50..1000),
            },
            80..82 => Self::CutHost {
                host,
                for_ms: chance.random_range(50..1000),
            },
            82..84 => Self::SplitHosts {
                for_ms: chance.random_range(500..1500),
            },
            84..92 => Self::Switchover,
            92..96 => Self::Reload,
            96..98 => Self::KillVemd { host },
            _ => Self::KillVemdGuardian { host },
        }
    }

    /// A second fault that may strike while the first one lasts: one that mends by itself.
    pub fn draw_second(chance: &mut StdRng) -> Self {
        let host = one_of(chance, &site::HOSTS);
        match chance.random_range(0..4_u32) {
            0 => Self::KillVemd { host },
            1 => Self::KillService {
                side: Side::Standby,
                service: one_of(chance, &BORROWED),
            },
            2 => Self::KillService {
                side: Side::Active,
                service: one_of(chance, &BORROWED),
            },
            _ => Self::KillSysmgr {
                side: one_of(chance, &[Side::Active, Side::Standby]),
            },
        }
    }

    /// Who leads after it, at a hold time of `hold_ms`.
    #[must_use]
    pub fn leader(&self, hold_ms: u64) -> Leader {
        match self {
            Self::KillService { side, service } => match side {
                Side::Active if NATIVE.contains(service) => Leader::Moves,
                Side::Active | Side::Standby => Leader::Stays,
            },
            Self::KillSysmgr { side } | Self::KillGuardian { side } => match side {
                Side::Active => Leader::Moves,
                Side::Standby => Leader::Stays,
            },
            // Twice the hold time: the standby has asked the hosts by then, and decided.
            Self::PowerOff { side, for_ms } | Self::Pause { side, for_ms } => match side {
                Side::Active if *for_ms > 2 * hold_ms + 100 => Leader::Moves,
                Side::Active => Leader::Any,
                Side::Standby => Leader::Stays,
            },
            Self::PauseService { side, .. } => match side {
                Side::Active => Leader::Any,
                Side::Standby => Leader::Stays,
            },
            Self::Unplug { side, .. } => match side {
                Side::Active => Leader::Any,
                Side::Standby => Leader::Stays,
            },
            // A vote has one interval. At 10 ms a machine without a free core may answer later, and
            // then nothing forbids the takeover.
            Self::CutLinks { .. } if hold_ms < SHORT_HOLD_MS => Leader::Any,
            Self::CutLink { .. }
            | Self::Flap { .. }
            | Self::CutLinks { .. }
            | Self::CutService { .. }
            | Self::CutHost { .. }
            | Self::KillVemd { .. }
            | Self::KillVemdGuardian { .. } => Leader::Stays,
            Self::SplitHosts { .. } => Leader::Any,
            Self::Switchover | Self::Reload => Leader::Moves,
        }
    }

    /// Whether both nodes may lead, each its own hosts, until it is mended.
    #[must_use]
    pub fn may_split(&self) -> bool {
        match self {
            Self::CutLinks { .. } | Self::Unplug { .. } | Self::SplitHosts { .. } => true,
            // The one that was stopped believes that it leads until it looks around.
            Self::Pause { .. } | Self::PauseService { .. } => true,
            Self::KillService { .. }
            | Self::KillSysmgr { .. }
            | Self::KillGuardian { .. }
            | Self::PowerOff { .. }
            | Self::CutLink { .. }
            | Self::Flap { .. }
            | Self::CutService { .. }
            | Self::CutHost { .. }
            | Self::Switchover
            | Self::Reload
            | Self::KillVemd { .. }
            | Self::KillVemdGuardian { .. } => false,
        }
    }

    /// Whether a SYN may have to be sent again: what waits in a host agent dies with it, and a host
    /// that no deciding node answers for a second makes its clients try again.
    #[must_use]
    pub fn may_cost_a_syn(&self) -> bool {
        // With the time that a host may take to find the node again, that makes a second.
        const ALMOST_A_SECOND_MS: u64 = 300;
        match self {
            Self::KillVemd { .. } | Self::KillVemdGuardian { .. } => true,
            Self::PauseService { side, for_ms, .. }
            | Self::Unplug { side, for_ms }
            | Self::CutService { side, for_ms } => {
                *side == Side::Active && *for_ms > ALMOST_A_SECOND_MS
            }
            Self::CutHost { for_ms, .. } | Self::SplitHosts { for_ms } => {
                *for_ms > ALMOST_A_SECOND_MS
            }
            Self::KillService { .. }
            | Self::KillSysmgr { .. }
            | Self::KillGuardian { .. }
            | Self::PowerOff { .. }
            | Self::Pause { .. }
            | Self::CutLink { .. }
            | Self::Flap { .. }
            | Self::CutLinks { .. }
            | Self::Switchover
            | Self::Reload => false,
        }
    }

    /// Makes the fault, waits as long as it lasts, and mends it.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn strike(&self, lab: &Lab, active: &str) -> Result<Struck> {
        let mut struck = match self {
            Self::KillService { side, service } => {
                once(lab, &["kill-service", side.of(active), service])
            }
            Self::KillSysmgr { side } => once(lab, &["kill-sysmgr", side.of(active)]),
            Self::KillGuardian { side } => {
                let node = side.of(active);
                once(lab, &["kill-guardian", node]).and_then(|struck| {
                    lab.fault(&["start-node", node])?;
                    Ok(struck)
                })
            }
            Self::PowerOff { side, for_ms } => {
                let node = side.of(active);
                span(lab, &["kill-node", node], *for_ms, &["start-node", node])
            }
            Self::Pause { side, for_ms } => {
                let span = format!("{for_ms}ms");
                once(lab, &["pause", side.of(active), "--for", &span])
            }
            Self::PauseService {
                side,
                service,
                for_ms,
            } => {
                let span = format!("{for_ms}ms");
                let node = side.of(active);
                once(lab, &["pause", node, "--service", service, "--for", &span])
            }
            Self::CutLink { link, way, for_ms } => cut(lab, &way.words(link, active), *for_ms),
            Self::Flap {
                link,
                half_ms,
                times,
            } => flap(lab, link, *half_ms, *times),
            Self::CutLinks { way, for_ms } => {
                let words = LINKS.map(|link| way.words(link, active));
                cut_all(lab, &words, *for_ms)
            }
            Self::Unplug { side, for_ms } => {
                cut(lab, &[format!("all:{}", side.of(active))], *for_ms)
            }
            Self::CutService { side, for_ms } => {
                cut(lab, &[format!("svc:{}", side.of(active))], *for_ms)
            }
            Self::CutHost { host, for_ms } => cut(lab, &[format!("svc:{host}")], *for_ms),
            Self::SplitHosts { for_ms } => cut_all(lab, &split(active), *for_ms),
            Self::Switchover => switch_over(lab, active),
            Self::Reload => {
                let at_ns = clock::now_ns();
                // The session ends with the node.
                lab.shell(active, &["reload", "y"])?;
                Ok(Struck {
                    at_ns,
                    mended_ns: at_ns,
                })
            }
            Self::KillVemd { host } => once(lab, &["kill-vemd", host]),
            Self::KillVemdGuardian { host } => {
                let struck = once(lab, &["kill-vemd", host, "--guardian"])?;
                lab.fault(&["start-vemd", host])?;
                Ok(struck)
            }
        }?;
        struck.mended_ns = struck.mended_ns.max(clock::now_ns());
        Ok(struck)
    }
}

impl Way {
    /// The words for `fault cut` and `fault heal` of `link`.
    fn words(self, link: &str, active: &str) -> Vec<String> {
        let mut words = vec![link.to_owned()];
        match self {
            Self::Both => {}
            Self::FromActive => words.extend(["--from".to_owned(), active.to_owned()]),
            Self::ToActive => words.extend(["--to".to_owned(), active.to_owned()]),
        }
        words
    }
}

/// The cuts after which each host reaches one node, and the nodes do not reach each other.
#[must_use]
pub fn split(active: &str) -> Vec<Vec<String>> {
    let [one, two] = site::HOSTS;
    let standby = site::other(active);
    vec![
        vec![format!("svc:{active}+{two}")],
        vec![format!("svc:{standby}+{one}")],
        vec![format!("svc:{active}+{standby}")],
        vec![LINKS[0].to_owned()],
        vec![LINKS[1].to_owned()],
    ]
}

fn one_of<T: Copy>(chance: &mut StdRng, choices: &[T]) -> T {
    choices[chance.random_range(0..choices.len())]
}

fn once(lab: &Lab, words: &[&str]) -> Result<Struck> {
    let fault = lab.fault(words)?;
    Ok(Struck {
        at_ns: fault.at_ns,
        mended_ns: fault.done_ns,
    })
}

fn span(lab: &Lab, strike: &[&str], for_ms: u64, mend: &[&str]) -> Result<Struck> {
    let at_ns = lab.fault(strike)?.at_ns;
    thread::sleep(Duration::from_millis(for_ms));
    let mended = lab.fault(mend)?;
    Ok(Struck {
        at_ns,
        mended_ns: mended.done_ns,
    })
}

fn cut(lab: &Lab, words: &[String], for_ms: u64) -> Result<Struck> {
    cut_all(lab, &[words.to_vec()], for_ms)
}

fn cut_all(lab: &Lab, cuts: &[Vec<String>], for_ms: u64) -> Result<Struck> {
    let change = |verb: &str, words: &[String]| {
        let words: Vec<&str> = [verb]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        lab.fault(&words)
    };
    let mut at_ns = u64::MAX;
    for words in cuts {
        at_ns = at_ns.min(change("cut", words)?.at_ns);
    }
    thread::sleep(Duration::from_millis(for_ms));
    let mut mended_ns = 0;
    for words in cuts.iter().rev() {
        mended_ns = change("heal", words)?.done_ns;
    }
    Ok(Struck { at_ns, mended_ns })
}

fn flap(lab: &Lab, link: &str, half_ms: u64, times: u32) -> Result<Struck> {
    let mut struck: Option<Struck> = None;
    for _ in 0..times {
        let one = cut(lab, &[link.to_owned()], half_ms)?;
        thread::sleep(Duration::from_millis(half_ms));
        let first = struck.get_or_insert(one);
        first.mended_ns = one.mended_ns;
    }
    match struck {
        Some(struck) => Ok(struck),
        None => bail!("a link that flaps no times"),
    }
}

fn switch_over(lab: &Lab, active: &str) -> Result<Struck> {
    let at_ns = clock::now_ns();
    // The session ends with the node's role, so only a refusal counts as an error.
    let reply = lab.shell(active, &["system switchover"])?;
    if reply.text.contains("Failed to switchover") {
        bail!("{active} refused the switchover: {}", reply.text.trim());
    }
    Ok(Struck {
        at_ns,
        mended_ns: at_ns,
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_seed_means_the_same_fault_again() {
        for seed in 0..50 {
            let draw = || Fault::draw(&mut StdRng::seed_from_u64(seed));
            assert_eq!(draw(), draw());
        }
    }

    #[test]
    fn most_faults_move_the_active() {
        let mut chance = StdRng::seed_from_u64(1);
        let moves = (0..1000)
            .map(|_| Fault::draw(&mut chance))
            .filter(|fault| fault.leader(300) == Leader::Moves)
            .count();
        assert!(moves > 400, "{moves} of 1000");
    }

    #[test]
    fn a_split_leaves_each_host_one_node() {
        let cuts: Vec<String> = split("sup-2").into_iter().flatten().collect();
        assert_eq!(
            cuts,
            [
                "svc:sup-2+host-2",
                "svc:sup-1+host-1",
                "svc:sup-2+sup-1",
                "ha0",
                "ha1"
            ]
        );
    }
}
