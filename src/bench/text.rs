//! The result for people, a few lines each phase.

use std::fmt::Write as _;

use crate::bench::disk::DiskTimes;
use crate::bench::report::CpuReport;
use crate::bench::report::GroupReport;
use crate::bench::report::PhaseReport;
use crate::bench::report::Report;

impl Report {
    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for phase in &self.phases {
            self.put_phase(phase, &mut text);
        }
        if let Some(disk) = &self.disk {
            let one =
                |it: &DiskTimes| format!("p50 {} p99 {}", micros(it.p50_us), micros(it.p99_us));
            let how = if disk.before.is_direct { "" } else { ", through the page cache" };
            line(
                &mut text,
                "disk",
                &format!(
                    "4 KiB write + fdatasync{how}, us: {} before, {} after",
                    one(&disk.before),
                    one(&disk.after)
                ),
            );
            let (before, after) = (&disk.through_node_before, &disk.through_node_after);
            let times =
                format!("as a node writes, us: {} before, {} after", one(before), one(after));
            line(&mut text, "", &times);
            if let Some((bare, node)) = disk.p50_ratio.zip(disk.p50_ratio_through_node) {
                let ratio = format!(
                    "the median above is {bare:.1} times the disk's, {node:.1} as a node writes"
                );
                line(&mut text, "", &ratio);
            }
        }
        self.put_verification(&mut text);
        text
    }

    fn put_phase(&self, phase: &PhaseReport, text: &mut String) {
        let scenario = self.scenario;
        let name = match phase.name {
            it if it == scenario => String::new(),
            it => format!(", {it}"),
        };
        let (warmup, url, api) = (self.warmup_seconds, &self.url, self.api);
        let ended = if self.is_interrupted { ", ended early" } else { "" };
        put(
            text,
            format_args!(
                "{scenario}{name}: {:.1} s after {warmup:.1} s of warm-up{ended}, {url} ({api})\n",
                phase.seconds
            ),
        );
        for group in &phase.groups {
            if phase.groups.len() > 1 {
                put(text, format_args!("  {}\n", group.name));
            }
            put_group(group, text);
        }
        for (name, cpu) in [("server CPU", phase.server), ("client CPU", phase.client)] {
            if let Some(cpu) = cpu {
                line(text, name, &cpu_text(&cpu));
            }
        }
    }

    fn put_verification(&self, text: &mut String) {
        if let Some(error) = &self.verification_error {
            line(text, "rows", &format!("could not be checked: {error}"));
        }
        let Some(rows) = &self.verification else { return };
        let acknowledged = grouped(rows.rows_acknowledged);
        let more = match rows.rows_unacknowledged_found {
            0 => String::new(),
            n => format!("; {} more, whose replies were lost", grouped(n)),
        };
        if rows.rows_lost == 0 {
            line(text, "rows", &format!("{acknowledged} acknowledged, all there{more}"));
            return;
        }
        let lost = grouped(rows.rows_lost);
        line(text, "rows", &format!("{acknowledged} acknowledged, {lost} LOST{more}"));
        let names: Vec<_> = rows
            .lost
            .iter()
            .map(|it| match it.key {
                0 => it.id.to_string(),
                nth => format!("{} (key {nth})", it.id),
            })
            .collect();
        let dots = if rows.rows_lost > names.len() as u64 { ", …" } else { "" };
        line(text, "", &format!("ids {}{dots}; the table is left as it is", names.join(", ")));
    }
}

fn put_group(group: &GroupReport, text: &mut String) {
    let loop_kind = match group.rate_per_second {
        None => "closed loop".to_owned(),
        Some(rate) => format!("{} a second due", rounded(rate)),
    };
    line(text, "clients", &format!("{}, {loop_kind}", group.clients));
    let rows = match group.rows_per_operation {
        0 | 1 => String::new(),
        _ => format!(", {} rows per second", rounded(group.rows_per_second)),
    };
    let (n, rate) = (grouped(group.operations), rounded(group.operations_per_second));
    line(text, "requests", &format!("{n}, {rate} per second{rows}"));
    let it = &group.latency_us;
    let points =
        [("p50", it.p50), ("p90", it.p90), ("p99", it.p99), ("p99.9", it.p99_9), ("max", it.max)];
    let points = points.map(|(name, us)| format!("{name} {}", micros(us)));
    line(text, "latency us", &points.join("   "));
    if group.errors.is_empty() {
        line(text, "errors", "none");
    }
    for (nth, (kind, n)) in group.errors.iter().enumerate() {
        line(text, if nth == 0 { "errors" } else { "" }, &format!("{} x {kind}", grouped(*n)));
    }
    let (sent, received) = (grouped(group.bytes_sent), grouped(group.bytes_received));
    line(text, "bytes", &format!("{sent} sent, {received} received"));
}

fn cpu_text(cpu: &CpuReport) -> String {
    let row = cpu.cpu_us_per_row.map(|it| format!(", {it:.1} us a row")).unwrap_or_default();
    let (each, seconds, pid) = (cpu.cpu_us_per_operation, cpu.cpu_seconds, cpu.pid);
    format!("{each:.1} us a request{row} ({seconds:.2} s, pid {pid})")
}

fn line(text: &mut String, name: &str, value: &str) {
    put(text, format_args!("  {name:<12}{value}\n"));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes all");
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate or another number whose fraction matters only if it is small.
pub(super) fn rounded(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    format!("{value:.0}").parse().map_or_else(|_| format!("{value:.0}"), grouped)
}

fn micros(us: f64) -> String {
    rounded(us)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::bench::report::testing;

    #[test]
    fn it_reads_well() {
        expect![[r#"
            noisy, alone: 0.9 s after 0.5 s of warm-up, http://127.0.0.1:6001 (debros)
              clients     2, 1 250 a second due
              requests    1 000, 1 111 per second
              latency us  p50 500   p90 900   p99 990   p99.9 999   max 1 000
              errors      1 x 503 overloaded
              bytes       250 000 sent, 450 000 received
              server CPU  40.0 us a request (0.04 s, pid 7)
            noisy, beside a neighbour: 0.9 s after 0.5 s of warm-up, http://127.0.0.1:6001 (debros)
              measured
              clients     2, 1 250 a second due
              requests    1 000, 1 111 per second
              latency us  p50 500   p90 900   p99 990   p99.9 999   max 1 000
              errors      1 x 503 overloaded
              bytes       250 000 sent, 450 000 received
              neighbour
              clients     8, closed loop
              requests    1 000, 1 111 per second
              latency us  p50 500   p90 900   p99 990   p99.9 999   max 1 000
              errors      1 x 503 overloaded
              bytes       250 000 sent, 450 000 received
              server CPU  40.0 us a request (0.04 s, pid 7)
              rows        2 000 acknowledged, 2 LOST; 1 more, whose replies were lost
                          ids 17, 40 (key 1); the table is left as it is
        "#]]
        .assert_eq(&testing::report("http://127.0.0.1:6001").text());
    }

    #[test]
    fn numbers_are_grouped() {
        for (n, want) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(n), want);
        }
        assert_eq!(rounded(99.94), "99.9");
        assert_eq!(rounded(32_446.4), "32 446");
    }
}
