//! An executor, a server and clients for tests. Every wait has a deadline.

use std::future::Future;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::AsyncReadExt;
use futures_lite::AsyncWriteExt;
use glommio::LocalExecutorBuilder;
use glommio::Placement;
use glommio::Task;
use glommio::net::TcpStream;

use crate::http::Counters;
use crate::http::Moved;
use crate::http::Options;
use crate::http::Server;
use crate::http::Service;
use crate::http::shutdown::Shutdown;
use crate::http::sleep::within;
use crate::types::ShardId;

/// Longest wait of a test.
const DEADLINE: Duration = Duration::from_secs(20);

/// Run a test on an executor of its own.
pub(crate) fn on_executor<T>(test: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
    let executor = builder.make().expect("io_uring is usable");
    executor.run(async { within(DEADLINE, test).await.expect("the test ends in time") })
}

/// A server that runs beside the test.
pub(crate) struct Running<S> {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Rc<Shutdown>,
    server: Rc<Server<S>>,
    task: Task<()>,
}

impl<S: Service> Running<S> {
    pub(crate) fn start(options: Options, service: S) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let server = Rc::new(Server::new(options, service).expect("io_uring is usable"));
        let shutdown = Shutdown::new();
        let task = glommio::spawn_local({
            let (server, shutdown) = (Rc::clone(&server), Rc::clone(&shutdown));
            async move { server.serve(listener, shutdown).await.expect("sockets are watched") }
        });
        Self { address, shutdown, server, task }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.server.counters()
    }

    pub(crate) fn take_over(&self, connection: Moved) {
        self.server.take_over(connection);
    }

    pub(crate) fn on_neighbour(&self, core: ShardId, n_open: u64) {
        self.server.on_neighbour(core, n_open);
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Wait until the server has returned.
    pub(crate) async fn ended(self) -> Counters {
        self.task.await;
        self.server.counters()
    }
}

/// One connection to a server.
pub(crate) struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self { stream, pending: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the server reads");
    }

    /// Send until the server stops reading.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    pub(crate) async fn close_write(&mut self) {
        self.stream.close().await.expect("open until now");
    }

    /// The next reply: its status, its head and its body. None if the server closed.
    pub(crate) async fn reply(&mut self) -> Option<(u16, String, String)> {
        loop {
            if let Some(reply) = self.parse() {
                return Some(reply);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).await {
                Ok(n) if n > 0 => self.pending.extend_from_slice(&chunk[..n]),
                _ => return None,
            }
        }
    }

    /// The next reply in short: `200 text`, or `closed`.
    pub(crate) async fn brief(&mut self) -> String {
        match self.reply().await {
            Some((status, _, body)) => format!("{status} {body}").trim_end().to_owned(),
            None => "closed".to_owned(),
        }
    }

    /// All that comes, to the end of the connection.
    pub(crate) async fn read_to_end(&mut self) -> String {
        self.gather(|_| false).await
    }

    /// All that comes, up to a piece that ends with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        self.gather(|it| it.ends_with(end.as_bytes())).await
    }

    /// Whether the connection is reset, after whatever comes before.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let mut chunk = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut chunk).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.to_string().contains("reset"),
            }
        }
    }

    async fn gather(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> String {
        let mut bytes = std::mem::take(&mut self.pending);
        let mut chunk = vec![0; 64 << 10];
        while !is_enough(&bytes) {
            match self.stream.read(&mut chunk).await {
                Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn parse(&mut self) -> Option<(u16, String, String)> {
        let at = self.pending.windows(4).position(|it| it == b"\r\n\r\n")?;
        let head = String::from_utf8(self.pending[..at].to_vec()).expect("a head is text");
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|it| it.strip_prefix("content-length: ").map(str::to_owned))
            .map_or(0, |it| it.parse().expect("a number"));
        let end = at + 4 + length;
        let body = self.pending.get(at + 4..end)?.to_vec();
        self.pending.drain(..end);
        let status = head.get(9..12)?.parse().expect("a status");
        Some((status, head, String::from_utf8_lossy(&body).into_owned()))
    }
}
