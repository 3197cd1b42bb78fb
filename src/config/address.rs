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
    fn no_host_is_every_interface() {
        let addrs = HostPort::parse_listen(":6001").unwrap().socket_addrs().unwrap();
        assert_eq!(addrs, ["[::]:6001".parse().unwrap(), "0.0.0.0:6001".parse().unwrap()]);
        let addrs = HostPort::parse("127.0.0.1:1").unwrap().socket_addrs().unwrap();
        assert_eq!(addrs, ["127.0.0.1:1".parse().unwrap()]);
    }
}
