//! JSON text, written straight into a buffer, as the network has always written it: compact, with `<`,
//! `>`, `&`, U+2028 and U+2029 escaped, numbers in their shortest form.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Which bytes of a string may need an escape: 0xe2 begins U+2028 and U+2029, among others.
const IS_SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 0x20 {
        table[at] = true;
        at += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

/// Append a string, with its quotes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    put_letters(out, text);
    out.push(b'"');
}

/// Append a part of a string, without quotes.
pub fn put_letters(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|it| IS_SPECIAL[usize::from(*it)]) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = put_special(out, special);
    }
    out.extend_from_slice(rest);
}

/// Append the character at the start of `text`, escaped if it must be; returns what follows it.
fn put_special<'a>(out: &mut Vec<u8>, text: &'a [u8]) -> &'a [u8] {
    match text {
        [0xe2, 0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return rest;
        }
        [b'"', ..] => out.extend_from_slice(b"\\\""),
        [b'\\', ..] => out.extend_from_slice(b"\\\\"),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [b'\t', ..] => out.extend_from_slice(b"\\t"),
        [0x08, ..] => out.extend_from_slice(b"\\b"),
        [0x0c, ..] => out.extend_from_slice(b"\\f"),
        [0xe2, ..] => out.push(0xe2),
        [it, ..] => {
            let (high, low) = (HEX[usize::from(it >> 4)], HEX[usize::from(it & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        [] => {}
    }
    text.get(1..).unwrap_or_default()
}

/// Append an integer.
pub fn put_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Append a float: the shortest text that reads back the same, with an exponent only below 1e-6 and
/// from 1e21 on, and `null` for what is no number.
pub fn put_real(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let size = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if size < EXACT && value.trunc().to_bits() == value.to_bits() && size > 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        put_integer(out, value as i64);
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let start = out.len();
        write!(out, "{value:e}").expect("a vector takes everything");
        if let Some(at) = out[start..].iter().position(|it| *it == b'e')
            && out.get(start + at + 1) != Some(&b'-')
        {
            out.insert(start + at + 1, b'+');
        }
    } else {
        write!(out, "{value}").expect("a vector takes everything");
    }
}

/// Append bytes as a base64 string, with its quotes.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    put_base64_letters(out, bytes);
    out.push(b'"');
}

/// The same without quotes; to be gone on with only behind a multiple of three bytes.
pub fn put_base64_letters(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let n = STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room");
    out.truncate(start + n);
}

/// Any value's text, escaped like the rest. For replies that are not frequent.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let plain = serde_json::to_string(value).expect("replies are plain data");
    let mut out = Vec::with_capacity(plain.len() + 1);
    let mut rest = plain.as_str();
    // These five stand in strings only, so they can be replaced without parsing.
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (before, special) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let left = put_special(&mut out, special.as_bytes());
        rest = &special[special.len() - left.len()..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_as_they_have_always_been_written() {
        for (value, want) in [
            (3.0, "3"),
            (-3.0, "-3"),
            (0.0, "0"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.3333333333333333"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(text(|out| put_real(out, value)), want);
        }
        assert_eq!(text(|out| put_integer(out, i64::MIN)), "-9223372036854775808");
    }

    #[test]
    fn characters_that_are_escaped() {
        for (value, want) in [
            ("a\"b\\c", r#""a\"b\\c""#),
            ("<a href='x'>&", r#""\u003ca href='x'\u003e\u0026""#),
            ("\u{2028}\u{2029}\u{2027}€", "\"\\u2028\\u2029\u{2027}€\""),
            ("\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}", "\"\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}\""),
        ] {
            assert_eq!(text(|out| put_text(out, value)), want);
            assert_eq!(String::from_utf8(to_vec(&value)).unwrap(), want);
        }
        assert_eq!(text(|out| put_base64(out, b"Hello")), r#""SGVsbG8=""#);
    }

    proptest! {
        #[test]
        fn every_text_and_number_reads_back(value in ".*", bits in any::<u64>()) {
            let written = text(|out| put_text(out, &value));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), value.clone());
            prop_assert_eq!(text(|out| out.extend(to_vec(&value))), written);
            let number = f64::from_bits(bits);
            if number.is_finite() {
                let written = text(|out| put_real(out, number));
                prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), bits);
            }
        }
    }
}
