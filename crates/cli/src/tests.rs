use model::{
    Action, Attribute, Condition, Field, MatchCriteria, ModuleNumber, ObjectName, PairId, Role,
    Side, Test, Value,
};
use proptest::prelude::*;

use crate::parse::{complete, help, render_help};
use crate::tree::{Grammar, Node, Token};
use crate::*;

fn exec(line: &str) -> Result<Invocation, ParseError> {
    parse(&Grammar::new(), line, &Mode::Exec, Standing::Active)
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("a plain name")
}

fn in_mode(mode: &Mode, line: &str) -> Result<Command, ParseErrorKind> {
    parse(&Grammar::new(), line, mode, Standing::Active)
        .map(|invocation| invocation.command)
        .map_err(|error| error.kind)
}

#[test]
fn commands_of_exec_mode() {
    let show = |show| Command::Show(show);
    let join = |port, code: &str| {
        Command::Pairing(PairingCommand::Join {
            address: (core::net::Ipv4Addr::new(10, 1, 0, 1), port),
            code: TypedCode(code.to_owned()),
        })
    };
    let rotate = |force| Command::Pairing(PairingCommand::RotateIdentity { force });
    let cases = [
        ("", Command::Empty),
        ("   ", Command::Empty),
        ("! note", Command::Empty),
        (
            "show system redundancy status",
            show(Show::SystemRedundancyStatus),
        ),
        ("sh sys red st", show(Show::SystemRedundancyStatus)),
        ("show redundancy status", show(Show::RedundancyStatus)),
        ("show redundancy heartbeat", show(Show::RedundancyHeartbeat)),
        ("show redundancy traffic", show(Show::RedundancyTraffic)),
        ("clear redundancy traffic", Command::ClearTraffic),
        ("show redundancy identity", show(Show::RedundancyIdentity)),
        ("redundancy pair", Command::Pairing(PairingCommand::Pair)),
        (
            "redundancy join 10.1.0.1 7KM-3QX-P9D",
            join(None, "7KM-3QX-P9D"),
        ),
        (
            "redun join 10.1.0.1 7km3qxp9d port 7000",
            join(Some(7000), "7km3qxp9d"),
        ),
        (
            "redundancy unpair",
            Command::Pairing(PairingCommand::Unpair),
        ),
        ("redundancy identity rotate", rotate(false)),
        ("redundancy identity rotate force", rotate(true)),
        ("vem enroll", Command::Pairing(PairingCommand::EnrollVem)),
        (
            "vem remove 3",
            Command::Pairing(PairingCommand::RemoveVem(ModuleNumber(3))),
        ),
        ("show running-config", show(Show::RunningConfig)),
        ("show run diff", show(Show::RunningConfigDiff)),
        ("show startup-config", show(Show::StartupConfig)),
        ("show module", show(Show::Module)),
        ("show processes", show(Show::Processes)),
        ("show logging", show(Show::Logging { last: None })),
        (
            "show logging last 20",
            show(Show::Logging { last: Some(20) }),
        ),
        ("show policy-engine stats", show(Show::PolicyEngineStats)),
        (
            "show service-path connection",
            show(Show::ServicePathConnection),
        ),
        ("show system uptime", show(Show::SystemUptime)),
        ("show version", show(Show::Version)),
        (
            "system redundancy split-brain newest-config",
            Command::SetConflictPolicy(model::ConflictPolicy::NewestConfig),
        ),
        (
            "system redundancy boot-wait 60",
            Command::SetBootWait(Some(60)),
        ),
        ("sys red boot never", Command::SetBootWait(None)),
        (
            "sys red split most",
            Command::SetConflictPolicy(model::ConflictPolicy::MostVems),
        ),
        (
            "system redundancy role primary",
            Command::SetRole(Role::Primary),
        ),
        (
            "system redundancy role secondary",
            Command::SetRole(Role::Secondary),
        ),
        (
            "system redundancy role sta",
            Command::SetRole(Role::Standalone),
        ),
        ("system redundancy force-active", Command::ForceActive),
        (
            "system redundancy heartbeat fast",
            Command::SetHeartbeat(HeartbeatSetting::Fast),
        ),
        (
            "system redundancy heartbeat default",
            Command::SetHeartbeat(HeartbeatSetting::Default),
        ),
        (
            "system redundancy heartbeat vm-safe",
            Command::SetHeartbeat(HeartbeatSetting::VmSafe),
        ),
        (
            "system redundancy heartbeat interval 50 misses 4",
            Command::SetHeartbeat(HeartbeatSetting::Explicit {
                interval_ms: 50,
                misses: 4,
            }),
        ),
        ("system switchover", Command::Switchover),
        ("configure", Command::Configure),
        ("conf t", Command::Configure),
        (
            "copy running-config startup-config",
            Command::CopyRunningToStartup,
        ),
        ("copy run st", Command::CopyRunningToStartup),
        ("reload", Command::Reload),
        ("reload module 2", Command::ReloadModule(ModuleNumber(2))),
        (
            "show redundancy conflicts",
            Command::Show(Show::RedundancyConflicts),
        ),
        ("show red con 3", Command::Show(Show::RedundancyConflict(3))),
        (
            "show redundancy conflicts 3 diff",
            Command::Show(Show::RedundancyConflictDiff(3)),
        ),
        ("clear redundancy conflicts 3", Command::ClearConflict(3)),
        ("attach module 2", Command::AttachModule(ModuleNumber(2))),
        ("exit", Command::Exit),
        ("end", Command::End),
    ];
    for (line, command) in cases {
        let parsed = exec(line).map(|invocation| invocation.command);
        assert_eq!(parsed, Ok(command), "{line}");
    }
}

#[test]
fn errors_point_at_the_word() {
    let range = |min, max| ParseErrorKind::Range { min, max };
    let cases = [
        ("bogus", 0, ParseErrorKind::Invalid),
        ("  bogus", 2, ParseErrorKind::Invalid),
        ("show bogus", 5, ParseErrorKind::Invalid),
        ("show version now", 13, ParseErrorKind::Invalid),
        (
            "system redundancy role tertiary",
            23,
            ParseErrorKind::Invalid,
        ),
        ("show", 5, ParseErrorKind::Incomplete),
        ("show system", 12, ParseErrorKind::Incomplete),
        ("system redundancy role", 23, ParseErrorKind::Incomplete),
        ("co", 0, ParseErrorKind::Ambiguous),
        ("show s", 5, ParseErrorKind::Ambiguous),
        ("show logging last 0", 18, range(1, 10_000)),
        ("show logging last 99999999999", 18, range(1, 10_000)),
        ("show logging last ten", 18, ParseErrorKind::Invalid),
        ("| count", 0, ParseErrorKind::Invalid),
        ("show version | bogus", 15, ParseErrorKind::Invalid),
        ("show version | include", 23, ParseErrorKind::Incomplete),
        ("show version |", 15, ParseErrorKind::Incomplete),
        ("show version | count 3", 21, ParseErrorKind::Invalid),
        ("zone web", 0, ParseErrorKind::Invalid),
    ];
    for (line, column, kind) in cases {
        let error = exec(line).expect_err(line);
        assert_eq!((error.column, &error.kind), (column, &kind), "{line}");
    }
}

#[test]
fn an_error_is_rendered_under_the_prompt() {
    let error = exec("show bogus").expect_err("no such word");
    assert_eq!(
        error.render("vsg# ".len()),
        "          ^\n% Invalid command at '^' marker.\n"
    );
    let line = "ha-pair id 4096";
    let error = parse(&Grammar::new(), line, &Mode::Config, Standing::Active).expect_err(line);
    assert_eq!(
        error.render("vsg(config)# ".len()),
        "                        ^\n% Invalid number, range is (1:4095) at '^' marker.\n"
    );
    let error = exec(&"x".repeat(parse::LINE_MAX_BYTES + 1)).expect_err("too long");
    assert_eq!(error.render(5), "% Command too long\n");
}

#[test]
fn pipes_are_typed() {
    let parsed = exec("show logging | inc POLICY_ENGINE drop | exclude x | count").expect("valid");
    assert_eq!(
        parsed.filters,
        [
            Filter::Include("POLICY_ENGINE drop".to_owned()),
            Filter::Exclude("x".to_owned()),
            Filter::Count
        ]
    );
    let parsed = exec("show version | json | begin x | no-more").expect("valid");
    let begin = Filter::Begin("x".to_owned());
    assert_eq!(parsed.filters, [Filter::Json, begin, Filter::NoMore]);
    // JSON is how the answer is rendered: it cannot come after text filters.
    assert!(exec("show version | count | json").is_err());
    let many = format!("show version {}", "| count ".repeat(pipe::FILTERS_MAX + 1));
    assert!(exec(&many).is_err());
}

#[test]
fn lines_of_configuration() {
    let zone = Mode::Zone(name("web"));
    let rule = Mode::Rule(name("r"));
    let group = Mode::ObjectGroup(name("g"));
    let policy = Mode::Policy(name("p"));
    let profile = Mode::SecurityProfile(name("s"));
    let condition =
        |side, field, test| Condition::new(Attribute::of(side, field), test).expect("fits");
    let ip = |a: u8| Value::host([10, 0, 0, a].into());
    let network = Value::network([10, 9, 0, 0].into(), [255, 255, 255, 0].into());
    let network = network.expect("contiguous");
    let set = |number, condition| Statement::Conditions(ConditionsLine::Set { number, condition });
    use Side::{Destination, Neutral, Source};
    let cases = [
        (
            &Mode::Config,
            "hostname fw-1",
            Statement::Hostname("fw-1".to_owned()),
        ),
        (&Mode::Config, "no hostname", Statement::NoHostname),
        (
            &Mode::Config,
            "zone web",
            Statement::Enter(Object::Zone(name("web"))),
        ),
        (
            &Mode::Config,
            "no sec s@root/T",
            Statement::Remove {
                kind: ObjectKind::SecurityProfile,
                name: name("s@root/T"),
            },
        ),
        (
            &Mode::Config,
            "object-group g net.port",
            Statement::Enter(Object::ObjectGroup {
                name: name("g"),
                attribute: Attribute::of(Neutral, Field::Port),
            }),
        ),
        (
            &zone,
            "condition 1 net.ip-address eq 10.9.0.7 255.255.255.0",
            set(1, condition(Neutral, Field::IpAddress, Test::Eq(network))),
        ),
        (
            &zone,
            "condition 2 net.ip-address in-range 10.0.0.1 10.0.0.9",
            set(
                2,
                condition(Neutral, Field::IpAddress, Test::InRange(ip(1), ip(9))),
            ),
        ),
        (
            &zone,
            "no condition 7",
            Statement::Conditions(ConditionsLine::Remove(7)),
        ),
        (
            &zone,
            "cond-match-criteria: match-any",
            Statement::Conditions(ConditionsLine::Criteria(MatchCriteria::Any)),
        ),
        (
            &rule,
            "condition 1 src.zone.name neq web",
            set(
                1,
                condition(Source, Field::ZoneName, Test::Neq(Value::Zone(name("web")))),
            ),
        ),
        (
            &rule,
            "condition 2 dst.zone.name contains eb",
            set(
                2,
                condition(
                    Destination,
                    Field::ZoneName,
                    Test::Contains("eb".to_owned()),
                ),
            ),
        ),
        (
            &rule,
            "condition 3 dst.net.port not-member object-group g",
            set(
                3,
                condition(Destination, Field::Port, Test::NotMember(name("g"))),
            ),
        ),
        (
            &rule,
            "condition 4 net.ethertype eq 0x800",
            set(
                4,
                condition(Neutral, Field::Ethertype, Test::Eq(Value::Number(0x800))),
            ),
        ),
        (
            &rule,
            "action 10 reset",
            Statement::Rule(RuleLine::Set {
                number: 10,
                action: Action::Reset,
            }),
        ),
        (&rule, "no action 10", Statement::Rule(RuleLine::Remove(10))),
        (
            &group,
            "match 1 net.port gt 1023",
            Statement::Group(GroupLine::Set {
                number: 1,
                expression: condition(Neutral, Field::Port, Test::Gt(Value::Number(1023))),
            }),
        ),
        (&group, "no match 1", Statement::Group(GroupLine::Remove(1))),
        (
            &policy,
            "rule r order 5",
            Statement::Policy(PolicyLine::Set {
                rule: name("r"),
                order: 5,
            }),
        ),
        (
            &policy,
            "no rule r",
            Statement::Policy(PolicyLine::Remove(name("r"))),
        ),
        (
            &profile,
            "policy p",
            Statement::Profile(ProfileLine::Set(name("p"))),
        ),
        (
            &profile,
            "no policy",
            Statement::Profile(ProfileLine::Remove),
        ),
        (
            &profile,
            "no policy p",
            Statement::Profile(ProfileLine::Remove),
        ),
    ];
    for (mode, line, statement) in cases {
        assert_eq!(
            in_mode(mode, line),
            Ok(Command::Statement(statement)),
            "{line}"
        );
    }
    let id = PairId::try_from(10).expect("in range");
    assert_eq!(
        in_mode(&Mode::Config, "ha-pair id 10"),
        Ok(Command::PairId(id))
    );
}

#[test]
fn lines_that_mean_nothing_are_refused() {
    let rule = Mode::Rule(name("r"));
    for line in [
        "condition 1 dst.net.port eq 70000",
        "condition 0 net.protocol eq 6",
        "condition 1 net.protocol eq 256",
        "condition 1 dst.net.port in-range 9 1",
        "condition 1 src.net.ip-address eq 10.0.0.0 255.0.255.0",
        "condition 1 src.net.ip-address gt 10.0.0.0 255.0.0.0",
        "condition 1 src.net.ip-address eq 10.0.0.256",
        "condition 1 src.zone.name gt web",
        "condition 1 net.port eq 80",
        "action 10 permit now",
        "action 10 allow",
        "action 10 inspect ftp",
    ] {
        assert!(in_mode(&rule, line).is_err(), "{line}");
    }
    for line in [
        "hostname -x",
        "hostname a.b",
        "zone we$b",
        "zone web@tenant",
        "ha-pair id 0",
    ] {
        assert!(in_mode(&Mode::Config, line).is_err(), "{line}");
    }
}

#[test]
fn a_mode_is_left_by_a_line_of_the_mode_above() {
    let grammar = Grammar::new();
    let zone = Mode::Zone(name("web"));
    let step = |mode: &Mode, line: &str| {
        let parsed = parse(&grammar, line, mode, Standing::Active).expect(line);
        mode.after(&parsed)
    };
    assert_eq!(step(&zone, "zone app"), Some(Mode::Zone(name("app"))));
    assert_eq!(step(&zone, "no zone app"), Some(Mode::Config));
    assert_eq!(
        step(&zone, "condition 1 net.ip-address eq 10.0.0.1"),
        Some(zone.clone())
    );
    assert_eq!(step(&zone, "show version"), Some(zone.clone()));
    assert_eq!(step(&zone, "exit"), Some(Mode::Config));
    assert_eq!(step(&zone, "end"), Some(Mode::Exec));
    assert_eq!(step(&Mode::Config, "ha-pair id 3"), Some(Mode::Config));
    assert_eq!(step(&Mode::Config, "exit"), Some(Mode::Exec));
    assert_eq!(step(&Mode::Exec, "exit"), None);
    assert_eq!(step(&Mode::Exec, "configure terminal"), Some(Mode::Config));
    // `policy` in a profile binds it; it does not enter the policy.
    let profile = Mode::SecurityProfile(name("s"));
    assert_eq!(step(&profile, "policy p"), Some(profile.clone()));
}

#[test]
fn a_standby_has_no_words_that_change_the_pair() {
    let grammar = Grammar::new();
    let standby = |line| parse(&grammar, line, &Mode::Exec, Standing::Standby);
    for line in [
        "configure",
        "copy running-config startup-config",
        "system switchover",
        "attach module 1",
    ] {
        let error = standby(line).expect_err(line);
        assert_eq!(error.kind, ParseErrorKind::Invalid, "{line}");
    }
    for line in [
        "show system redundancy status",
        "system redundancy role primary",
        "exit",
        "reload",
    ] {
        assert!(standby(line).is_ok(), "{line}");
    }
}

#[test]
fn prompts_tell_where_one_stands() {
    let prompt = |mode: Mode, standing| mode.prompt("vsg", standing);
    assert_eq!(prompt(Mode::Exec, Standing::Active), "vsg# ");
    assert_eq!(prompt(Mode::Exec, Standing::Standby), "vsg(standby)# ");
    assert_eq!(prompt(Mode::Config, Standing::Active), "vsg(config)# ");
    assert_eq!(
        prompt(Mode::Rule(name("r")), Standing::Active),
        "vsg(config-rule)# "
    );
}

#[test]
fn help_and_completion_come_from_the_tree() {
    let grammar = Grammar::new();
    let words = |line, mode: &Mode| complete(&grammar, line, mode, Standing::Active);
    assert_eq!(words("sh", &Mode::Exec), ["show"]);
    assert_eq!(words("co", &Mode::Exec), ["configure", "copy"]);
    assert_eq!(
        words("show s", &Mode::Exec),
        ["service-path", "startup-config", "system"]
    );
    assert_eq!(words("show system ", &Mode::Exec), ["redundancy", "uptime"]);
    assert!(words("show redundancy ", &Mode::Exec).contains(&"conflicts".to_owned()));
    assert_eq!(words("show redundancy conflicts 1 ", &Mode::Exec), ["diff"]);
    assert!(words("clear redundancy ", &Mode::Exec).contains(&"conflicts".to_owned()));
    assert_eq!(words("reload ", &Mode::Exec), ["module"]);
    let standby = |line| complete(&grammar, line, &Mode::Exec, Standing::Standby);
    assert!(standby("clear redundancy con").is_empty());
    assert!(standby("reload m").is_empty() && standby("attach ").is_empty());
    assert_eq!(standby("show redundancy con"), ["conflicts"]);
    let lines = help(&grammar, "reload module ", &Mode::Exec, Standing::Active);
    assert_eq!(
        render_help(&lines),
        "  <1-1024>  Its number, as in show module\n"
    );
    assert_eq!(words("ha-pair id ", &Mode::Config), Vec::<String>::new());
    assert!(words("bogus ", &Mode::Exec).is_empty());
    let zone = Mode::Zone(name("web"));
    assert!(words("", &zone).contains(&"show".to_owned()));
    assert_eq!(
        words("con", &zone),
        ["cond-match-criteria:", "condition", "configure"]
    );
    let lines = help(
        &grammar,
        "show running-config ",
        &Mode::Exec,
        Standing::Active,
    );
    assert_eq!(
        render_help(&lines),
        "  <CR>  Run the command\n  diff  What differs from the startup configuration\n"
    );
    let lines = help(&grammar, "ha-pair id ", &Mode::Config, Standing::Active);
    assert_eq!(render_help(&lines), "  <1-4095>  Shared by both nodes\n");
}

// ===== The tree as a whole =====

/// Every line that the tree below `nodes` allows, with a sample for each value.
fn lines(nodes: &[Node], before: &str, found: &mut Vec<String>) {
    for node in nodes {
        let word = match node.token {
            Token::Keyword(word) => word.to_owned(),
            Token::Number { min, .. } => min.to_string(),
            Token::Address => "255.255.255.255".to_owned(),
            Token::Name | Token::Word { .. } => "web".to_owned(),
        };
        let line = if before.is_empty() {
            word
        } else {
            format!("{before} {word}")
        };
        assert!(!node.help.is_empty(), "{line}");
        assert!(
            node.is_complete() || !node.children.is_empty(),
            "{line} leads nowhere"
        );
        if node.is_complete() {
            found.push(line.clone());
        }
        lines(&node.children, &line, found);
    }
}

fn modes() -> [Mode; 7] {
    [
        Mode::Exec,
        Mode::Config,
        Mode::ObjectGroup(name("x")),
        Mode::Policy(name("x")),
        Mode::Rule(name("x")),
        Mode::SecurityProfile(name("x")),
        Mode::Zone(name("x")),
    ]
}

#[test]
fn every_line_of_the_tree_is_a_command_of_its_mode() {
    let grammar = Grammar::new();
    let mut total = 0;
    for mode in modes() {
        let mut found = Vec::new();
        lines(grammar.first_words(&mode), "", &mut found);
        total += found.len();
        for line in found {
            let parsed = parse(&grammar, &line, &mode, Standing::Active);
            let parsed = parsed.unwrap_or_else(|error| panic!("{line} in {mode:?}: {error}"));
            assert_eq!(parsed.context, mode, "{line}");
        }
    }
    assert!(total > 100, "only {total} lines");
}

#[test]
fn siblings_are_distinct() {
    fn check(nodes: &[Node], before: &str) {
        let shown: std::collections::BTreeSet<String> =
            nodes.iter().map(|node| node.token.shown()).collect();
        assert_eq!(shown.len(), nodes.len(), "after {before:?}");
        nodes
            .iter()
            .for_each(|node| check(&node.children, &node.token.shown()));
    }
    let grammar = Grammar::new();
    modes()
        .iter()
        .for_each(|mode| check(grammar.first_words(mode), ""));
}

proptest! {
    /// Any text is a command or an error whose caret lies on the line; nothing panics.
    #[test]
    fn any_text_is_answered(
        words in prop::collection::vec(
            prop_oneof![
                Just("show".to_owned()), Just("no".to_owned()), Just("condition".to_owned()),
                Just("1".to_owned()), Just("eq".to_owned()), Just("|".to_owned()),
                Just("src.net.ip-address".to_owned()), Just("system".to_owned()),
                "\\PC{0,12}",
            ],
            0..8,
        ),
        mode in prop::sample::select(modes().to_vec()),
        standby in any::<bool>(),
    ) {
        let line = words.join(" ");
        let grammar = Grammar::new();
        let standing = if standby { Standing::Standby } else { Standing::Active };
        if let Err(error) = parse(&grammar, &line, &mode, standing) {
            prop_assert!(error.column <= line.chars().count() + 1, "{:?}", error);
            prop_assert!(error.render(5).starts_with("     ") || line.len() > parse::LINE_MAX_BYTES);
        }
        for word in complete(&grammar, &line, &mode, standing) {
            prop_assert!(!word.is_empty());
        }
    }
}
