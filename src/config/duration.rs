//! Durations as people write and read them: `15s`, `1h30m`, `2m0s`, `350µs`.
//!
//! The grammar is `[+-](<decimal><unit>)+` or `0`, with the units `ns us µs ms s m h`. Inside the
//! configuration a duration is a signed count of nanoseconds until the rules have accepted it.

use std::fmt::Write;
use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the grammar, or beyond 64 bits of nanoseconds.
    #[error("invalid duration {0:?}")]
    Invalid(String),
    /// A number stands alone.
    #[error("missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that nobody knows.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// What stands where the unit should be.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Nanoseconds of `text`, such as `1.5s` or `-2m`. Fractions of a nanosecond are cut off.
pub fn parse_go_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(it) => digits(it),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let is_number = |it: char| it == '.' || it.is_ascii_digit();
        let end = after_number.find(is_number).unwrap_or(after_number.len());
        let unit = match &after_number[..end] {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unit => {
                let unit = unit.to_owned();
                return Err(DurationError::UnknownUnit { unit, text: text.to_owned() });
            }
        };
        total += number(whole).ok_or_else(invalid)? * unit;
        // 13 digits are finer than a nanosecond in every unit up to the hour.
        let fraction = &fraction[..fraction.len().min(13)];
        let scale = fraction.bytes().fold(1, |scale: i128, _| scale * 10);
        total += number(fraction).ok_or_else(invalid)? * unit / scale;
        if total > i128::from(i64::MAX) + 1 {
            return Err(invalid());
        }
        rest = &after_number[end..];
    }
    i64::try_from(if is_negative { -total } else { total }).map_err(|_| invalid())
}

/// `duration` as text, at most nine decimals: `1h2m3.5s`, `1.5s`, `350µs`, `2m0s`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    format_nanos(duration.as_nanos())
}

/// Like [`format_go_duration`], for a signed count of nanoseconds.
pub fn format_go_nanos(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}", format_nanos(nanos.unsigned_abs().into()))
}

fn format_nanos(nanos: u128) -> String {
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 6)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let mut text = String::new();
            if minutes >= 60 {
                write!(text, "{}h", minutes / 60).expect("a String takes all");
            }
            if minutes > 0 {
                write!(text, "{}m", minutes % 60).expect("a String takes all");
            }
            text + &decimal(nanos % 60_000_000_000, 9) + "s"
        }
    }
}

/// `n` divided by ten to the power `places`, without trailing zeros.
fn decimal(n: u128, places: usize) -> String {
    let scale = 10_u128.pow(u32::try_from(places).expect("a handful"));
    let fraction = format!("{:0places$}", n % scale);
    match fraction.trim_end_matches('0') {
        "" => (n / scale).to_string(),
        fraction => format!("{}.{fraction}", n / scale),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len()))
}

/// The number of these digits, if it can be part of a duration; no digits are zero.
fn number(digits: &str) -> Option<i128> {
    if digits.is_empty() {
        Some(0)
    } else {
        digits.parse::<i64>().ok().map(i128::from).or_else(|| {
            // One more than the largest is a duration, too, if it is negative.
            (digits.trim_start_matches('0') == "9223372036854775808").then_some(1 << 63)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, want) in [
            ("0", 0),
            ("15s", 15_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("3.9999999999ns", 3),
            ("0.1ns", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("2562047h47m16.854775807s", i64::MAX),
        ] {
            assert_eq!(parse_go_duration(text), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told() {
        for (text, want) in [
            ("", "invalid duration \"\""),
            ("s", "invalid duration \"s\""),
            ("-", "invalid duration \"-\""),
            (".s", "invalid duration \".s\""),
            ("5", "missing unit in duration \"5\""),
            ("1ms5", "missing unit in duration \"1ms5\""),
            ("1.5.5s", "missing unit in duration \"1.5.5s\""),
            ("1d", "unknown unit \"d\" in duration \"1d\""),
            ("1h 5s", "unknown unit \"h \" in duration \"1h 5s\""),
            ("1h-5m", "unknown unit \"h-\" in duration \"1h-5m\""),
            ("9223372036854775808ns", "invalid duration \"9223372036854775808ns\""),
            ("2562048h", "invalid duration \"2562048h\""),
            ("99999999999999999999999h", "invalid duration \"99999999999999999999999h\""),
        ] {
            assert_eq!(parse_go_duration(text).unwrap_err().to_string(), want, "{text:?}");
        }
    }

    #[test]
    fn durations_are_printed() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (999, "999ns"),
            (1_000, "1µs"),
            (1_001, "1.001µs"),
            (350_000, "350µs"),
            (999_999, "999.999µs"),
            (1_000_001, "1.000001ms"),
            (1_500_000, "1.5ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (61_000_000_001, "1m1.000000001s"),
            (120_000_000_000, "2m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_603_200_000_000, "1h0m3.2s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(format_go_nanos(nanos), want, "{nanos}");
        }
        assert_eq!(format_go_duration(Duration::from_micros(350)), "350µs");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(nanos: i64) {
            prop_assert_eq!(parse_go_duration(&format_go_nanos(nanos)), Ok(nanos));
        }

        #[test]
        fn any_text_is_answered(text in "[-+0-9.a-zµ ]{0,24}|.*") {
            let _ = parse_go_duration(&text); // must return
        }
    }
}
