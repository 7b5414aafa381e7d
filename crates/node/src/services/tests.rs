//! The services of a pair joined by a broker in memory: what a change, a restart and a takeover
//! do, as seen from outside.

mod conflicts;
mod failover;
mod pair;

use core::time::Duration;

use model::{ModuleNumber, ServiceName, Verdict};
use wire::checkpoint::Acknowledgement;
use wire::console::{FromShell, ToShell};
use wire::service::{FromCfgmgr, FromPolicyEngine, ToCfgmgr, ToPolicyEngine};
use wire::supervision::Activity;
use wire::vem::{FlowEvent, FlowReport, FromVem, ToVem};

use pair::{Pair, epoch, flow_to, port_80, question};

const ALLOW_80: &[&str] = &[
    "rule allow-http",
    "condition 1 dst.net.port eq 80",
    "action 10 permit",
    "policy web",
    "rule allow-http order 10",
    "security-profile web",
    "policy web",
];

fn apply(pair: &mut Pair, node: usize, lines: &[&str]) -> FromCfgmgr {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    let user = "admin".to_owned();
    pair.ask(node, ServiceName::Cfgmgr, &ToCfgmgr::Apply { lines, user })
}

fn running(pair: &mut Pair, node: usize) -> String {
    match pair.ask(node, ServiceName::Cfgmgr, &ToCfgmgr::Running) {
        FromCfgmgr::Text(text) => text,
        other => panic!("no text: {other:?}"),
    }
}

fn verdict(pair: &mut Pair, node: usize, port: u16) -> Option<Verdict> {
    let answer = pair.vem(node, question(port));
    answer.iter().find_map(|message| match message {
        ToVem::Decided { decisions, .. } => decisions.first().map(|decision| decision.verdict),
        _ => None,
    })
}

/// A pair whose first node leads and whose second follows, with one VEM on both.
fn led() -> Pair {
    let mut pair = Pair::new();
    pair.posture(0, Activity::Active(epoch(1)), true);
    pair.posture(1, Activity::Standby, false);
    pair.settle();
    pair.connect_vem(0);
    pair.connect_vem(1);
    pair.settle();
    pair
}

#[test]
fn a_committed_change_changes_the_decision_and_reaches_the_standby() {
    let mut pair = led();
    assert_eq!(
        verdict(&mut pair, 0, 80),
        Some(Verdict::Drop),
        "what no rule permits is dropped"
    );
    let committed = apply(&mut pair, 0, ALLOW_80);
    let reached = Acknowledgement::Replicated;
    assert_eq!(committed, FromCfgmgr::Committed { reached });
    let told = pair.take_vem(0);
    assert!(
        told.iter().any(|m| matches!(m, ToVem::Generation { .. })),
        "{told:?}"
    );
    assert_eq!(verdict(&mut pair, 0, 80), Some(Verdict::Permit));
    assert_eq!(verdict(&mut pair, 0, 81), Some(Verdict::Drop));
    let text = running(&mut pair, 0);
    assert_eq!(running(&mut pair, 1), text);
    let refused = apply(&mut pair, 1, ALLOW_80);
    assert!(
        matches!(refused, FromCfgmgr::Refused { .. }),
        "the standby is not configured"
    );
    assert_eq!(verdict(&mut pair, 1, 80), None, "nor does it decide");
}

#[test]
fn a_session_with_a_wrong_line_changes_nothing() {
    let mut pair = led();
    let before = running(&mut pair, 0);
    let refused = apply(
        &mut pair,
        0,
        &["zone a", "rule r", "condition 1 src.zone.name eq b"],
    );
    let FromCfgmgr::Refused {
        line,
        column,
        message,
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!((line, column), (2, 29), "{message}");
    assert_eq!(running(&mut pair, 0), before);
}

#[test]
fn a_restart_of_any_borrowed_service_loses_nothing() {
    let mut pair = led();
    apply(&mut pair, 0, ALLOW_80);
    let text = running(&mut pair, 0);
    for service in [
        ServiceName::Cfgmgr,
        ServiceName::Pss,
        ServiceName::Mts,
        ServiceName::Vshd,
    ] {
        pair.restart(0, service);
        pair.settle();
        assert_eq!(running(&mut pair, 0), text, "after a restart of {service}");
        assert_eq!(
            verdict(&mut pair, 0, 80),
            Some(Verdict::Permit),
            "after {service}"
        );
    }
    let committed = apply(&mut pair, 0, &["hostname gate"]);
    assert!(
        matches!(committed, FromCfgmgr::Committed { .. }),
        "{committed:?}"
    );
    assert!(running(&mut pair, 1).contains("hostname gate"));
    pair.restart(0, ServiceName::VemMgr);
    pair.connect_vem(0);
    pair.settle();
    let told = pair.take_vem(0);
    assert!(
        told.contains(&ToVem::Welcome {
            module: ModuleNumber(3)
        }),
        "the same number"
    );
    assert_eq!(verdict(&mut pair, 0, 80), Some(Verdict::Permit));
}

#[test]
fn a_takeover_finds_policy_and_connections_hot() {
    let mut pair = led();
    apply(&mut pair, 0, ALLOW_80);
    assert_eq!(verdict(&mut pair, 0, 80), Some(Verdict::Permit));
    pair.advance(Duration::from_millis(50));
    pair.take_vem(1);
    pair.cut();
    pair.posture(0, Activity::Idle, false);
    pair.posture(1, Activity::Active(epoch(2)), false);
    pair.run();
    let told = pair.take_vem(1);
    let claimed = told
        .iter()
        .any(|m| matches!(m, ToVem::Claim { epoch: e, .. } if *e == epoch(2)));
    assert!(claimed, "{told:?}");
    let FromPolicyEngine::Connections { connections, .. } =
        pair.ask(1, ServiceName::PolicyEngine, &ToPolicyEngine::Connections)
    else {
        panic!("connections")
    };
    assert_eq!(connections.len(), 1);
    assert_eq!(
        (connections[0].flow, connections[0].module),
        (flow_to(80), ModuleNumber(3))
    );
    assert_eq!(verdict(&mut pair, 1, 80), Some(Verdict::Permit));
    let committed = apply(&mut pair, 1, &["hostname gate"]);
    let reached = Acknowledgement::Local;
    assert_eq!(committed, FromCfgmgr::Committed { reached });
}

#[test]
fn a_closed_connection_is_gone_on_both_nodes_and_does_not_return() {
    let mut pair = led();
    apply(&mut pair, 0, ALLOW_80);
    verdict(&mut pair, 0, 80);
    pair.advance(Duration::from_millis(50));
    let report = FlowReport {
        port: port_80(),
        flow: flow_to(80),
        event: FlowEvent::Closed,
        packets: 9,
        bytes: 900,
    };
    pair.vem(
        0,
        FromVem::Report {
            flows: vec![report],
            lost: 0,
        },
    );
    pair.advance(Duration::from_millis(50));
    for service in [ServiceName::Pss, ServiceName::PolicyEngine] {
        pair.restart(0, service);
        pair.settle();
    }
    for node in 0..2 {
        let FromPolicyEngine::Connections { total, .. } = pair.ask(
            node,
            ServiceName::PolicyEngine,
            &ToPolicyEngine::Connections,
        ) else {
            panic!("connections")
        };
        assert_eq!(total, 0, "node {node}");
    }
}

#[test]
fn a_switchover_drains_every_service() {
    let mut pair = led();
    apply(&mut pair, 0, ALLOW_80);
    verdict(&mut pair, 0, 80);
    pair.take_vem(0);
    pair.posture(0, Activity::Quiesce(epoch(1)), true);
    pair.run();
    pair.advance(Duration::from_millis(5));
    assert_eq!(pair.unapplied(0), Vec::<ServiceName>::new());
    assert!(
        pair.take_vem(0)
            .contains(&ToVem::Release { epoch: epoch(1) })
    );
    assert_eq!(verdict(&mut pair, 0, 80), None);
}

fn shell(pair: &mut Pair, node: usize, line: &str) -> (String, bool, String) {
    seen(pair.shell(node, FromShell::Line(line.to_owned())))
}

fn seen(outputs: Vec<ToShell>) -> (String, bool, String) {
    let mut text = String::new();
    for output in outputs {
        match output {
            ToShell::Output(part) | ToShell::Question(part) => text += &part,
            ToShell::Prompt { prompt, failed } => return (text, failed, prompt),
            ToShell::Completions(_)
            | ToShell::Console(_)
            | ToShell::NewPrompt(_)
            | ToShell::Bye => {}
        }
    }
    (text, false, String::new())
}

#[test]
fn an_operator_configures_saves_and_sees_it() {
    let mut pair = led();
    pair.open_shell(0);
    assert_eq!(
        shell(&mut pair, 0, "configure"),
        (String::new(), false, "vsg(config)# ".into())
    );
    assert_eq!(shell(&mut pair, 0, "zone web").2, "vsg(config-zone)# ");
    let condition = "condition 1 net.ip-address eq 10.9.0.0 255.255.255.0";
    assert!(!shell(&mut pair, 0, condition).1);
    assert_eq!(shell(&mut pair, 0, "hostname gate").2, "gate(config)# ");
    let (text, failed, prompt) = shell(&mut pair, 0, "rule r");
    assert_eq!(
        (text.as_str(), failed, prompt.as_str()),
        ("", false, "gate(config-rule)# ")
    );
    let wrong = "condition 1 src.zone.name eq nowhere";
    let (text, failed, _) = shell(&mut pair, 0, wrong);
    assert!(failed);
    let caret = text.lines().next().and_then(|line| line.find('^'));
    assert_eq!(
        caret,
        Some("gate(config-rule)# ".len() + wrong.find("nowhere").unwrap_or(0))
    );
    assert!(
        text.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("% ")),
        "{text}"
    );
    assert_eq!(shell(&mut pair, 0, "end").2, "gate# ");
    let (diff, ..) = shell(&mut pair, 0, "show running-config diff");
    assert!(
        diff.contains("*** Startup-config") && diff.contains("+ zone web@root"),
        "{diff}"
    );
    let (saved, ..) = shell(&mut pair, 0, "copy running-config startup-config");
    assert!(saved.contains("100%"), "{saved}");
    assert_eq!(shell(&mut pair, 0, "show running-config diff").0, "");
    let (text, ..) = shell(&mut pair, 0, "show module");
    assert!(text.contains("Virtual Ethernet Module"), "{text}");
    pair.open_shell(1);
    let (_, failed, prompt) = shell(&mut pair, 1, "configure");
    assert!(failed && prompt == "gate(standby)# ", "{prompt}");
}

#[test]
fn a_node_of_a_pair_says_what_only_it_has() {
    const NOTICE: &str = "Committed on this node only (local)";
    let mut pair = led();
    pair.open_shell(0);
    assert_eq!(shell(&mut pair, 0, "configure").0, "");
    assert_eq!(shell(&mut pair, 0, "hostname both").0, "");
    let copy = "copy running-config startup-config";
    assert!(!shell(&mut pair, 0, copy).0.contains(NOTICE));
    // The other node has taken over, and is alone.
    pair.cut();
    pair.posture(1, Activity::Active(epoch(2)), false);
    pair.settle();
    pair.open_shell(1);
    shell(&mut pair, 1, "configure");
    let (text, failed, _) = shell(&mut pair, 1, "hostname one");
    assert!(!failed && text.contains(NOTICE), "{text}");
    let (text, failed, _) = shell(&mut pair, 1, copy);
    assert!(
        !failed && text.contains("100%") && text.contains(NOTICE),
        "{text}"
    );
    // A node that has never had another.
    pair.standalone = true;
    assert_eq!(shell(&mut pair, 1, "hostname single").0, "");
    let (text, ..) = shell(&mut pair, 1, copy);
    assert!(text.contains("100%") && !text.contains(NOTICE), "{text}");
}

#[test]
fn what_the_system_manager_notes_of_a_pair_id_is_shown() {
    let mut pair = led();
    pair.open_shell(0);
    shell(&mut pair, 0, "configure");
    let (text, failed, _) = shell(&mut pair, 0, "ha-pair id 77");
    assert_eq!(
        (text.as_str(), failed),
        ("The other one has another.\n", false)
    );
}

#[test]
fn force_active_warns_and_answers_when_the_node_is_active() {
    const COMMAND: &str = "system redundancy force-active";
    let mut pair = led();
    pair.open_shell(0);
    let (text, failed, _) = shell(&mut pair, 0, COMMAND);
    assert!(failed && text == "not here\n", "{text}");
    pair.cut();
    pair.open_shell(1);
    let (text, failed, prompt) = shell(&mut pair, 1, COMMAND);
    assert!(
        failed && text.contains("this supervisor is not active"),
        "{text}"
    );
    assert_eq!(prompt, "vsg(standby)# ");
    pair.enter(1, FromShell::Line(COMMAND.to_owned()));
    pair.posture(1, Activity::Active(epoch(2)), false);
    let (text, failed, prompt) = seen(pair.shell_answer(1));
    assert!(
        !failed && text.contains("may lack the newest state"),
        "{text}"
    );
    assert_eq!((text.lines().count(), prompt.as_str()), (1, "vsg# "));
}

#[test]
fn a_reload_asks_first_and_warns_of_what_is_not_saved() {
    let mut pair = led();
    apply(&mut pair, 0, &["hostname gate"]);
    pair.open_shell(0);
    let (text, ..) = shell(&mut pair, 0, "reload");
    assert!(
        text.contains("unsaved configuration") && text.ends_with("[n] "),
        "{text}"
    );
    assert!(!shell(&mut pair, 0, "").1);
    assert_eq!(pair.reloads, 0);
    shell(&mut pair, 0, "reload");
    shell(&mut pair, 0, "y");
    assert_eq!(pair.reloads, 1);
}

#[test]
fn a_module_is_restarted_from_the_actives_console_after_a_question() {
    let mut pair = led();
    pair.open_shell(0);
    pair.take_vem(0);
    let (text, failed, _) = shell(&mut pair, 0, "reload module 1");
    assert!(failed && text.contains("is this supervisor"), "{text}");
    let (text, failed, _) = shell(&mut pair, 0, "reload module 9");
    assert!(
        failed && text.contains("% Module 9 is not present"),
        "{text}"
    );
    let (text, ..) = shell(&mut pair, 0, "reload module 2");
    assert_eq!(
        text,
        "This command will reboot standby supervisor module. (y/n)?  [n] "
    );
    shell(&mut pair, 0, "n");
    assert_eq!(pair.reloads, 0);
    shell(&mut pair, 0, "reload module 2");
    let (text, failed, _) = shell(&mut pair, 0, "y");
    assert_eq!(
        (text.as_str(), failed),
        ("about to reset standby sup\n", false)
    );
    assert_eq!(pair.reloads, 1);
    let (text, ..) = shell(&mut pair, 0, "reload module 3");
    assert_eq!(
        text,
        "This command will reload module 3. Proceed[y/n]?  [n] "
    );
    let (text, failed, _) = shell(&mut pair, 0, "y");
    assert!(
        failed && text.contains("Module 3 is offline"),
        "not claimed yet: {text}"
    );
    pair.vem(0, FromVem::ClaimAccepted { epoch: epoch(1) });
    shell(&mut pair, 0, "reload module 3");
    let (text, failed, _) = shell(&mut pair, 0, "y");
    assert_eq!((text.as_str(), failed), ("reloading module 3 ...\n", false));
    assert!(
        pair.take_vem(0)
            .contains(&ToVem::Restart { epoch: epoch(1) })
    );
}

#[test]
fn a_dead_service_is_named_and_the_shell_goes_on() {
    let mut pair = led();
    pair.open_shell(0);
    pair.kill(0, ServiceName::PolicyEngine);
    let (text, failed, _) = shell(&mut pair, 0, "show policy-engine stats");
    assert!(failed && text.contains("policy_engine"), "{text}");
    let (text, failed, _) = shell(&mut pair, 0, "show system redundancy status");
    assert!(
        !failed && text.contains("This supervisor (sup-1)"),
        "{text}"
    );
}

#[test]
fn a_session_on_the_other_supervisor_is_carried_and_comes_back() {
    let mut pair = led();
    pair.open_shell(0);
    let (text, failed, prompt) = shell(&mut pair, 0, "attach module 2");
    assert!(text.starts_with("Attaching to module 2 ..."), "{text}");
    assert_eq!((failed, prompt.as_str()), (false, "vsg(standby)# "));
    let (text, ..) = shell(&mut pair, 0, "show system redundancy status");
    assert!(text.contains("This supervisor (sup-2)"), "{text}");
    let (text, failed, _) = shell(&mut pair, 0, "configure");
    assert!(
        failed && text.contains("% Invalid command at '^' marker."),
        "{text}"
    );
    assert_eq!(shell(&mut pair, 0, "exit").2, "vsg# ");
    for wrong in ["attach module 1", "attach module 3"] {
        let (text, failed, _) = shell(&mut pair, 0, wrong);
        assert!(failed && text.contains("% "), "{wrong}: {text}");
    }
    shell(&mut pair, 0, "attach module 2");
    assert_eq!(shell(&mut pair, 0, "$.").2, "vsg# ");
    shell(&mut pair, 0, "attach module 2");
    pair.restart(1, ServiceName::Vshd);
    assert_eq!(
        shell(&mut pair, 0, "show version").2,
        "vsg# ",
        "its end is told"
    );
    shell(&mut pair, 0, "attach module 2");
    pair.cut();
    let (text, ..) = shell(&mut pair, 0, "show version");
    assert!(text.contains("% The other supervisor is gone"), "{text}");
}

#[test]
fn a_change_asked_for_twice_under_one_number_is_made_once() {
    let mut pair = led();
    let lines = |line: &str| ToCfgmgr::Apply {
        lines: vec![line.to_owned()],
        user: "a".to_owned(),
    };
    apply(&mut pair, 0, &["zone twice"]);
    let number = pair.number();
    for _ in 0..2 {
        let answer: FromCfgmgr =
            pair.ask_numbered(0, ServiceName::Cfgmgr, &lines("no zone twice"), number);
        assert!(matches!(answer, FromCfgmgr::Committed { .. }), "{answer:?}");
    }
    let again: FromCfgmgr = pair.ask(0, ServiceName::Cfgmgr, &lines("no zone twice"));
    assert!(matches!(again, FromCfgmgr::Refused { .. }), "{again:?}");
}
