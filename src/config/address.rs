//! `host:port`, as configurations write it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;

/// A host, by name or number, and a port that is not zero. An empty host means every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets around an IPv6 address.
    pub host: String,
    /// Not zero.
    pub port: u16,
}

impl HostPort {
    /// Where to listen, best first. Asks the resolver if the host is a name, and blocks meanwhile.
    pub fn socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            // One socket for both families, or the old one where the kernel has no IPv6.
            let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            return Ok(any.map(|ip| SocketAddr::new(ip, self.port)).to_vec());
        }
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }

    /// Whether two sockets, one on each, would take something from each other: the port is the same, and one host
    /// is every interface of the other's kind, or both are the same. A name is compared as a name, but for
    /// `localhost`.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let is_same = match (self.ip(), other.ip()) {
            (Some(one), Some(two)) => covers(one, two) || covers(two, one) || one == two,
            // A name may be any address.
            (Some(ip), None) | (None, Some(ip)) => {
                let is_localhost = self.is_localhost() || other.is_localhost();
                ip.is_unspecified() || (is_localhost && ip.is_loopback())
            }
            (None, None) => self.host.eq_ignore_ascii_case(&other.host),
        };
        self.port == other.port && is_same
    }

    /// The host, if it is a number, or nothing.
    fn ip(&self) -> Option<IpAddr> {
        if self.host.is_empty() {
            return Some(Ipv6Addr::UNSPECIFIED.into());
        }
        self.host.parse::<IpAddr>().ok().map(|it| it.to_canonical())
    }

    fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }

    /// Read the address of somebody else: the host must be there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split(text).ok_or("expected format host:port")?;
        if host.is_empty() {
            return Err("host must not be empty".to_owned());
        }
        Ok(Self { host: host.to_owned(), port: parse_port(port)? })
    }

    /// Read an address to listen on: without a host it is every interface.
    pub(super) fn parse_listen(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let (host, port) = split(text).ok_or("invalid format; expected host:port")?;
        Ok(Self { host: host.to_owned(), port: parse_port(port)? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether a socket on `any` takes what comes to `ip`: the new family's wildcard takes that of both.
fn covers(any: IpAddr, ip: IpAddr) -> bool {
    any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4())
}

/// Cut at the colon. An IPv6 address needs its brackets.
fn split(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return host.parse::<Ipv6Addr>().is_ok().then_some((host, port));
    }
    text.split_once(':').filter(|(_, port)| !port.contains(':'))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let is_number = text.bytes().all(|it| it.is_ascii_digit());
    text.parse::<u16>()
        .ok()
        .filter(|port| is_number && *port > 0)
        .ok_or_else(|| format!("port must be a number between 1 and 65535; got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        const FORMAT: &str = "expected format host:port";
        for (text, want) in [
            ("10.0.0.1:7001", Ok("10.0.0.1:7001")),
            ("db.example:1", Ok("db.example:1")),
            ("[::1]:65535", Ok("[::1]:65535")),
            ("", Err(FORMAT)),
            ("host", Err(FORMAT)),
            ("::1:7001", Err(FORMAT)),
            ("[::1]", Err(FORMAT)),
            ("[host]:1", Err(FORMAT)),
            ("http://host:7001", Err(FORMAT)),
            (":7001", Err("host must not be empty")),
            ("host:", Err("port must be a number between 1 and 65535; got \"\"")),
            ("host:0", Err("port must be a number between 1 and 65535; got \"0\"")),
            ("host:+5", Err("port must be a number between 1 and 65535; got \"+5\"")),
            ("host:65536", Err("port must be a number between 1 and 65535; got \"65536\"")),
        ] {
            let got = HostPort::parse(text).map(|it| it.to_string());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{text:?}");
        }
        assert_eq!(HostPort::parse_listen(":6001").unwrap().to_string(), ":6001");
        assert_eq!(HostPort::parse_listen("").unwrap_err(), "must not be empty");
        assert_eq!(
            HostPort::parse_listen("6001").unwrap_err(),
            "invalid format; expected host:port"
        );
    }

    #[test]
    fn what_overlaps() {
        for (one, two, want) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:01", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            (":1", "127.0.0.1:1", true),
            (":1", "[::1]:1", true),
            (":1", ":2", false),
            ("0.0.0.0:1", "10.0.0.1:1", true),
            ("0.0.0.0:1", ":1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "10.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("[0:0::1]:1", "[::1]:1", true),
            ("localhost:1", "127.0.0.1:1", true),
            ("LocalHost:1", "[::1]:1", true),
            ("localhost:1", "0.0.0.0:1", true),
            ("localhost:1", "10.0.0.1:1", false),
            ("a.example:1", "A.example:1", true),
            ("a.example:1", "b.example:1", false),
            ("a.example:1", ":1", true),
            ("a.example:1", "127.0.0.1:1", false),
        ] {
            let [one, two] = [one, two].map(|it| HostPort::parse_listen(it).unwrap());
            assert_eq!(one.overlaps(&two), want, "{one} {two}");
            assert_eq!(two.overlaps(&one), want, "{two} {one}");
        }
    }

    #[test]
    fn no_host_is_every_interface() {
        let addrs = HostPort::parse_listen(":6001").unwrap().socket_addrs().unwrap();
        assert_eq!(addrs, ["[::]:6001".parse().unwrap(), "0.0.0.0:6001".parse().unwrap()]);
        let addrs = HostPort::parse("127.0.0.1:1").unwrap().socket_addrs().unwrap();
        assert_eq!(addrs, ["127.0.0.1:1".parse().unwrap()]);
    }
}
