//! `show module`: the original's tables and widths. The table of MAC addresses is absent: a
//! module here has no address block of its own.

use std::fmt;

use model::ModuleNumber;
use serde::{Deserialize, Serialize};

/// The `Status` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleStatus {
    /// The active supervisor.
    Active,
    /// A stable standby.
    HaStandby,
    /// An attached VEM.
    Ok,
    /// Known, but not attached just now.
    Offline,
    /// None of these.
    Other,
    /// A supervisor that is still on its way.
    PoweredUp,
}

impl fmt::Display for ModuleStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::HaStandby => "ha-standby",
            Self::Ok => "ok",
            Self::Offline => "offline",
            Self::Other => "other",
            Self::PoweredUp => "powered-up",
        })
    }
}

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRow {
    /// Its number.
    pub module: ModuleNumber,
    /// Ports it protects; 0 for a supervisor.
    pub ports: u32,
    /// `Virtual Supervisor Module`, `Virtual Ethernet Module`.
    pub module_type: String,
    /// The product's name for it.
    pub model: String,
    /// Its status.
    pub status: ModuleStatus,
    /// Whether this session runs on it.
    pub this_terminal: bool,
    /// Its software version; `None` if it has not said.
    pub software: Option<String>,
    /// Address it is reached at.
    pub server_address: Option<String>,
    /// The host's identity.
    pub server_id: Option<String>,
    /// The host's name.
    pub server_name: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// In order of their numbers.
    pub modules: Vec<ModuleRow>,
}

impl Modules {
    /// The original's layout. Of a server's identity the column shows what fits; the whole
    /// is in the row.
    #[must_use]
    pub fn text(&self) -> String {
        let missing = || "NA".to_owned();
        let mut lines = vec![
            "Mod  Ports  Module-Type                         Model              Status".to_owned(),
            "---  -----  ----------------------------------- ------------------ ----------"
                .to_owned(),
        ];
        for row in &self.modules {
            let star = if row.this_terminal { " *" } else { "" };
            lines.push(format!(
                "{:<3}  {:<5}  {:<35} {:<18} {}{star}",
                row.module.0, row.ports, row.module_type, row.model, row.status
            ));
        }
        lines.push(String::new());
        lines.push("Mod  Sw".to_owned());
        lines.push("---  ------------------".to_owned());
        for row in &self.modules {
            let software = row.software.clone().unwrap_or_else(missing);
            lines.push(format!("{:<3}  {software}", row.module.0));
        }
        lines.push(String::new());
        lines.push(
            "Mod  Server-IP        Server-UUID                           Server-Name".to_owned(),
        );
        lines.push(
            "---  ---------------  ------------------------------------  --------------------"
                .to_owned(),
        );
        for row in &self.modules {
            lines.push(format!(
                "{:<3}  {:<15}  {:<36.36}  {}",
                row.module.0,
                row.server_address.clone().unwrap_or_else(missing),
                row.server_id.clone().unwrap_or_else(missing),
                row.server_name.clone().unwrap_or_else(missing),
            ));
        }
        lines.push(String::new());
        lines.push("* this terminal session".to_owned());
        lines.into_iter().map(|line| line + "\n").collect()
    }
}
