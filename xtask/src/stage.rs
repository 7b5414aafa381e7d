//! The checks of `cargo xtask test`: what each runs, for how long at most, and how it is counted.

use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use crate::packages::{self, Need};
use crate::workspace::{PRODUCT, Workspace};

/// Seeds that the simulation runs as a check: enough to meet every kind of fault many times, few
/// enough for a few minutes.
const SIMULATION_SEEDS: &str = "2000";

/// One check. The order is the order in which they run: the cheap and telling ones first, and all
/// that share the dev profile before the one release build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The sources are formatted.
    Format,
    /// The linter has nothing to say.
    Lint,
    /// Unit and integration tests of every package, the dependency rules among them.
    Unit,
    /// The documentation builds, private items too.
    Document,
    /// The release binaries that the checks below run.
    Release,
    /// Two thousand seeds of the simulation.
    Simulation,
    /// The redundancy protocol as a model, to its fixpoint.
    Model,
    /// The product from outside: pairs in namespaces, real traffic, real faults.
    System,
}

/// How a check's result is turned into the counts of the closing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// The check is one test.
    One,
    /// The tests that the test harness reports.
    Harness,
}

impl Stage {
    /// What the progress line says.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Format => "format: cargo fmt --check",
            Self::Lint => "lint: cargo clippy, warnings are errors",
            Self::Unit => "unit: tests of every package, dependency rules",
            Self::Document => "document: cargo doc, warnings are errors",
            Self::Release => "release: build of the binaries",
            Self::Simulation => "simulation: 2,000 seeds on virtual time",
            Self::Model => "model: every order of a few faults, to the fixpoint",
            Self::System => "system: pairs in network namespaces",
        }
    }

    /// The name of its log file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Document => "document",
            Self::Release => "release",
            Self::Simulation => "simulation",
            Self::Model => "model",
            Self::System => "system",
        }
    }

    /// How it is counted.
    pub(crate) const fn counting(self) -> Counting {
        match self {
            Self::Format
            | Self::Lint
            | Self::Document
            | Self::Release
            | Self::Simulation
            | Self::Model => Counting::One,
            Self::Unit | Self::System => Counting::Harness,
        }
    }

    /// Longer than it ever takes on two slow cores from nothing; a check that hangs ends here.
    pub(crate) const fn limit(self) -> Duration {
        let minutes = match self {
            Self::Format => 2,
            Self::Lint | Self::Document | Self::Release | Self::Simulation | Self::Model => 15,
            Self::Unit | Self::System => 25,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Whether it makes namespaces and loads programs into the kernel.
    pub(crate) const fn needs_root(self) -> bool {
        matches!(self, Self::System)
    }

    /// Whether it runs what [`Self::Release`] builds.
    pub(crate) const fn needs_release(self) -> bool {
        matches!(self, Self::Simulation | Self::Model | Self::System)
    }

    /// What must be installed.
    pub(crate) const fn needs(self) -> &'static [Need] {
        match self {
            Self::Format => &[],
            Self::Lint | Self::Document | Self::Release | Self::Simulation | Self::Model => {
                packages::BUILD
            }
            Self::Unit | Self::System => packages::LAB,
        }
    }

    /// The command.
    pub(crate) fn command(self, workspace: &Workspace) -> Command {
        let words: &[&str] = match self {
            Self::Format => &["fmt", "--all", "--check", "--", "--color", "never"],
            Self::Lint => &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
            Self::Unit => &[
                "test",
                "--workspace",
                "--exclude",
                "system-tests",
                "--no-fail-fast",
            ],
            Self::Document => &[
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
                "--keep-going",
            ],
            Self::Release => &["build", "--release"],
            Self::Simulation => {
                let mut command = Command::new(workspace.release_folder().join("sim"));
                command.args(["--seeds", SIMULATION_SEEDS]);
                return command;
            }
            Self::Model => {
                return Command::new(workspace.release_folder().join("model-check"));
            }
            // One test at a time: each measures, and two labs at once would measure each other.
            Self::System => &[
                "test",
                "-p",
                "system-tests",
                "--no-fail-fast",
                "--",
                "--test-threads=1",
            ],
        };
        let mut command = workspace.cargo(words);
        match self {
            Self::Document => {
                // Whoever reads these pages reads the private ones too.
                let flags = "-D warnings -A rustdoc::private-intra-doc-links";
                command.env("RUSTDOCFLAGS", flags);
            }
            Self::Release => {
                for package in PRODUCT.iter().chain(&["model-check", "sim"]) {
                    command.args(["-p", package]);
                }
            }
            Self::System => {
                command.env("TWINWALL_BIN_DIR", workspace.release_folder());
                command.env("TWINWALL_LOG_DIR", workspace.logs().join("test"));
            }
            Self::Format | Self::Lint | Self::Unit | Self::Simulation | Self::Model => {}
        }
        command
    }
}
