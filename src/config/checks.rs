//! What broken rules are noted in, and the checks that many keys share.
//!
//! A check takes the path of its key and yields the checked value, or notes why there is none.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::duration::format_go_nanos;
use crate::config::multiaddr::Multiaddr;
use crate::config::paths;
use crate::types::Namespace;

/// Collects what is wrong.
pub(super) struct Rules {
    /// `path: message` each.
    pub errors: Vec<String>,
}

impl Rules {
    /// Begin with what is known to be wrong already.
    pub(super) fn new(errors: Vec<String>) -> Self {
        Self { errors }
    }

    pub(super) fn wrong(&mut self, path: &str, message: impl Display) {
        self.errors.push(format!("{path}: {message}"));
    }

    /// The value, or a note of why there is none.
    pub(super) fn check<T>(&mut self, path: &str, result: Result<T, impl Display>) -> Option<T> {
        result.map_err(|message| self.wrong(path, message)).ok()
    }

    /// `value` if it is in `range`.
    pub(super) fn between<T: TryFrom<i64>>(
        &mut self,
        path: &str,
        value: i64,
        range: RangeInclusive<i64>,
    ) -> Option<T> {
        let (first, last) = (range.start(), range.end());
        let fits = T::try_from(value).ok().filter(|_| range.contains(&value));
        if fits.is_none() {
            self.wrong(path, format!("must be between {first} and {last}; got {value}"));
        }
        fits
    }

    /// `value` if it is in `range`, of which people only ever miss one end at a time.
    pub(super) fn at_least<T: TryFrom<i64>>(
        &mut self,
        path: &str,
        value: i64,
        range: RangeInclusive<i64>,
    ) -> Option<T> {
        let (first, last) = (*range.start(), *range.end());
        match T::try_from(value) {
            Ok(it) if range.contains(&value) => return Some(it),
            _ if value < first => self.wrong(path, format!("must be >= {first}; got {value}")),
            _ => self.wrong(path, format!("must be <= {last}; got {value}")),
        }
        None
    }

    pub(super) fn port(&mut self, path: &str, value: i64) -> Option<u16> {
        self.between(path, value, 1..=65_535)
    }

    /// A duration that is longer than nothing.
    pub(super) fn positive(&mut self, path: &str, nanos: i64) -> Option<Duration> {
        match u64::try_from(nanos) {
            Ok(nanos @ 1..) => return Some(Duration::from_nanos(nanos)),
            _ => self.wrong(path, format!("must be > 0; got {}", format_go_nanos(nanos))),
        }
        None
    }

    pub(super) fn namespace(&mut self, path: &str, name: &str) -> Option<Namespace> {
        if name.is_empty() {
            self.wrong(path, "must not be empty");
            return None;
        }
        let hint = "expected 1 to 64 of A-Z, a-z, 0-9, _ and -";
        self.check(path, Namespace::new(name).map_err(|error| format!("{error}; {hint}")))
    }

    /// Peers to connect to: each an address with a TCP port and a peer id, none twice.
    pub(super) fn bootstrap_peers(
        &mut self,
        path: &str,
        texts: &[String],
    ) -> Option<Vec<Multiaddr>> {
        const HINT: &str = "expected /ip{4,6}/.../tcp/<port>/p2p/<peerID>";
        let check = |(at, text): (usize, &String)| {
            let address = Multiaddr::parse(text)
                .map_err(|error| format!("invalid multiaddr: {error}; {HINT}"))?;
            if address.peer().is_none() {
                return Err(format!("missing /p2p/<peerID> component; {HINT}"));
            }
            match address.tcp_port() {
                None => return Err(format!("missing /tcp/<port> component; {HINT}")),
                Some(0) => return Err(port_zero()),
                Some(_) => {}
            }
            if texts.iter().take(at).any(|it| it == text) {
                return Err("duplicate bootstrap peer".to_owned());
            }
            Ok(address)
        };
        let checked = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.check(&format!("{path}[{at}]"), check((at, text))));
        // All are looked at, so that all are told.
        checked.collect::<Vec<_>>().into_iter().collect()
    }

    pub(super) fn directory(&mut self, path: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            self.wrong(path, "must not be empty");
            return None;
        }
        let directory = PathBuf::from(text);
        self.check(path, paths::check_directory(&directory))?;
        Some(directory)
    }
}

/// The message about a word that is none of `allowed`.
pub(super) fn one_of(word: &str, allowed: &str) -> String {
    format!("invalid value {word:?}; allowed values: {allowed}")
}

/// The message about a TCP port of zero.
pub(super) fn port_zero() -> String {
    "invalid TCP port 0; port must be between 1 and 65535".to_owned()
}
