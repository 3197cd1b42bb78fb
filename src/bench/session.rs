//! A connection that waits: to prepare a table, and to look at it afterwards.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::bench::BenchError;
use crate::bench::bodies::Bodies;
use crate::bench::http;
use crate::bench::target::Target;
use crate::bench::target::Tenant;

/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a server that is too busy is asked again, and after which pause.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// One keep-alive connection.
#[derive(Debug)]
pub(super) struct Session<'a> {
    target: &'a Target,
    bodies: &'a Bodies,
    stream: TcpStream,
    buffer: Vec<u8>,
    out: Vec<u8>,
    body: Vec<u8>,
}

impl<'a> Session<'a> {
    /// Connect.
    pub(super) fn open(target: &'a Target, bodies: &'a Bodies) -> Result<Self, BenchError> {
        let open = || {
            let stream = TcpStream::connect_timeout(&target.address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let stream = open().map_err(|error| BenchError::unreachable(target, error))?;
        let (buffer, out, body) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { target, bodies, stream, buffer, out, body })
    }

    /// Run a statement that writes.
    pub(super) fn exec(&mut self, tenant: &Tenant, sql: &str) -> Result<(), BenchError> {
        self.ask(&tenant.exec, |bodies, out| bodies.put_statement(sql, out)).map(drop)
    }

    /// Insert rows, all or none.
    pub(super) fn insert(
        &mut self,
        tenant: &Tenant,
        ids: impl Iterator<Item = u64> + Clone,
    ) -> Result<(), BenchError> {
        let put = |bodies: &Bodies, out: &mut Vec<u8>| bodies.put_transaction(ids.clone(), 0, out);
        self.ask(&tenant.transaction, put).map(drop)
    }

    /// The rows of a query whose values are integers or NULL, which counts as 0.
    pub(super) fn integers(
        &mut self,
        tenant: &Tenant,
        sql: &str,
    ) -> Result<Vec<Vec<u64>>, BenchError> {
        let body = self.ask(&tenant.query, |bodies, out| bodies.put_statement(sql, out))?;
        let integer = |it: &Value| if it.is_null() { Some(0) } else { it.as_u64() };
        let rows = self.bodies.rows(&body).and_then(|rows| {
            rows.iter().map(|row| row.iter().map(integer).collect()).collect::<Option<_>>()
        });
        let text = || String::from_utf8_lossy(&body).chars().take(200).collect();
        rows.ok_or_else(|| BenchError::Refused { what: sql.to_owned(), reply: text() })
    }

    /// The body of the reply; a server that is too busy is asked again, for a while.
    fn ask(
        &mut self,
        head: &[u8],
        put: impl Fn(&Bodies, &mut Vec<u8>),
    ) -> Result<Vec<u8>, BenchError> {
        self.body.clear();
        put(self.bodies, &mut self.body);
        self.out.clear();
        http::put_request(head, &self.body, &mut self.out);
        for _ in 0..BUSY_TRIES {
            let (status, failure, body) =
                self.exchange().map_err(|error| BenchError::unreachable(self.target, error))?;
            let Some(failure) = failure else { return Ok(body) };
            if status != 503 {
                let what: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
                let body: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                return Err(BenchError::Refused { what, reply: format!("{failure}: {body}") });
            }
            thread::park_timeout(BUSY_PAUSE);
        }
        let what = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(BenchError::Refused { what, reply: "503, again and again".to_owned() })
    }

    fn exchange(&mut self) -> io::Result<(u16, Option<String>, Vec<u8>)> {
        self.stream.write_all(&self.out)?;
        self.buffer.clear();
        let mut scratch = [0; 16 << 10];
        loop {
            let n = self.stream.read(&mut scratch)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&scratch[..n]);
            let invalid = |it| io::Error::new(io::ErrorKind::InvalidData, it);
            let Some(reply) = http::parse(&self.buffer).map_err(invalid)? else { continue };
            let failure = self.bodies.failure(&reply);
            let got = (reply.status, failure, reply.body.into_owned());
            return Ok(got);
        }
    }
}
