//! `show service-path connection`. The original's body is not known; the columns are ours.

use model::{Direction, FlowKey, ModuleNumber, Protocol, Verdict};
use serde::{Deserialize, Serialize};

/// One connection that the gateway decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// The module that carries it.
    pub module: ModuleNumber,
    /// Its port.
    pub port: String,
    /// Direction of its first packet.
    pub direction: Direction,
    /// Its addresses.
    pub flow: FlowKey,
    /// What was decided.
    pub verdict: Verdict,
    /// By which rule.
    pub rule: String,
    /// Seconds since the decision.
    pub age_s: u64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// In the order of module, port and addresses.
    pub connections: Vec<ConnectionRow>,
    /// How many there are, when not all are shown.
    pub total: u64,
    /// How many the table can hold.
    pub capacity: u64,
}

impl Connections {
    /// Own layout.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text =
            "Mod  Port          Proto  Source                 Destination            Dir      Action  Age(s)  Rule\n"
                .to_owned();
        text += "---  ------------  -----  ---------------------  ---------------------  -------  ------  ------  --------------------\n";
        for row in &self.connections {
            let flow = &row.flow;
            text += &format!(
                "{:<3}  {:<12}  {:<5}  {:<21}  {:<21}  {:<7}  {:<6}  {:>6}  {}\n",
                row.module.0,
                row.port,
                protocol_name(flow.protocol),
                format!("{}:{}", flow.src_ip, flow.src_port),
                format!("{}:{}", flow.dst_ip, flow.dst_port),
                row.direction.to_string(),
                verdict_name(row.verdict),
                row.age_s,
                row.rule,
            );
        }
        text += &format!(
            "\n{} of {} connections shown, room for {}\n",
            self.connections.len(),
            self.total,
            self.capacity
        );
        text
    }
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::ICMP => "icmp".into(),
        Protocol::TCP => "tcp".into(),
        Protocol::UDP => "udp".into(),
        Protocol(number) => number.to_string(),
    }
}

const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Permit => "permit",
        Verdict::Drop => "drop",
        Verdict::Reset => "reset",
    }
}
