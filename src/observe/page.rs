//! A page of metrics in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! ```text
//! # HELP debros_turn_seconds What it is.
//! # TYPE debros_turn_seconds histogram
//! debros_turn_seconds_bucket{shard="0",le="0.000001"} 17
//! ```
//!
//! Invariants
//! - All series of a family stand together, under its one `HELP` and `TYPE`.
//! - A time inside the program is in microseconds, on the page in seconds.

use std::fmt::Write;
use std::time::Duration;

use crate::observe::histogram::Histogram;

/// What `Content-Type` says of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the process ends.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// What the values of a histogram count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, which become seconds.
    Micros,
    /// Things.
    Count,
}

/// Names and values of what tells series of a family apart.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// The page, as far as it is written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// A page with room for `size` bytes.
    pub fn with_capacity(size: usize) -> Self {
        Self { text: String::with_capacity(size) }
    }

    /// The text of the page.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begin a family of counters or gauges. Its name is `debros_` and `name`.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.begin(name, word, help);
        Family { name, text: &mut self.text }
    }

    /// Begin a family of histograms. Its name is `debros_` and `name`.
    pub fn histograms<'a>(&'a mut self, name: &'a str, unit: Unit, help: &str) -> Histograms<'a> {
        self.begin(name, "histogram", help);
        Histograms { name, unit, text: &mut self.text }
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let is_name = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_';
        assert!(name.bytes().all(is_name), "a metric's name is a word");
        self.text.push_str("# HELP debros_");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, Quotes::Stay);
        put(&mut self.text, format_args!("\n# TYPE debros_{name} {kind}\n"));
    }
}

/// Series of one family.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Family<'_> {
    /// A series with a whole value.
    pub fn put(&mut self, labels: Labels<'_>, value: impl Into<u64>) -> &mut Self {
        series(self.text, self.name, "", labels, None);
        put(self.text, format_args!(" {}\n", value.into()));
        self
    }

    /// A series with a time, in seconds.
    pub fn put_time(&mut self, labels: Labels<'_>, value: Duration) -> &mut Self {
        series(self.text, self.name, "", labels, None);
        put(self.text, format_args!(" {}\n", value.as_secs_f64()));
        self
    }
}

/// Histograms of one family.
#[derive(Debug)]
pub struct Histograms<'a> {
    name: &'a str,
    unit: Unit,
    text: &'a mut String,
}

impl Histograms<'_> {
    /// A histogram with all its buckets.
    pub fn put(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let (unit, name) = (self.unit, self.name);
        let in_unit = |value: u64| match unit {
            Unit::Micros => Duration::from_micros(value).as_secs_f64().to_string(),
            Unit::Count => value.to_string(),
        };
        let mut count = 0;
        for (end, n) in histogram.cumulative() {
            let end = end.map_or_else(|| "+Inf".to_owned(), in_unit);
            series(self.text, name, "_bucket", labels, Some(&end));
            put(self.text, format_args!(" {n}\n"));
            count = n;
        }
        series(self.text, name, "_sum", labels, None);
        put(self.text, format_args!(" {}\n", in_unit(histogram.sum())));
        series(self.text, name, "_count", labels, None);
        put(self.text, format_args!(" {count}\n"));
    }
}

/// The name of a series, with its labels and, for a bucket, where it ends.
fn series(text: &mut String, name: &str, suffix: &str, labels: Labels<'_>, end: Option<&str>) {
    put(text, format_args!("debros_{name}{suffix}"));
    let mut before = '{';
    for (label, value) in labels.iter().copied().chain(end.map(|it| ("le", it))) {
        text.push(before);
        put(text, format_args!("{label}=\""));
        escape(text, value, Quotes::Escape);
        text.push('"');
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Escape,
    Stay,
}

fn escape(text: &mut String, value: &str, quotes: Quotes) {
    for it in value.chars() {
        match it {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes == Quotes::Escape => text.push_str("\\\""),
            it => text.push(it),
        }
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes what is written to it");
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn families_stand_together_under_their_type() {
        let mut page = Page::default();
        page.family("things_total", Kind::Counter, "Things,\nand \\ more.")
            .put(&[], 1_u64)
            .put(&[("kind", "a\"b\\c\nd"), ("shard", "0")], 2_u32);
        page.family("up_seconds", Kind::Gauge, "Time.").put_time(&[], Duration::from_millis(1_500));
        expect![[r#"
            # HELP debros_things_total Things,\nand \\ more.
            # TYPE debros_things_total counter
            debros_things_total 1
            debros_things_total{kind="a\"b\\c\nd",shard="0"} 2
            # HELP debros_up_seconds Time.
            # TYPE debros_up_seconds gauge
            debros_up_seconds 1.5
        "#]]
        .assert_eq(&page.into_text());
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let mut page = Page::default();
        let mut histogram = Histogram::new(6);
        for value in [10, 64, 65, 20_000_000] {
            histogram.record(value);
        }
        page.histograms("took_seconds", Unit::Micros, "Took.").put(&[("route", "/x")], &histogram);
        let text = page.into_text();
        let lines: Vec<_> = text.lines().collect();
        expect![[r#"
            # TYPE debros_took_seconds histogram
            debros_took_seconds_bucket{route="/x",le="0.000064"} 2
            debros_took_seconds_bucket{route="/x",le="0.000128"} 3"#]]
        .assert_eq(&lines[1..4].join("\n"));
        expect![[r#"
            debros_took_seconds_bucket{route="/x",le="16.777216"} 3
            debros_took_seconds_bucket{route="/x",le="+Inf"} 4
            debros_took_seconds_sum{route="/x"} 20.000139
            debros_took_seconds_count{route="/x"} 4"#]]
        .assert_eq(&lines[lines.len() - 4..].join("\n"));
    }
}
