//! One gateway of a pair. `vsgd --config FILE` is the guardian; it starts the System Manager,
//! which starts the services. All of them are this program, in another part.

mod configuration;
mod guardian;
mod node_record;
mod services;
mod system_manager;
mod verbs;
mod watchdog;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use model::{NodeKey, PairId, Role, ServiceName};

use configuration::Configuration;

/// Exit status for what an operator must mend: a bad configuration, a wrong invocation.
const EXIT_UNUSABLE: u8 = 2;
/// Environment variable by which the guardian tells a System Manager of the machine's watchdog:
/// `+` and its device, `-` and why it is not there; not set if none is configured.
const WATCHDOG: &str = "TWINWALL_WATCHDOG";
/// Environment variable by which the guardian tells a System Manager why the one before ended.
const RESET_REASON: &str = "TWINWALL_RESET_REASON";

/// Twinwall gateway.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    file: File,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/twinwall/vsgd.toml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the node's identity and its node file; prints the fingerprint.
    Init {
        #[command(flatten)]
        file: File,
        /// The node's role.
        #[arg(long, default_value = "standalone")]
        role: RoleWord,
        /// The number both nodes of a pair share, 1 to 4095.
        #[arg(long, value_name = "N", value_parser = pair_id)]
        pair_id: Option<PairId>,
        /// Make a new node of an existing one; its old identity and state are lost.
        #[arg(long)]
        force: bool,
    },
    /// Trust the other node or host agents, by the fingerprints they print.
    Pin {
        #[command(flatten)]
        file: File,
        /// Fingerprint of the other node.
        #[arg(long, value_name = "FINGERPRINT")]
        peer: Option<NodeKey>,
        /// Fingerprint of a host agent; may be repeated.
        #[arg(long = "vem", value_name = "FINGERPRINT")]
        vems: Vec<NodeKey>,
    },
    /// Print this node's fingerprint.
    Fingerprint {
        #[command(flatten)]
        file: File,
    },
    /// Started by the guardian.
    #[command(hide = true)]
    Sysmgr {
        #[command(flatten)]
        file: File,
    },
    /// Started by the System Manager.
    #[command(hide = true)]
    Service {
        /// Which.
        name: ServiceName,
        #[command(flatten)]
        file: File,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleWord {
    Standalone,
    Primary,
    Secondary,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Standalone => Self::Standalone,
            RoleWord::Primary => Self::Primary,
            RoleWord::Secondary => Self::Secondary,
        }
    }
}

fn pair_id(text: &str) -> Result<PairId, String> {
    let number: u16 = text
        .parse()
        .map_err(|_| "not a number from 1 to 4095".to_owned())?;
    PairId::try_from(number).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vsgd: {}", one_line(&error));
            let unusable = error.chain().any(is_unusable);
            ExitCode::from(if unusable { EXIT_UNUSABLE } else { 1 })
        }
    }
}

/// The error and its causes, each said once: many say their cause themselves.
fn one_line(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |line, cause| {
            if line.is_empty() {
                cause
            } else if line.contains(&cause) {
                line
            } else {
                format!("{line}: {cause}")
            }
        })
}

/// Whether an operator must mend something before another try can succeed.
fn is_unusable(cause: &(dyn std::error::Error + 'static)) -> bool {
    use runtime::identity::IdentityError;
    use runtime::node_file::NodeFileError;
    cause.is::<configuration::ConfigurationError>()
        || cause.is::<IdentityError>()
        || cause.is::<NodeFileError>()
        || cause.is::<runtime::heartbeat::StartError>()
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        None => {
            let configuration = Configuration::load(&arguments.file.config)?;
            configuration.require_identity(&arguments.file.config)?;
            guardian::run(&arguments.file.config, &configuration)
        }
        Some(Verb::Init {
            file,
            role,
            pair_id,
            force,
        }) => {
            verbs::init(
                &Configuration::load(&file.config)?,
                role.into(),
                pair_id,
                force,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Pin { file, peer, vems }) => {
            let configuration = Configuration::load(&file.config)?;
            configuration.require_identity(&file.config)?;
            verbs::pin(&configuration, peer, &vems)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Fingerprint { file }) => {
            let configuration = Configuration::load(&file.config)?;
            configuration.require_identity(&file.config)?;
            verbs::fingerprint(&configuration)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Sysmgr { file }) => {
            let configuration = Configuration::load(&file.config)?;
            show_as("sysmgr");
            system_manager::run(&file.config, &configuration)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Service { name, file }) => {
            let configuration = Configuration::load(&file.config)?;
            let settings = settings(&configuration)?;
            show_as(name.as_str());
            services::run(name, &settings)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The name in `ps` and in kernel messages; without it all parts would be called `exe`.
fn show_as(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // Only a display: nothing depends on it.
        let _ = rustix::thread::set_name(&name);
    }
}

/// What a service needs of the configuration and the node file.
fn settings(configuration: &Configuration) -> anyhow::Result<services::Settings> {
    use std::net::SocketAddr;
    let bulk_links = configuration.bulk.iter().flat_map(|bulk| {
        configuration.links.iter().map(|link| {
            let at = |address: SocketAddr| SocketAddr::new(address.ip(), bulk.port);
            services::BulkLink {
                name: link.name.clone(),
                local: at(link.local),
                peer: at(link.peer),
            }
        })
    });
    Ok(services::Settings {
        run_dir: configuration.run_dir.clone(),
        state_dir: configuration.state_dir.clone(),
        identity_file: configuration.identity_file(),
        service_listen: configuration.service.as_ref().map(|service| service.listen),
        bulk_links: bulk_links.collect(),
        hostname: configuration.hostname.clone(),
    })
}
