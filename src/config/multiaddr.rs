//! libp2p addresses as text: `/ip4/10.0.0.1/tcp/4001/p2p/12D3KooW…`.
//!
//! Only what a configuration needs: is the text an address, where does it point, whom does it name.
//! The errors are worded as go-multiaddr words them, because operators search for those words.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use libp2p_identity::PeerId;

/// A checked address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiaddr {
    text: String,
    parts: Vec<Part>,
}

/// One protocol of an address and its argument, which is empty for those that take none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    protocol: &'static str,
    value: String,
}

/// The text is not an address. The first field is the text, the second what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse multiaddr {0:?}: {1}")]
pub struct MultiaddrError(String, String);

/// What follows the name of a protocol.
#[derive(Clone, Copy)]
enum Argument {
    None,
    Ip4,
    Ip6,
    Port,
    Dns,
    Peer,
    /// One component, taken as it is.
    Opaque,
    /// All the rest.
    Path,
}

const PROTOCOLS: &[(&str, Argument)] = &[
    ("ip4", Argument::Ip4),
    ("ip6", Argument::Ip6),
    ("ip6zone", Argument::Opaque),
    ("dns", Argument::Dns),
    ("dns4", Argument::Dns),
    ("dns6", Argument::Dns),
    ("dnsaddr", Argument::Dns),
    ("tcp", Argument::Port),
    ("udp", Argument::Port),
    ("dccp", Argument::Port),
    ("sctp", Argument::Port),
    ("quic", Argument::None),
    ("quic-v1", Argument::None),
    ("tls", Argument::None),
    ("noise", Argument::None),
    ("sni", Argument::Dns),
    ("ws", Argument::None),
    ("wss", Argument::None),
    ("http", Argument::None),
    ("https", Argument::None),
    ("webtransport", Argument::None),
    ("webrtc", Argument::None),
    ("webrtc-direct", Argument::None),
    ("certhash", Argument::Opaque),
    ("p2p", Argument::Peer),
    ("ipfs", Argument::Peer), // the old name of p2p
    ("p2p-circuit", Argument::None),
    ("unix", Argument::Path),
];

impl Multiaddr {
    /// Check `text`.
    pub fn parse(text: &str) -> Result<Self, MultiaddrError> {
        let trimmed = text.trim_end_matches('/');
        let wrong = |what: String| MultiaddrError(trimmed.to_owned(), what);
        if trimmed.is_empty() {
            return Err(wrong("empty multiaddr".to_owned()));
        }
        let Some(rest) = trimmed.strip_prefix('/') else {
            return Err(wrong("must begin with /".to_owned()));
        };
        let mut components = rest.split('/');
        let mut parts = Vec::new();
        while let Some(name) = components.next() {
            let Some(&(protocol, argument)) = PROTOCOLS.iter().find(|(it, _)| *it == name) else {
                return Err(wrong(format!("unknown protocol {name}")));
            };
            let value = match argument {
                Argument::None => String::new(),
                Argument::Path => components.by_ref().collect::<Vec<_>>().join("/"),
                _ => match components.next() {
                    Some(it) => it.to_owned(),
                    None => return Err(wrong("unexpected end of multiaddr".to_owned())),
                },
            };
            check(argument, protocol, &value).map_err(|what| {
                wrong(format!("invalid value {value:?} for protocol {protocol}: {what}"))
            })?;
            let protocol = if protocol == "ipfs" { "p2p" } else { protocol };
            parts.push(Part { protocol, value });
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whom the address names: its last `/p2p/` part.
    pub fn peer(&self) -> Option<PeerId> {
        self.last("p2p")?.parse().ok()
    }

    /// The port of its first `/tcp/` part.
    pub fn tcp_port(&self) -> Option<u16> {
        self.parts.iter().find(|it| it.protocol == "tcp")?.value.parse().ok()
    }

    /// Where to listen, if the address is an IP address and a TCP port and nothing else.
    pub fn socket_addr(&self) -> Result<SocketAddr, String> {
        let [Part { protocol, value }, rest @ ..] = self.parts.as_slice() else {
            return Err("empty multiaddr".to_owned());
        };
        let ip: IpAddr = match (*protocol, value.parse()) {
            ("ip4" | "ip6", Ok(ip)) => ip,
            ("dns" | "dns4" | "dns6" | "dnsaddr" | "ip6zone", _) => {
                return Err(format!("network not supported: {protocol}"));
            }
            _ => return Err(format!("{} is not a 'thin waist' address", self.text)),
        };
        match rest {
            [Part { protocol: "tcp", value }] => match value.parse() {
                Ok(port) => Ok(SocketAddr::new(ip, port)),
                Err(error) => Err(format!("invalid TCP port: {error}")),
            },
            [] => Err("missing port".to_owned()),
            [.., last] => Err(format!("network not supported: {}", last.protocol)),
        }
    }

    fn last(&self, protocol: &str) -> Option<&str> {
        self.parts.iter().rev().find(|it| it.protocol == protocol).map(|it| it.value.as_str())
    }
}

impl fmt::Display for Multiaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn check(argument: Argument, protocol: &str, value: &str) -> Result<(), String> {
    let fits = match argument {
        Argument::Ip4 => value.parse::<Ipv4Addr>().is_ok(),
        Argument::Ip6 => value.parse::<Ipv6Addr>().is_ok(),
        Argument::Port => return check_port(value),
        Argument::Dns if value.is_empty() => return Err("empty dns addr".to_owned()),
        Argument::None | Argument::Dns => true,
        Argument::Peer => return check_peer(value),
        Argument::Opaque | Argument::Path => !value.is_empty(),
    };
    if fits { Ok(()) } else { Err(format!("failed to parse {protocol} addr: {value}")) }
}

fn check_port(value: &str) -> Result<(), String> {
    let is_number = !value.is_empty() && value.bytes().all(|it| it.is_ascii_digit());
    match (is_number, value.parse::<u16>()) {
        (true, Ok(_)) => Ok(()),
        (is_number, _) => {
            let what = if is_number { "value out of range" } else { "invalid syntax" };
            Err(format!("failed to parse port addr: strconv.ParseUint: parsing {value:?}: {what}"))
        }
    }
}

fn check_peer(value: &str) -> Result<(), String> {
    // Base58 of a multihash; the CID form of peer ids is not taken.
    let what = if !value.starts_with("Qm") && !value.starts_with('1') {
        "selected encoding not supported"
    } else if value.parse::<PeerId>().is_err() {
        "input isn't valid multihash"
    } else {
        return Ok(());
    };
    Err(format!("failed to parse p2p addr: {value} {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";

    #[test]
    fn what_is_no_address_is_told() {
        for (text, shown, want) in [
            ("", "", "empty multiaddr"),
            ("//", "", "empty multiaddr"),
            ("abc", "abc", "must begin with /"),
            ("ip4/1.2.3.4", "ip4/1.2.3.4", "must begin with /"),
            ("/ip4/", "/ip4", "unexpected end of multiaddr"),
            ("/ip4/1.2.3.4/tcp/", "/ip4/1.2.3.4/tcp", "unexpected end of multiaddr"),
            ("/foo/1", "/foo/1", "unknown protocol foo"),
            ("/ip4/1.2.3.4//tcp/1", "/ip4/1.2.3.4//tcp/1", "unknown protocol "),
            (
                "/ip4/1.2.3/tcp/1",
                "/ip4/1.2.3/tcp/1",
                "invalid value \"1.2.3\" for protocol ip4: failed to parse ip4 addr: 1.2.3",
            ),
            (
                "/ip4/01.2.3.4",
                "/ip4/01.2.3.4",
                "invalid value \"01.2.3.4\" for protocol ip4: failed to parse ip4 addr: 01.2.3.4",
            ),
            (
                "/ip6/fe80::1%eth0",
                "/ip6/fe80::1%eth0",
                "invalid value \"fe80::1%eth0\" for protocol ip6: failed to parse ip6 addr: fe80::1%eth0",
            ),
            (
                "/dns4//tcp/1",
                "/dns4//tcp/1",
                "invalid value \"\" for protocol dns4: empty dns addr",
            ),
            (
                "/ip4/1.2.3.4/tcp/99999",
                "/ip4/1.2.3.4/tcp/99999",
                "invalid value \"99999\" for protocol tcp: failed to parse port addr: \
                 strconv.ParseUint: parsing \"99999\": value out of range",
            ),
            (
                "/ip4/1.2.3.4/tcp/+5",
                "/ip4/1.2.3.4/tcp/+5",
                "invalid value \"+5\" for protocol tcp: failed to parse port addr: \
                 strconv.ParseUint: parsing \"+5\": invalid syntax",
            ),
            (
                "/tcp/1/p2p/abc",
                "/tcp/1/p2p/abc",
                "invalid value \"abc\" for protocol p2p: failed to parse p2p addr: \
                 abc selected encoding not supported",
            ),
            (
                "/tcp/1/p2p/12D3KooWPLACEHOLDER",
                "/tcp/1/p2p/12D3KooWPLACEHOLDER",
                "invalid value \"12D3KooWPLACEHOLDER\" for protocol p2p: failed to parse p2p addr: \
                 12D3KooWPLACEHOLDER input isn't valid multihash",
            ),
        ] {
            let want = format!("failed to parse multiaddr {shown:?}: {want}");
            assert_eq!(Multiaddr::parse(text).unwrap_err().to_string(), want, "{text:?}");
        }
    }

    #[test]
    fn an_address_says_where_and_whom() {
        for (text, port, has_peer) in [
            (format!("/ip4/1.2.3.4/tcp/4001/p2p/{PEER}"), Some(4001), true),
            (format!("/ip4/1.2.3.4/tcp/4001/ipfs/{PEER}/"), Some(4001), true),
            (format!("/dns4/example.com/tcp/4001/wss/p2p/{PEER}"), Some(4001), true),
            (format!("/p2p/{PEER}"), None, true),
            ("/ip4/1.2.3.4/udp/4001/quic-v1".to_owned(), None, false),
            ("/ip6/::1/tcp/0".to_owned(), Some(0), false),
            ("/unix/a/b".to_owned(), None, false),
        ] {
            let address = Multiaddr::parse(&text).unwrap();
            assert_eq!(address.tcp_port(), port, "{text}");
            assert_eq!(address.peer().map(|it| it.to_string()), has_peer.then(|| PEER.to_owned()));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn only_ip_and_tcp_can_be_listened_on() {
        for (text, want) in [
            ("/ip4/0.0.0.0/tcp/4001", Ok("0.0.0.0:4001")),
            ("/ip6/::1/tcp/1", Ok("[::1]:1")),
            ("/ip4/1.2.3.4", Err("missing port")),
            ("/ip4/1.2.3.4/udp/4001", Err("network not supported: udp")),
            ("/ip4/1.2.3.4/udp/4001/quic-v1", Err("network not supported: quic-v1")),
            ("/ip4/1.2.3.4/tcp/4001/ws", Err("network not supported: ws")),
            ("/dns4/a/tcp/1", Err("network not supported: dns4")),
            ("/tcp/4001", Err("/tcp/4001 is not a 'thin waist' address")),
        ] {
            let got = Multiaddr::parse(text).unwrap().socket_addr();
            assert_eq!(
                got.map(|it| it.to_string()),
                want.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*|(/(ip4|ip6|tcp|p2p|dns|unix|[a-z0-9.:]{0,8})){0,6}") {
            if let Ok(address) = Multiaddr::parse(&text) {
                let _ = (address.peer(), address.tcp_port(), address.socket_addr()); // must return
            }
        }
    }
}
