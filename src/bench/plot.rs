//! The result as a picture: latency by percentile, and throughput over time, one line for each group of each
//! phase. SVG, written by hand.

use std::fmt::Write as _;

use crate::bench::report::GroupReport;
use crate::bench::report::PhaseReport;
use crate::bench::report::Report;
use crate::bench::text::rounded;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 640.0;
/// The frame of a chart.
const LEFT: f64 = 80.0;
const PLOT_WIDTH: f64 = 640.0;
const PLOT_HEIGHT: f64 = 210.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#2ca02c", "#d62728", "#9467bd"];

/// One direction of a chart: where it begins and ends, and what is written at it.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A line: its name, and points in the units of the axes.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Report {
    /// The report as a picture.
    pub fn plot(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let title = format!("{}, {} ({})", self.scenario, self.url, self.api);
        label(&mut svg, WIDTH / 2.0, 20.0, "middle", &title);
        let groups = || self.phases.iter().flat_map(|it| it.groups.iter().map(move |of| (it, of)));
        let curves: Vec<_> =
            groups().map(|(phase, it)| latency(self.line_name(phase, it), it)).collect();
        let (across, up) = (percentiles(&curves), powers(&curves));
        chart(&mut svg, 45.0, "latency by percentile, us", &across, &up, &curves);
        let rates: Vec<_> =
            groups().map(|(phase, it)| throughput(self.line_name(phase, it), it)).collect();
        let (across, up) = (linear(&rates, |it| it.0), linear(&rates, |it| it.1));
        chart(&mut svg, 345.0, "requests per second, over seconds", &across, &up, &rates);
        svg.push_str("</svg>\n");
        svg
    }

    fn line_name(&self, phase: &PhaseReport, group: &GroupReport) -> String {
        match (self.phases.len(), phase.groups.len()) {
            (1, 1) => format!("{} clients", group.clients),
            _ => format!("{}, {}", group.name, phase.name),
        }
    }
}

/// Percentiles lie as far apart as nines: 90 %, 99 %, 99.9 % at equal distances. Latencies by their powers of ten.
fn latency(name: String, group: &GroupReport) -> Line {
    let points = group.latency_us.curve.iter();
    let points = points.map(|(quantile, us)| (-(1.0 - quantile).log10(), us.max(1.0).log10()));
    Line { name, points: points.collect() }
}

fn throughput(name: String, group: &GroupReport) -> Line {
    let middle = |nth: u32| (f64::from(nth) + 0.5) * group.step_seconds;
    let rates = (0_u32..).zip(&group.operations_per_second_over_time);
    Line { name, points: rates.map(|(nth, rate)| (middle(nth), *rate)).collect() }
}

fn percentiles(lines: &[Line]) -> Axis {
    let high = greatest(lines, |it| it.0).max(1.0);
    let names = [
        (0.0, "0 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    let ticks = names.into_iter().filter(|it| it.0 <= high);
    Axis { low: 0.0, high, ticks: ticks.map(|(at, name)| (at, name.to_owned())).collect() }
}

fn powers(lines: &[Line]) -> Axis {
    let low = least(lines, |it| it.1).floor();
    let high = greatest(lines, |it| it.1).ceil().max(low + 1.0);
    let ticks = (0..10_u32).map(|it| low + f64::from(it)).filter(|it| *it <= high);
    Axis { low, high, ticks: ticks.map(|it| (it, rounded(10_f64.powf(it)))).collect() }
}

/// From zero to a round number.
fn linear(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> Axis {
    let most = greatest(lines, of).max(1e-9);
    let power = 10_f64.powf(most.log10().floor());
    let step = [0.2, 0.5, 1.0, 2.0].into_iter().map(|it| it * power).find(|it| most / it <= 6.0);
    let step = step.unwrap_or(2.0 * power);
    let high = (most / step).ceil() * step;
    let ticks = (0..8_u32).map(|it| f64::from(it) * step).filter(|it| *it <= high + step / 2.0);
    Axis { low: 0.0, high, ticks: ticks.map(|it| (it, rounded(it))).collect() }
}

fn greatest(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    lines.iter().flat_map(|it| &it.points).map(of).fold(0.0, f64::max)
}

fn least(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let least = lines.iter().flat_map(|it| &it.points).map(of).fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 0.0 }
}

fn chart(svg: &mut String, top: f64, title: &str, across: &Axis, up: &Axis, lines: &[Line]) {
    let x = |it: f64| LEFT + PLOT_WIDTH * (it - across.low) / (across.high - across.low);
    let bottom = top + 15.0 + PLOT_HEIGHT;
    let y = |it: f64| bottom - PLOT_HEIGHT * (it - up.low) / (up.high - up.low);
    label(svg, LEFT, top + 5.0, "start", title);
    for (at, name) in &across.ticks {
        stroke(svg, "#ddd", &[(x(*at), bottom), (x(*at), bottom - PLOT_HEIGHT)]);
        label(svg, x(*at), bottom + 16.0, "middle", name);
    }
    for (at, name) in &up.ticks {
        stroke(svg, "#ddd", &[(LEFT, y(*at)), (LEFT + PLOT_WIDTH, y(*at))]);
        label(svg, LEFT - 6.0, y(*at) + 4.0, "end", name);
    }
    for (nth, line) in lines.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        let points: Vec<_> = line.points.iter().map(|it| (x(it.0), y(it.1))).collect();
        stroke(svg, colour, &points);
        let at = LEFT + 10.0 + 210.0 * f64::from(u32::try_from(nth).unwrap_or(0));
        stroke(svg, colour, &[(at, bottom + 30.0), (at + 20.0, bottom + 30.0)]);
        label(svg, at + 26.0, bottom + 34.0, "start", &line.name);
    }
}

fn stroke(svg: &mut String, colour: &str, points: &[(f64, f64)]) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    put(
        svg,
        format_args!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n",
            points.join(" ")
        ),
    );
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    put(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"),
    );
}

fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    svg.write_fmt(what).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing;

    #[test]
    fn every_line_stays_in_its_frame_and_every_tag_is_closed() {
        let svg = testing::report("http://h:1/?a=1&b=<2>").plot();
        assert!(svg.contains("a=1&amp;b=&lt;2&gt;"), "{svg}");
        let lines: Vec<_> = svg.split("points=\"").skip(1).collect();
        assert!(lines.len() > 10, "{svg}");
        for line in lines {
            let (points, _) = line.split_once('"').unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..=LEFT + PLOT_WIDTH).contains(&x), "{point} in {svg}");
                assert!((45.0..=HEIGHT).contains(&y), "{point} in {svg}");
            }
        }
        for tag in ["svg", "text"] {
            let opened = svg.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (most, want) in [
            (32_446.0, "0.0 10 000 20 000 30 000 40 000"),
            (10.0, "0.0 2.0 4.0 6.0 8.0 10.0"),
            (0.7, "0.0 0.2 0.4 0.6 0.8"),
        ] {
            let line = Line { name: String::new(), points: vec![(0.0, most)] };
            let ticks: Vec<_> =
                linear(&[line], |it| it.1).ticks.into_iter().map(|it| it.1).collect();
            assert_eq!(ticks.join(" "), want);
        }
    }
}
