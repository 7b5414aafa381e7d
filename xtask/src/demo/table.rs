//! The figures as text.

use super::figures::{Demo, StepFigures};

/// Columns: two lines of heading, and the width. Pairs are worst / median of the repetitions.
const COLUMNS: [(&str, &str, usize); 9] = [
    ("", "fault", 23),
    ("", "runs", 4),
    ("stall, ms", "control", 9),
    ("stall, ms", "worst/median", 12),
    ("UDP lost", "/reordered", 10),
    ("new/s", "all decided", 11),
    ("failed", "/SYN again", 10),
    ("slowest connect", "worst/median", 15),
    ("takeover, ms", "worst/median", 13),
];

/// The table at the end of the demo.
pub(crate) fn render(demo: &Demo) -> String {
    let mut lines = vec![
        format!(
            "The pair was redundant {} ms after its start.",
            demo.boot_ms
        ),
        String::new(),
        line(&COLUMNS.map(|(upper, _, _)| upper.to_owned()), ""),
        line(&COLUMNS.map(|(_, lower, _)| lower.to_owned()), "promises"),
        "-".repeat(COLUMNS.iter().map(|(_, _, width)| width + 2).sum::<usize>() + 8),
    ];
    lines.extend(demo.steps.iter().map(row));
    lines.push(String::new());
    let forbidden: u64 = demo.steps.iter().map(|step| step.forbidden_attempts).sum();
    let reached: u64 = demo.steps.iter().map(|step| step.forbidden_reached).sum();
    lines.push(format!(
        "Forbidden port: at least {forbidden} attempts during the faults, {reached} reached it."
    ));
    let errors: u64 = demo.steps.iter().map(|step| step.witness_errors).sum();
    lines.push(format!(
        "Witnesses (wrk against nginx, iperf3): {errors} errors."
    ));
    let kept = if demo.unsaved_change_kept {
        "still there, still unsaved"
    } else {
        "LOST"
    };
    lines.push(format!("The unsaved change made before all this: {kept}."));
    lines.push(if demo.promises_held {
        "Every promise held.".to_owned()
    } else {
        "NOT every promise held:".to_owned()
    });
    lines.extend(demo.broken.iter().map(|broken| format!("  {broken}")));
    lines.join("\n")
}

/// One line: the first column to the left, the others to the right.
fn line(cells: &[String; COLUMNS.len()], last: &str) -> String {
    let mut text = String::new();
    for (index, (cell, (_, _, width))) in cells.iter().zip(COLUMNS).enumerate() {
        text.push_str(&if index == 0 {
            format!("{cell:<width$}  ")
        } else {
            format!("{cell:>width$}  ")
        });
    }
    text.push_str(last);
    text.trim_end().to_owned()
}

fn row(step: &StepFigures) -> String {
    let takeover = match (step.takeover_ms, step.medians.takeover_ms) {
        (Some(worst), Some(median)) => pair(worst, median),
        (Some(_) | None, _) => "-".to_owned(),
    };
    let decided = if step.decided_by_gateway >= step.connections {
        "yes"
    } else {
        "NO"
    };
    let cells = [
        step.step.title().to_owned(),
        step.reps.to_string(),
        format!("{:.1}", step.control_stall_ms),
        pair(step.established_stall_ms, step.medians.established_stall_ms),
        format!("{}/{}", step.udp_lost, step.udp_reordered),
        format!("{:.0} {decided}", step.connections_per_s),
        format!("{}/{}", step.connections_failed, step.syn_retransmitted),
        pair(step.slowest_connect_ms, step.medians.slowest_connect_ms),
        takeover,
    ];
    line(&cells, if step.held { "held" } else { "BROKEN" })
}

fn pair(worst: f64, median: f64) -> String {
    format!("{worst:.1}/{median:.1}")
}
