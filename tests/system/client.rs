//! A small HTTP/1.1 client: one keep-alive connection, JSON in and out.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;
use serde_json::json;

use crate::process::PATIENCE;

/// A connection to a gateway.
pub(crate) struct Client {
    stream: TcpStream,
    key: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, it)| &**it)
    }
}

impl Client {
    pub(crate) fn try_connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, key: "k1".to_owned() })
    }

    /// Use another key.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    pub(crate) fn get(&self, path: &str) -> io::Result<Reply> {
        self.request("GET", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> io::Result<Reply> {
        self.request("POST", path, &body.to_string())
    }

    /// Write under an `Idempotency-Key`.
    pub(crate) fn post_as(&self, key: &str, path: &str, body: &Value) -> io::Result<Reply> {
        let header = format!("Idempotency-Key: {key}\r\n");
        self.request_with(&header, "POST", path, &body.to_string())
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> io::Result<Reply> {
        self.request_with("", method, path, body)
    }

    /// With more headers, each with its line end.
    pub(crate) fn request_with(
        &self,
        headers: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Reply> {
        let key = if self.key.is_empty() {
            String::new()
        } else {
            format!("X-API-Key: {}\r\n", self.key)
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\n{key}{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (&self.stream).write_all(request.as_bytes())?;
        self.read()
    }

    /// Send text as it is.
    pub(crate) fn send(&self, text: &str) -> io::Result<()> {
        (&self.stream).write_all(text.as_bytes())
    }

    /// All that comes until the other side closes.
    pub(crate) fn read_to_end(&self) -> io::Result<String> {
        let mut text = String::new();
        (&self.stream).read_to_string(&mut text)?;
        Ok(text)
    }

    pub(crate) fn read(&self) -> io::Result<Reply> {
        let mut reader = BufReader::new(&self.stream);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            }
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Reply { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Write; panics unless it is done.
    pub(crate) fn exec(&self, sql: &str, args: &Value) -> Value {
        let reply = self.post("/v1/rqlite/exec", &json!({ "sql": sql, "args": args }));
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{sql}: {}", reply.body);
        reply.json()
    }

    /// Read; the rows as arrays.
    pub(crate) fn rows(&self, sql: &str) -> Value {
        let reply = self.post("/v1/rqlite/query", &json!({ "sql": sql })).expect("an answer");
        assert_eq!(reply.status, 200, "{sql}: {}", reply.body);
        reply.json()["rows"].take()
    }

    /// Status and error text of a request that is refused.
    pub(crate) fn refused(&self, path: &str, body: &Value) -> (u16, String) {
        let reply = self.post(path, body).expect("an answer");
        let error = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        (reply.status, error)
    }
}
