//! What the tests know of the default topology and the sample policy.

/// The two nodes; the first is the primary.
pub const NODES: [&str; 2] = ["sup-1", "sup-2"];
/// How a node's status begins while it leads alone; `{role}` stands for its role.
#[must_use]
pub fn leads_alone(administrative: &str, operational: &str, slot: u8, mode: &str) -> String {
    let other = 3 - slot;
    format!(
        "\
Redundancy role
---------------
      administrative:   {administrative}
         operational:   {operational}

Redundancy mode
---------------
      administrative:   HA
         operational:   {mode}

This supervisor (sup-{slot})
-----------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with no standby

Other supervisor (sup-{other})
------------------------
    Redundancy state:   Not present
"
    )
}

/// The two hosts.
pub const HOSTS: [&str; 2] = ["host-1", "host-2"];
/// The VM that every measured connection comes from, and its host.
pub const CLIENT: &str = "client";
/// The host of [`CLIENT`].
pub const CLIENT_HOST: &str = "host-1";

/// The host of the VMs that new connections go to.
pub const SERVER_HOST: &str = "host-2";

/// The policy that permits the measured traffic and forbids one port.
pub const POLICY: &str = include_str!("../../docs/examples/policy.vsg");

/// The other node.
#[must_use]
pub fn other(node: &str) -> &'static str {
    if node == NODES[0] { NODES[1] } else { NODES[0] }
}
