use cli::{Mode, ObjectKind};
use model::ObjectName;
use proptest::prelude::*;

use super::*;

const SAMPLE: &str = "\
hostname vsg
zone web@root
  condition 1 net.ip-address eq 10.9.0.0 255.255.255.0
object-group http-ports@root net.port
  match 1 net.port eq 80
  match 2 net.port in-range 8000 8100
rule allow-http@root
  condition 1 dst.zone.name eq web@root
  condition 2 dst.net.port member object-group http-ports@root
  condition 3 net.protocol eq 6
  action 10 permit
  action 20 log
policy web@root
  rule allow-http@root order 10
security-profile web@root
  policy web@root
";

/// The sample as it is rendered: groups before zones, and the built-in objects.
const CANONICAL: &str = "\
hostname vsg
object-group http-ports@root net.port
  match 1 net.port eq 80
  match 2 net.port in-range 8000 8100
zone web@root
  condition 1 net.ip-address eq 10.9.0.0 255.255.255.0
rule allow-http@root
  condition 1 dst.zone.name eq web@root
  condition 2 dst.net.port member object-group http-ports@root
  condition 3 net.protocol eq 6
  action 10 permit
  action 20 log
rule default/default-rule@root
  action 10 drop
policy default@root
  rule default/default-rule@root order 10
policy web@root
  rule allow-http@root order 10
security-profile default@root
  policy default@root
security-profile web@root
  policy web@root
";

fn load(text: &str) -> Configuration {
    Configuration::load(text).expect("the text is valid")
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("a plain name")
}

fn refused(base: &Configuration, lines: &[&str]) -> LineError {
    let mut candidate = Candidate::new(base);
    candidate
        .apply_lines(lines.iter().copied())
        .expect_err("the last line is wrong")
}

fn applied(base: &Configuration, lines: &[&str]) -> Configuration {
    let mut candidate = Candidate::new(base);
    candidate
        .apply_lines(lines.iter().copied())
        .expect("the lines apply");
    candidate.commit().expect("valid")
}

#[test]
fn the_sample_loads_and_is_rendered_canonically() {
    let configuration = load(SAMPLE);
    assert_eq!(configuration.text(), CANONICAL);
    let again = load(CANONICAL);
    assert_eq!(again, configuration);
    assert_eq!(again.hash(), configuration.hash());
    let abbreviated = SAMPLE
        .replace("condition", "condi")
        .replace("action", "ac")
        .replace("security-profile", "sec")
        .replace("@root", "")
        .replace("  ", "");
    assert_eq!(load(&abbreviated).hash(), configuration.hash());
    assert_ne!(
        load(&SAMPLE.replace("8100", "8101")).hash(),
        configuration.hash()
    );
}

#[test]
fn the_example_for_newcomers_loads() {
    let example = load(include_str!("../../../docs/examples/policy.vsg"));
    assert!(policy::compile(&example.policy, model::Generation(1)).is_ok());
}

#[test]
fn the_empty_configuration_drops_everything() {
    let empty = Configuration::default();
    assert_eq!(load(&empty.text()), empty);
    assert_eq!(empty.hostname(), "vsg");
    assert!(policy::compile(&empty.policy, model::Generation(1)).is_ok());
}

#[test]
fn an_unknown_name_is_refused_under_the_caret_and_changes_nothing() {
    let base = load(SAMPLE);
    let cases: [(&[&str], usize, &str); 6] = [
        (
            &["rule r", "condition 1 src.zone.name eq db"],
            29,
            "% unknown zone db@root at '^' marker.",
        ),
        (
            &["rule r", "condition 1 dst.net.port member object-group x"],
            45,
            "% unknown object-group x@root at '^' marker.",
        ),
        (
            &[
                "rule r",
                "condition 1 src.net.ip-address member object-group http-ports",
            ],
            51,
            "% object-group http-ports@root does not hold src.net.ip-address at '^' marker.",
        ),
        (
            &["policy web", " rule no order 20"],
            6,
            "% unknown rule no@root at '^' marker.",
        ),
        (
            &["security-profile web", "policy no"],
            7,
            "% unknown policy no@root at '^' marker.",
        ),
        (
            &["no zone nowhere"],
            8,
            "% unknown zone nowhere@root at '^' marker.",
        ),
    ];
    for (lines, column, message) in cases {
        let error = refused(&base, lines);
        assert_eq!(
            (error.column, error.kind.to_string().as_str()),
            (column, message)
        );
        assert_eq!(error.line, lines.len() - 1);
    }
    let error = refused(&base, &["rule r", "condition 1 src.zone.name eq db"]);
    let shown = error.render("vsg(config-rule)# ".len());
    let expected = format!(
        "{}^\n% unknown zone db@root at '^' marker.\n",
        " ".repeat(47)
    );
    assert_eq!(shown, expected);
}

#[test]
fn what_is_in_use_stays() {
    let base = load(SAMPLE);
    for (line, message) in [
        (
            "no zone web",
            "zone web@root is in use by rule allow-http@root",
        ),
        (
            "no object-group http-ports",
            "object-group http-ports@root is in use by rule allow-http@root",
        ),
        (
            "no rule allow-http",
            "rule allow-http@root is in use by policy web@root",
        ),
        (
            "no policy web",
            "policy web@root is in use by security-profile web@root",
        ),
    ] {
        let error = refused(&base, &[line]);
        assert_eq!(
            error.kind.to_string(),
            format!("% {message} at '^' marker.")
        );
    }
}

#[test]
fn built_in_objects_stay_as_they_are() {
    let base = load(SAMPLE);
    for lines in [
        ["no security-profile default", ""],
        ["no policy default", ""],
        ["no rule default/default-rule", ""],
        ["rule default/default-rule", "action 10 permit"],
        ["rule default/default-rule", "no action 10"],
        ["policy default", "rule allow-http order 5"],
        ["policy default", "no rule default/default-rule"],
    ] {
        let error = refused(&base, &lines);
        assert!(
            error.kind.to_string().contains("is built in"),
            "{lines:?}: {error}"
        );
    }
    // The profile may be given another policy, as in the original.
    let changed = applied(&base, &["security-profile default", "policy web"]);
    let profile = &changed.policy.profiles[&name("default")];
    assert_eq!(profile.policy, Some(name("web")));
}

#[test]
fn every_no_form_undoes_its_line() {
    let base = load(SAMPLE);
    let changed = applied(
        &base,
        &[
            "zone extra",
            "  condition 1 net.ip-address eq 10.0.0.1",
            "  no condition 1",
            "no zone extra",
            "rule allow-http",
            "  action 30 reset",
            "  no action 30",
            "  cond-match-criteria: match-any",
            "  no cond-match-criteria:",
            "object-group http-ports net.port",
            "  match 3 net.port eq 81",
            "  no match 3",
            "rule spare",
            "policy web",
            "  rule spare order 20",
            "  no rule spare",
            "exit",
            "no rule spare",
            "security-profile web",
            "  no policy web",
            "  policy web",
            "hostname other",
            "no hostname",
            "hostname vsg",
        ],
    );
    assert_eq!(changed, base);
    for lines in [
        ["zone web", "no condition 9"],
        ["rule allow-http", "no action 9"],
    ] {
        assert!(
            refused(&base, &lines).kind.to_string().starts_with("% no "),
            "{lines:?}"
        );
    }
}

#[test]
fn a_rule_has_one_rank_and_a_rank_one_rule() {
    let base = applied(&load(SAMPLE), &["rule second", "action 1 drop"]);
    let error = refused(&base, &["policy web", "rule second order 10"]);
    assert_eq!(
        error.kind.to_string(),
        "% order 10 is taken by rule allow-http@root at '^' marker."
    );
    assert_eq!(error.column, 18);
    let moved = applied(
        &base,
        &[
            "policy web",
            "rule allow-http order 30",
            "rule second order 10",
        ],
    );
    let rules: Vec<_> = moved.policy.policies[&name("web")]
        .rules
        .clone()
        .into_iter()
        .collect();
    assert_eq!(rules, [(10, name("second")), (30, name("allow-http"))]);
}

#[test]
fn a_group_keeps_its_attribute() {
    let base = load(SAMPLE);
    let error = refused(&base, &["object-group http-ports net.protocol"]);
    assert_eq!(
        error.kind,
        LineErrorKind::Statement(StatementError::GroupHolds {
            group: name("http-ports"),
            attribute: "net.port".parse_attribute(),
            asked: "net.protocol".parse_attribute(),
        })
    );
    assert_eq!(error.column, 24);
    let error = refused(
        &base,
        &[
            "object-group http-ports net.port",
            "match 5 net.protocol eq 6",
        ],
    );
    assert_eq!(error.column, 8);
}

/// Finds an attribute by its keyword.
trait ParseAttribute {
    fn parse_attribute(&self) -> model::Attribute;
}

impl ParseAttribute for str {
    fn parse_attribute(&self) -> model::Attribute {
        let mut all = model::Attribute::ALL.into_iter();
        all.find(|attribute| attribute.keyword() == self)
            .expect("a keyword")
    }
}

#[test]
fn commands_are_no_configuration() {
    let base = Configuration::default();
    for line in [
        "show version",
        "  ha-pair id 10",
        "end",
        "exit",
        "reload",
        "configure",
    ] {
        let error = refused(&base, &[line]);
        assert_eq!(error.kind, LineErrorKind::NotConfiguration, "{line}");
    }
    let error = refused(&base, &["zone web", "nonsense"]);
    assert_eq!(error.kind.to_string(), "% Invalid command at '^' marker.");
    assert!(
        applied(&base, &["! a comment", "", "zone web", "exit", "zone app"])
            .policy
            .zones
            .len()
            == 2
    );
}

#[test]
fn a_mode_is_followed_from_line_to_line() {
    let mut candidate = Candidate::new(&Configuration::default());
    let mode = candidate
        .apply_line(&Mode::Config, "zone web")
        .expect("valid");
    assert_eq!(mode, Mode::Zone(name("web")));
    assert_eq!(mode.object(), Some((ObjectKind::Zone, &name("web"))));
    let mode = candidate
        .apply_line(&mode, "condition 1 net.ip-address eq 10.0.0.1")
        .expect("valid");
    assert_eq!(mode, Mode::Zone(name("web")));
    let mode = candidate.apply_line(&mode, "hostname x").expect("valid");
    assert_eq!(mode, Mode::Config);
}

#[test]
fn the_shown_text_has_the_header_of_the_original() {
    let header = Header {
        command: "show running-config",
        time: "Fri Aug  3 23:58:47 2012",
        version: "0.1.0",
        pair_id: Some(model::PairId::try_from(10).expect("in range")),
    };
    let text = load("hostname web-fw\n").shown(&header);
    let expected = "\n!Command: show running-config\n!Time: Fri Aug  3 23:58:47 2012\n\n\
                    version 0.1.0\nha-pair id 10\nhostname web-fw\nrule default/";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn the_diff_has_the_layout_of_the_original() {
    let startup = load(SAMPLE);
    assert_eq!(context_diff(&startup.text(), &startup.text()), "");
    let running = applied(
        &startup,
        &[
            "hostname other",
            "zone z",
            "policy web",
            "no rule allow-http",
        ],
    );
    let diff = context_diff(&startup.text(), &running.text());
    assert!(diff.starts_with("*** Startup-config\n--- Running-config\n***************\n*** 1,"));
    let removed = "-   rule allow-http@root order 10\n";
    assert!(
        diff.contains(removed) && diff.contains("! hostname other\n"),
        "{diff}"
    );
    let only_zone = applied(&startup, &["zone z"]);
    let diff = context_diff(&startup.text(), &only_zone.text());
    assert_eq!(
        diff,
        "\
*** Startup-config
--- Running-config
***************
*** 4,9 ****
--- 4,10 ----
    match 2 net.port in-range 8000 8100
  zone web@root
    condition 1 net.ip-address eq 10.9.0.0 255.255.255.0
+ zone z@root
  rule allow-http@root
    condition 1 dst.zone.name eq web@root
    condition 2 dst.net.port member object-group http-ports@root
"
    );
}

// ===== Any lines at all =====

fn any_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b@root",
        "web@root/T1",
        "default",
        "default/default-rule",
    ])
}

fn any_line() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["zone", "rule", "policy", "security-profile"]);
    let attribute = prop::sample::select(model::Attribute::ALL.to_vec());
    let test = prop::sample::select(vec![
        "eq 80",
        "eq 10.0.0.0 255.0.0.0",
        "neq a",
        "in-range 1 9",
        "gt 10.0.0.1",
        "contains a",
        "member object-group a",
        "not-member object-group b",
        "eq 0x800",
        "in-range 9 1",
        "eq a",
    ]);
    prop_oneof![
        3 => (kind.clone(), any_name()).prop_map(|(kind, name)| format!("{kind} {name}")),
        1 => (kind, any_name()).prop_map(|(kind, name)| format!("no {kind} {name}")),
        1 => (any_name(), attribute.clone())
            .prop_map(|(name, attribute)| format!("object-group {name} {attribute}")),
        1 => any_name().prop_map(|name| format!("no object-group {name}")),
        4 => (1u8..4, attribute.clone(), test.clone())
            .prop_map(|(n, attribute, test)| format!("condition {n} {attribute} {test}")),
        2 => (1u8..4, attribute, test)
            .prop_map(|(n, attribute, test)| format!("match {n} {attribute} {test}")),
        2 => (1u8..4, prop::sample::select(vec!["permit", "drop", "log", "reset"]))
            .prop_map(|(n, action)| format!("action {n} {action}")),
        2 => (any_name(), 1u8..4).prop_map(|(name, n)| format!("rule {name} order {n}")),
        1 => (1u8..4, prop::sample::select(vec!["condition", "match", "action"]))
            .prop_map(|(n, what)| format!("no {what} {n}")),
        1 => any_name().prop_map(|name| format!("no rule {name}")),
        1 => Just("cond-match-criteria: match-any".to_owned()),
        1 => Just("no policy".to_owned()),
        1 => Just("hostname h-1".to_owned()),
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever is typed: a refused line changes nothing, an accepted one leaves a valid
    /// configuration, and the text of that is the same configuration.
    #[test]
    fn any_session_leaves_a_valid_configuration(lines in prop::collection::vec(any_line(), 0..60)) {
        let mut candidate = Candidate::new(&Configuration::default());
        let mut mode = Mode::Config;
        for line in &lines {
            let before = candidate.configuration().clone();
            match candidate.apply_line(&mode, line) {
                Ok(Mode::Exec) => mode = Mode::Config,
                Ok(after) => mode = after,
                Err(error) => {
                    prop_assert!(error.column <= line.chars().count() + 1);
                    prop_assert_eq!(candidate.configuration(), &before);
                }
            }
            // The object one stands in may be gone.
            if let Some((ObjectKind::Zone, name)) = mode.object()
                && !candidate.configuration().policy.zones.contains_key(name)
            {
                mode = Mode::Config;
            }
            prop_assert_eq!(candidate.configuration().policy.problems(), []);
        }
        let configuration = candidate.commit().expect("every line left it valid");
        let again = Configuration::load(&configuration.text());
        prop_assert_eq!(again.as_ref(), Ok(&configuration));
    }
}
