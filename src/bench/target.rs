//! Where the server is, which API it speaks, and with which keys it is asked.

use std::net::SocketAddr;
use std::net::ToSocketAddrs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::bench::http;

/// The API of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/rqlite/…`
    Debros,
    /// `/db/…`
    Rqlite {
        /// Read consistency level, as the server names it.
        level: String,
    },
}

impl Api {
    /// The name of it, as people type it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Debros => "debros",
            Self::Rqlite { .. } => "rqlite",
        }
    }

    /// The header line that shows `key`. A key for rqlite is `user:password`.
    fn credential(&self, key: &str) -> String {
        match self {
            Self::Debros => format!("X-API-Key: {key}"),
            Self::Rqlite { .. } => format!("Authorization: Basic {}", STANDARD.encode(key)),
        }
    }
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its API.
    pub api: Api,
    /// Where it listens.
    pub address: SocketAddr,
    /// The URL, as it was given.
    pub url: String,
    /// Host and port of it.
    host: String,
    /// Path of it, without a slash at its end.
    path: String,
}

/// A URL that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not of the form `http://HOST:PORT`.
    #[error("{0}: a URL has the form http://HOST:PORT")]
    Form(String),
    /// The host has no address.
    #[error("{0}: the host is not known")]
    Host(String),
}

impl Target {
    /// Take a URL apart, and look its host up.
    pub fn parse(url: &str, api: Api) -> Result<Self, UrlError> {
        let form = || UrlError::Form(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(form)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let is_plain = |it: &str| it.bytes().all(|it| it.is_ascii_graphic() && it != b'#');
        if host.is_empty() || host.contains('@') || !is_plain(host) || !is_plain(path) {
            return Err(form());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, it)| it.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let address = authority.to_socket_addrs().ok().and_then(|mut it| it.next());
        let address = address.ok_or_else(|| UrlError::Host(url.to_owned()))?;
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { api, address, url: url.to_owned(), host: host.to_owned(), path })
    }

    /// How one key's namespace is asked.
    pub(super) fn tenant(&self, key: Option<&str>) -> Tenant {
        let credential = key.map(|it| self.api.credential(it));
        let head = |method: &str, path: &str| {
            let path = format!("{}{path}", self.path);
            http::head(method, &path, &self.host, credential.as_deref())
        };
        let plain = if self.path.is_empty() { "/" } else { "" };
        match &self.api {
            Api::Debros => Tenant {
                exec: head("POST", "/v1/rqlite/exec"),
                query: head("POST", "/v1/rqlite/query"),
                transaction: head("POST", "/v1/rqlite/transaction"),
                get: head("GET", plain),
            },
            Api::Rqlite { level } => Tenant {
                exec: head("POST", "/db/execute"),
                query: head("POST", &format!("/db/query?level={level}")),
                transaction: head("POST", "/db/execute?transaction"),
                get: head("GET", plain),
            },
        }
    }
}

/// A namespace, as requests address it: what stands before their bodies.
#[derive(Debug)]
pub(super) struct Tenant {
    /// One write.
    pub exec: Vec<u8>,
    /// One read.
    pub query: Vec<u8>,
    /// Several writes, all or none.
    pub transaction: Vec<u8>,
    /// The URL itself.
    pub get: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_lines(head: &[u8]) -> String {
        let text = String::from_utf8(head.to_vec()).unwrap();
        text.lines().take(3).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, address, path) in [
            ("http://127.0.0.1:6001", "127.0.0.1:6001", ""),
            ("http://127.0.0.1:6001/", "127.0.0.1:6001", ""),
            ("http://127.0.0.1/a/b", "127.0.0.1:80", "/a/b"),
            ("http://[::1]:7/x", "[::1]:7", "/x"),
            ("http://[::1]", "[::1]:80", ""),
        ] {
            let target = Target::parse(url, Api::Debros).unwrap();
            assert_eq!(
                (target.address.to_string(), &*target.path),
                (address.into(), path),
                "{url}"
            );
        }
        for url in ["", "127.0.0.1:1", "https://127.0.0.1", "http://", "http://a b", "http://u@h"] {
            assert!(matches!(Target::parse(url, Api::Debros), Err(UrlError::Form(_))), "{url}");
        }
        let unknown = Target::parse("http://nowhere.invalid:1", Api::Debros);
        assert!(matches!(unknown, Err(UrlError::Host(_))));
    }

    #[test]
    fn each_api_has_its_paths_and_its_credential() {
        let url = "http://127.0.0.1:6001/base";
        let tenant = Target::parse(url, Api::Debros).unwrap().tenant(Some("ak_1"));
        assert_eq!(
            first_lines(&tenant.exec),
            "POST /base/v1/rqlite/exec HTTP/1.1 | Host: 127.0.0.1:6001 | X-API-Key: ak_1"
        );
        assert!(tenant.get.starts_with(b"GET /base HTTP/1.1\r\n"));
        let api = Api::Rqlite { level: "weak".to_owned() };
        let target = Target::parse("http://127.0.0.1:4001", api).unwrap();
        let tenant = target.tenant(Some("bob:secret1"));
        assert_eq!(
            first_lines(&tenant.query),
            "POST /db/query?level=weak HTTP/1.1 | Host: 127.0.0.1:4001 | \
             Authorization: Basic Ym9iOnNlY3JldDE="
        );
        assert!(tenant.transaction.starts_with(b"POST /db/execute?transaction HTTP/1.1\r\n"));
        assert!(!String::from_utf8(target.tenant(None).exec).unwrap().contains("Authorization"));
    }
}
