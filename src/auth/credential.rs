//! Where a request carries its credential.
//!
//! | order | source |
//! |---|---|
//! | 1 | `Authorization: Bearer X`, `Authorization: ApiKey X`, or `Authorization: X` without a space |
//! | 2 | `X-API-Key: X` |
//! | 3 | query parameter `api_key`, else `token` |
//!
//! Schemes are case-insensitive, values are trimmed, an empty one is no credential, and another scheme
//! is skipped. Both headers may be present: it is enough that one of them is good. The query counts
//! only where the headers carry nothing.

use std::borrow::Cow;

/// The parts of a request that may carry a credential, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// Header `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// Header `X-API-Key`.
    pub api_key: Option<&'a [u8]>,
    /// The query, percent-encoded.
    pub query: Option<&'a str>,
}

impl<'a> Presented<'a> {
    /// The credentials to try, in order.
    pub fn credentials(&self) -> [Option<Cow<'a, [u8]>>; 2] {
        let first = self.authorization.and_then(authorization);
        let second = self.api_key.map(<[u8]>::trim_ascii).filter(|it| !it.is_empty());
        if first.is_some() || second.is_some() {
            return [first.map(Cow::Borrowed), second.map(Cow::Borrowed)];
        }
        let Some(query) = self.query else {
            return [None, None];
        };
        [parameter(query, "api_key").or_else(|| parameter(query, "token")), None]
    }
}

fn authorization(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let credential = match value.iter().position(|it| *it == b' ') {
        // A scheme alone cannot be told from a key.
        None => value,
        Some(at) => {
            let (scheme, rest) = value.split_at(at);
            let is_ours =
                scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"apikey");
            is_ours.then(|| rest.trim_ascii())?
        }
    };
    (!credential.is_empty()).then_some(credential)
}

/// The first parameter called `name`, decoded and trimmed; none if it is empty.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut pairs = query.split('&').map(|it| it.split_once('=').unwrap_or((it, "")));
    let (_, value) = pairs.find(|(key, _)| *decode(key, Plus::Space) == *name.as_bytes())?;
    let value = match decode(value, Plus::Space) {
        Cow::Borrowed(it) => Cow::Borrowed(it.trim_ascii()),
        Cow::Owned(it) => Cow::Owned(it.trim_ascii().to_vec()),
    };
    (!value.is_empty()).then_some(value)
}

/// What a plus sign means: in a query a space, in a path itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// A space.
    Space,
    /// A plus sign.
    Plus,
}

/// Undo percent-encoding. What is no valid escape stays as it is.
pub fn decode(text: &str, plus: Plus) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    let is_encoded = |it: &u8| *it == b'%' || (*it == b'+' && plus == Plus::Space);
    if !bytes.iter().any(is_encoded) {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            (b'+', _) if plus == Plus::Space => decoded.push(b' '),
            _ => decoded.push(first),
        }
    }
    Cow::Owned(decoded)
}

/// The value of a hexadecimal digit.
fn digit(it: u8) -> Option<u8> {
    match it {
        b'0'..=b'9' => Some(it - b'0'),
        b'a'..=b'f' => Some(it - b'a' + 10),
        b'A'..=b'F' => Some(it - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_a_credential() {
        for (authorization, api_key, query, want) in [
            ("Bearer k", "", "", "k -"),
            ("bEaReR   k ", "", "", "k -"),
            ("ApiKey k", "", "", "k -"),
            ("APIKEY k", "", "", "k -"),
            ("k", "", "", "k -"),
            ("Bearer", "", "", "Bearer -"),
            ("Basic k", "", "", "- -"),
            ("Basic k", "x", "", "- x"),
            ("Bearer k", " x ", "api_key=q", "k x"),
            ("", "", "api_key=q&token=t", "q -"),
            ("", "", "api_key=&token=t", "t -"),
            ("", "", "a=b&token=ak_1%3Ans", "ak_1:ns -"),
            ("", "", "token=ak_1:ns", "ak_1:ns -"),
            ("", "", "token=+a%2", "a%2 -"),
            ("", "", "token", "- -"),
        ] {
            let header = |it: &'static str| (!it.is_empty()).then_some(it.as_bytes());
            let presented = Presented {
                authorization: header(authorization),
                api_key: header(api_key),
                query: Some(query),
            };
            let got = presented.credentials().map(|it| {
                it.map_or_else(|| "-".to_owned(), |it| String::from_utf8(it.into_owned()).unwrap())
            });
            assert_eq!(got.join(" "), want, "{authorization:?} {api_key:?} {query:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(query in ".*", header in proptest::collection::vec(any::<u8>(), 0..40)) {
            let presented =
                Presented { authorization: Some(&header), api_key: None, query: Some(&query) };
            let _ = presented.credentials();
        }
    }
}
