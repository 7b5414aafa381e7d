//! Golden texts: the layouts are an interface.

use model::{ConflictPolicy, Direction, FlowKey, ModuleNumber, Protocol, Role, Slot, Verdict};

use super::*;
use crate::Filter;

const ACTIVE: Supervisor = Supervisor {
    redundancy_state: RedundancyState::Active,
    supervisor_state: SupervisorState::Active,
    internal_state: InternalState::ActiveWithHaStandby,
};

const STANDBY: Supervisor = Supervisor {
    redundancy_state: RedundancyState::Standby,
    supervisor_state: SupervisorState::HaStandby,
    internal_state: InternalState::HaStandby,
};

fn paired() -> RedundancyStatus {
    RedundancyStatus {
        role_administrative: Role::Primary,
        role_operational: Role::Primary,
        mode_administrative: RedundancyMode::HA,
        mode_operational: RedundancyMode::HA,
        this_slot: Slot::Sup1,
        this: ACTIVE,
        other: OtherSupervisor::Present(STANDBY),
        conflict_policy: ConflictPolicy::PrimaryResets,
        boot_wait_s: None,
        notices: Vec::new(),
    }
}

const PAIRED: &str = "\
Redundancy role
---------------
      administrative:   primary
         operational:   primary

Redundancy mode
---------------
      administrative:   HA
         operational:   HA

This supervisor (sup-1)
-----------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with HA standby

Other supervisor (sup-2)
------------------------
    Redundancy state:   Standby
    Supervisor state:   HA standby
      Internal state:   HA standby
";

#[test]
fn a_redundant_pair_seen_from_the_active() {
    assert_eq!(paired().text(), PAIRED);
}

#[test]
fn a_redundant_pair_seen_from_the_standby() {
    let mut status = paired();
    status.role_administrative = Role::Secondary;
    status.role_operational = Role::Secondary;
    status.this_slot = Slot::Sup2;
    status.this = STANDBY;
    status.other = OtherSupervisor::Present(ACTIVE);
    let text = status.text();
    let this = "\
This supervisor (sup-2)
-----------------------
    Redundancy state:   Standby
    Supervisor state:   HA standby
      Internal state:   HA standby

Other supervisor (sup-1)
------------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with HA standby
";
    assert!(text.ends_with(this), "{text}");
}

#[test]
fn of_an_absent_supervisor_only_that_is_said() {
    let mut status = paired();
    status.role_administrative = Role::Standalone;
    status.role_operational = Role::Standalone;
    status.mode_operational = RedundancyMode::None;
    status.this.internal_state = InternalState::ActiveWithNoStandby;
    status.other = OtherSupervisor::NotPresent;
    assert_eq!(
        status.text(),
        "\
Redundancy role
---------------
      administrative:   standalone
         operational:   standalone

Redundancy mode
---------------
      administrative:   HA
         operational:   None

This supervisor (sup-1)
-----------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with no standby

Other supervisor (sup-2)
------------------------
    Redundancy state:   Not present
"
    );
}

#[test]
fn every_state_has_the_words_of_the_original() {
    use InternalState as I;
    let internal = [
        (I::ActiveWithFailedStandby, "Active with failed standby"),
        (I::ActiveWithHaStandby, "Active with HA standby"),
        (I::ActiveWithNoStandby, "Active with no standby"),
        (I::HaStandby, "HA standby"),
        (I::HaSwitchoverInProgress, "HA switchover in progress"),
        (
            I::HaSynchronizationInProgress,
            "HA synchronization in progress",
        ),
        (I::Offline, "Offline"),
        (I::Other, "Other"),
        (I::ShuttingDown, "Shutting down"),
        (I::StandbyFailed, "Standby (failed)"),
    ];
    for (state, words) in internal {
        let this = Supervisor {
            internal_state: state,
            ..ACTIVE
        };
        let text = RedundancyStatus { this, ..paired() }.text();
        assert!(
            text.contains(&format!("      Internal state:   {words}\n")),
            "{text}"
        );
    }
    use RedundancyState as R;
    let redundancy = [
        (R::Active, "Active"),
        (R::AtBios, "At BIOS"),
        (R::Failed, "Failed"),
        (R::Initializing, "Initializing"),
        (R::NotPresent, "Not present"),
        (R::Offline, "Offline"),
        (R::Standby, "Standby"),
        (R::Unknown, "Unknown"),
    ];
    for (state, words) in redundancy {
        let this = Supervisor {
            redundancy_state: state,
            ..ACTIVE
        };
        let text = RedundancyStatus { this, ..paired() }.text();
        assert!(
            text.contains(&format!("    Redundancy state:   {words}\n")),
            "{text}"
        );
    }
    use SupervisorState as S;
    let supervisor = [
        (S::Active, "Active"),
        (S::HaStandby, "HA standby"),
        (S::Offline, "Offline"),
        (S::Unknown, "Unknown"),
    ];
    for (state, words) in supervisor {
        let this = Supervisor {
            supervisor_state: state,
            ..ACTIVE
        };
        let text = RedundancyStatus { this, ..paired() }.text();
        assert!(
            text.contains(&format!("    Supervisor state:   {words}\n")),
            "{text}"
        );
    }
}

#[test]
fn a_notice_follows_the_layout() {
    let mut status = paired();
    status
        .notices
        .push("isolated: neither the peer nor any VEM is heard".to_owned());
    let notice = "\nNotice: isolated: neither the peer nor any VEM is heard\n";
    assert_eq!(status.text(), format!("{PAIRED}{notice}"));
}

#[test]
fn the_longer_status_has_its_empty_line_and_the_uptimes() {
    let report = RedundancyReport {
        status: paired(),
        uptime: Uptime {
            start_time: "Sat May 19 02:52:21 2018".to_owned(),
            system_s: 5 * 86_400 + 5 * 3_600 + 55 * 60 + 9,
            kernel_s: 5 * 86_400 + 5 * 3_600 + 58 * 60 + 34,
            active_supervisor_s: Some(9),
        },
    };
    let body = PAIRED.replace(
        "    Redundancy state:   Standby\n",
        "    Redundancy state:   Standby\n\n",
    );
    let uptimes = "
System start time:          Sat May 19 02:52:21 2018

System uptime:              5 days, 5 hours, 55 minutes, 9 seconds
Kernel uptime:              5 days, 5 hours, 58 minutes, 34 seconds
Active supervisor uptime:   0 days, 0 hours, 0 minutes, 9 seconds
Split-brain policy:         primary-resets
Wait when booting alone:    until the other is there
";
    assert_eq!(report.text(), format!("{body}{uptimes}"));
}

#[test]
fn modules_keep_the_widths_of_the_original() {
    let supervisor = |module, status, this_terminal| ModuleRow {
        module: ModuleNumber(module),
        ports: 0,
        module_type: "Virtual Supervisor Module".to_owned(),
        model: "Twinwall".to_owned(),
        status,
        this_terminal,
        software: Some("0.1.0".to_owned()),
        server_address: None,
        server_id: None,
        server_name: None,
    };
    let vem = ModuleRow {
        ports: 2,
        module_type: "Virtual Ethernet Module".to_owned(),
        server_address: Some("10.3.0.21".to_owned()),
        server_id: Some("SHA256:0123456789abcdefghijklmnopqrstuvwxyzABCDEFG".to_owned()),
        server_name: Some("host-1".to_owned()),
        software: None,
        ..supervisor(3, ModuleStatus::Ok, false)
    };
    let modules = Modules {
        modules: vec![
            supervisor(1, ModuleStatus::Active, true),
            supervisor(2, ModuleStatus::HaStandby, false),
            vem,
        ],
    };
    assert_eq!(
        modules.text(),
        "\
Mod  Ports  Module-Type                         Model              Status
---  -----  ----------------------------------- ------------------ ----------
1    0      Virtual Supervisor Module           Twinwall           active *
2    0      Virtual Supervisor Module           Twinwall           ha-standby
3    2      Virtual Ethernet Module             Twinwall           ok

Mod  Sw
---  ------------------
1    0.1.0
2    0.1.0
3    NA

Mod  Server-IP        Server-UUID                           Server-Name
---  ---------------  ------------------------------------  --------------------
1    NA               NA                                    NA
2    NA               NA                                    NA
3    10.3.0.21        SHA256:0123456789abcdefghijklmnopqrs  host-1

* this terminal session
"
    );
}

#[test]
fn processes_that_do_not_run_stand_at_the_end() {
    let row = |pid, state, program_counter, start_count, process: &str| ProcessRow {
        pid,
        state,
        program_counter,
        start_count,
        tty: None,
        process: process.to_owned(),
    };
    let processes = Processes {
        processes: vec![
            row(None, ProcessState::NR, None, 0, "inspect"),
            row(
                Some(2541),
                ProcessState::S,
                Some(0xb7ea_bbe4),
                2,
                "policy_engine",
            ),
            row(None, ProcessState::ER, None, 3, "aaa"),
            row(Some(1), ProcessState::R, None, 1, "vsgd"),
        ],
    };
    assert_eq!(
        processes.text(),
        "\
PID    State  PC        Start_cnt    TTY   Process
-----  -----  --------  -----------  ----  -------------
    1      R         0            1     -  vsgd
 2541      S  b7eabbe4            2     -  policy_engine
    -     ER         -            3     -  aaa
    -     NR         -            0     -  inspect
"
    );
}

#[test]
fn policy_statistics_line_up() {
    let rule = |rule: &str, hits, actions: &str| RuleStatsRow {
        rule: rule.to_owned(),
        hits,
        actions: actions.to_owned(),
    };
    let mut stats = PolicyStats {
        policies: vec![
            PolicyStatsRow {
                policy: "default@root".to_owned(),
                lookups: 0,
                rules: vec![
                    rule("default/default-rule@root", 0, "Drop"),
                    rule("NOT_APPLICABLE", 0, "Drop"),
                ],
            },
            PolicyStatsRow {
                policy: "web@root".to_owned(),
                lookups: 1,
                rules: vec![rule("pol/permit-all@root/T1", 1, "Log, Permit")],
            },
        ],
        log_suppressed: 0,
    };
    let expected = "\
Policy Match Stats:
default@root          :        0
   default/default-rule@root :        0 (Drop)
   NOT_APPLICABLE            :        0 (Drop)
web@root              :        1
   pol/permit-all@root/T1    :        1 (Log, Permit)
";
    assert_eq!(stats.text(), expected);
    stats.log_suppressed = 7;
    let more = "Lookup events suppressed by the rate limit: 7\n";
    assert_eq!(stats.text(), format!("{expected}{more}"));
}

#[test]
fn connections_show_who_decided_what() {
    let connections = Connections {
        connections: vec![ConnectionRow {
            module: ModuleNumber(3),
            port: "web".to_owned(),
            direction: Direction::Ingress,
            flow: FlowKey {
                src_ip: [10, 9, 0, 100].into(),
                dst_ip: [10, 9, 0, 11].into(),
                src_port: 38_321,
                dst_port: 80,
                protocol: Protocol::TCP,
            },
            verdict: Verdict::Permit,
            rule: "client-to-web@root".to_owned(),
            age_s: 12,
        }],
        total: 1,
        capacity: 262_144,
    };
    assert_eq!(
        connections.text(),
        "\
Mod  Port          Proto  Source                 Destination            Dir      Action  Age(s)  Rule
---  ------------  -----  ---------------------  ---------------------  -------  ------  ------  --------------------
3    web           tcp    10.9.0.100:38321       10.9.0.11:80           ingress  permit      12  client-to-web@root

1 of 1 connections shown, room for 262144
"
    );
}

#[test]
fn heartbeats_show_each_link() {
    let status = HeartbeatStatus {
        profile: "default".to_owned(),
        interval_ms: 100,
        misses: 3,
        peer_interval_ms: None,
        hold_time_ms: 300,
        awaits_confirmation: false,
        realtime_refused: Some("Operation not permitted".to_owned()),
        watchdog: "not configured".to_owned(),
        canaries: 17,
        links: vec![LinkHeartbeat {
            name: "control".to_owned(),
            heard: false,
            last_heard_ms: None,
            sent: 42,
            received: 0,
            lost: 0,
            refused: 1,
            round_trip_us: 180,
            round_trip_mean_us: 190,
            round_trip_p99_us: 400,
            jitter_us: 950,
            jitter_p99_us: 700,
        }],
    };
    assert_eq!(
        status.text(),
        "\
Redundancy heartbeat
--------------------
             Profile:   default
            Interval:   100 ms, 3 misses
       Peer interval:   -
              Change:   -
           Hold time:   300 ms
           Real-time:   refused: Operation not permitted
            Watchdog:   not configured
   Decision canaries:   17

                                  Round trip (us)          Jitter (us)
Link          State   Last heard      last     mean      p99      p99      max        Sent    Received      Lost  Loss %   Refused
------------  ------  ----------  -------  -------  -------  -------  -------  ----------  ----------  --------  ------  --------
control       silent       never      180      190      400      700      950          42           0         0    0.00         1
"
    );
}

#[test]
fn traffic_names_each_port_and_each_drop_that_occurred() {
    use model::{DropReason, PortKind, PortTraffic};
    let counted = [
        PortTraffic {
            port: PortKind::Heartbeat,
            link: "control".to_owned(),
            received: 7,
            sent: 8,
            drops: vec![(DropReason::Replayed, 2), (DropReason::Malformed, 1)],
        },
        PortTraffic {
            port: PortKind::Service,
            link: String::new(),
            received: 3,
            sent: 4,
            drops: Vec::new(),
        },
    ];
    let traffic = Traffic {
        ports: counted.iter().map(Into::into).collect(),
    };
    assert_eq!(
        traffic.text(),
        "\
Redundancy traffic
------------------
Port       Link            rx_frames     tx_frames      rx_drops
---------  ------------  ------------  ------------  ------------
heartbeat  control                  7             8             3
service    -                        3             4             0

Port heartbeat control:
  rx_drops_malformed:                    1
  rx_drops_replayed:                     2
"
    );
    let json = Answer::Traffic(traffic).json();
    assert!(json.contains("\"oversized\": 0"), "{json}");
}

#[test]
fn the_progress_bar_has_forty_hashes() {
    assert_eq!(
        Answer::Copied.text(),
        "[########################################] 100%\n"
    );
    assert_eq!(
        progress_bar(50),
        format!("[{}{}]  50%", "#".repeat(20), " ".repeat(20))
    );
}

#[test]
fn reload_asks_with_the_words_of_the_original_and_only_yes_is_yes() {
    assert_eq!(
        RELOAD_QUESTION,
        "This command will reboot the system. (y/n)?  [n] "
    );
    assert!(is_yes("y") && is_yes("Y\n") && is_yes("yes"));
    assert!(!is_yes("") && !is_yes("n") && !is_yes("yy"));
}

#[test]
fn json_is_the_same_value_and_pipes_filter_either() {
    let answer = Answer::SystemRedundancyStatus(paired());
    let json = answer.render(&[Filter::Json]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let this = &value["system_redundancy_status"]["this"];
    assert_eq!(this["internal_state"], "ActiveWithHaStandby");
    let back: Answer = serde_json::from_str(&json).expect("it reads back");
    assert_eq!(back, answer);
    let lines = answer.render(&[Filter::Include("state:".to_owned()), Filter::Count]);
    assert_eq!(lines, "6\n");
    let begin = answer.render(&[Filter::Begin("Other".to_owned()), Filter::NoMore]);
    assert!(begin.starts_with("Other supervisor (sup-2)\n"));
    let without = answer.render(&[Filter::Exclude("Redundancy".to_owned())]);
    assert!(!without.contains("Redundancy") && without.contains("Internal state"));
}

#[test]
fn conflicts_say_what_was_lost_and_where_to_look() {
    let none = Conflicts {
        conflicts: Vec::new(),
    };
    assert_eq!(none.text(), "No conflict is archived.\n");
    let conflicts = Conflicts {
        conflicts: vec![Conflict {
            number: Some(3),
            when: "Sat May 19 02:52:21 2018".to_owned(),
            node: Slot::Sup2,
            epoch: "4.ab".to_owned(),
            lsn: 120,
            prevailed: "5.cd".to_owned(),
            reason: "both were active".to_owned(),
            commits: Some(2),
            lines_lost: 4,
            lines_gained: 1,
            counts: vec![ConflictCount {
                service: "cfgmgr".to_owned(),
                records: 3,
                archived: true,
            }],
            left_out: 0,
        }],
    };
    assert_eq!(
        conflicts.text(),
        "\
Conflict 3
----------
            Archived:   Sat May 19 02:52:21 2018
                Node:   sup-2
         Last commit:   120 of epoch 4.ab
    Prevailing epoch:   5.cd
              Reason:   both were active
        Commits lost:   2
       Configuration:   4 lines only in the archive, 1 only in running-config
               State:   3 records of cfgmgr (archived)
"
    );
}

#[test]
fn a_pairing_code_says_what_to_do_with_it() {
    use super::{PairingCode, PairingPurpose};
    let at = |port: u16| core::net::SocketAddr::from(([10, 1, 0, 1], port));
    let mut code = PairingCode {
        code: "7KM-3QX-P9D".to_owned(),
        purpose: PairingPurpose::Supervisor,
        valid_s: 600,
        tries: 3,
        addresses: vec![at(7199), at(7000)],
        usual_port: 7199,
    };
    assert_eq!(
        code.text(),
        "Code: 7KM-3QX-P9D   (valid for 10 minutes or 3 failures)\n\
         On the other supervisor, one of:\n  \
         redundancy join 10.1.0.1 7KM-3QX-P9D\n  \
         redundancy join 10.1.0.1 7KM-3QX-P9D port 7000\n"
    );
    code.purpose = PairingPurpose::HostAgent;
    let text = code.text();
    assert!(
        text.contains("  vemd enroll --node 10.1.0.1:7000 7KM-3QX-P9D\n"),
        "{text}"
    );
    assert!(
        !format!("{code:?}").contains("7KM"),
        "not in a log by chance"
    );
}

#[test]
fn an_identity_shows_who_is_trusted_and_who_is_here_besides() {
    use super::{CodeState, FoundNode, IdentityReport, PairingPurpose, PeerIdentity};
    let report = IdentityReport {
        fingerprint: "SHA256:aa".to_owned(),
        node_key: "SHA256:11".to_owned(),
        peer: Some(PeerIdentity {
            fingerprint: "SHA256:bb".to_owned(),
            next: Some("SHA256:cc".to_owned()),
            since: None,
            connected: true,
        }),
        code: Some(CodeState {
            purpose: PairingPurpose::HostAgent,
            left_s: 599,
            tries: 2,
        }),
        found_not_paired: vec![FoundNode {
            fingerprint: "SHA256:dd".to_owned(),
            address: "10.1.0.9".to_owned(),
            count: 12,
            first_seen_s: 70,
            last_seen_s: 1,
        }],
        vems: vec!["SHA256:ee".to_owned()],
    };
    let text = report.text();
    for line in [
        "         Fingerprint:   SHA256:aa\n",
        "            Node key:   SHA256:11\n",
        "      Changes it to:   SHA256:cc\n",
        "        Paired since:   (by hand)\n",
        "valid for a host agent, 599 s and 2 failures left\n",
        "SHA256:dd\n    at 10.1.0.9, 12 times, first 70 s and last 1 s ago\n",
        "SHA256:ee\n",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}
