//! `GET /metrics`: the page with what all cores have counted, on a port of its own, for whoever watches the node.
//!
//! Lives on the first core. To ask the cores is a piece of mail to each: they go on counting in plain memory of
//! their own, where an atomic number per core would cost each of them a barrier, or at least a cache line, for
//! every request that nobody may ever ask about. A page costs each core a copy of its numbers and a look at each
//! database that is open, whose sizes are those of the last commit: SQLite is asked nothing. It shows names of namespaces and is open to everybody who reaches the port, which by
//! default is this machine only.
//!
//! The page is written on a thread, and stays for a second: whoever asks more often costs the cores no more.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;

use crate::config::Config;
use crate::disk::free_bytes;
use crate::gateway::NodeInfo;
use crate::http::Options;
use crate::http::Refusal;
use crate::http::Service;
use crate::http::activity::Timeouts;
use crate::http::body::Content;
use crate::http::places::Places;
use crate::http::sleep;
use crate::node::mesh::Mesh;
use crate::node::metrics;
use crate::node::metrics::Node;
use crate::node::process::Process;
use crate::observe::page;

/// How long a page may take: what the cores have to say, and writing it down.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old a page may be.
const AGE_MAX: Duration = Duration::from_secs(1);

/// What serves the page.
pub(super) struct ScrapeDoor {
    mesh: Rc<Mesh>,
    info: NodeInfo,
    /// Whose disk is told about, and how much of it is to stay free.
    directory: PathBuf,
    reserve_bytes: u64,
    connections_max: u64,
    /// The last page, and when it was begun.
    last: RefCell<Option<(Instant, Bytes)>>,
}

/// A door to the metrics of all cores.
pub(super) fn door(config: &Config, info: NodeInfo, mesh: Rc<Mesh>) -> ScrapeDoor {
    let directory = config.database.data_dir.clone();
    let reserve_bytes = config.limits.disk_reserve.0;
    let connections_max = config.limits.connections.into();
    let last = RefCell::default();
    ScrapeDoor { mesh, info, directory, reserve_bytes, connections_max, last }
}

/// Bounds of the server: few come, and what they send is small. With these timeouts it looks around once a
/// second.
pub(super) fn options() -> Options {
    Options {
        places: Places::new(16),
        n_cores: 1,
        header_bytes_max: 8 << 10,
        body_bytes_max: 4 << 10,
        held_bytes_max: 64 << 10,
        timeouts: Timeouts {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            write: Duration::from_secs(30),
            // Prometheus asks every 15 s or so; what opened the connections and forgot them is not served.
            idle: Duration::from_secs(15),
            linger: Duration::from_secs(8),
        },
        drain_timeout: Duration::from_secs(2),
        // It is asked seldom.
        interrupts: true,
    }
}

impl ScrapeDoor {
    /// The page, unless it takes too long.
    async fn page(&self) -> Option<Bytes> {
        let began = sleep::now();
        let kept = self.last.borrow().clone().filter(|(at, _)| began - *at < AGE_MAX);
        if let Some((_, page)) = kept {
            return Some(page);
        }
        let page = sleep::within(PATIENCE, self.write()).await??;
        self.last.replace(Some((began, page.clone())));
        Some(page)
    }

    /// Ask the cores, and have it written.
    async fn write(&self) -> Option<Bytes> {
        let cores = self.mesh.metrics().await.ok()?;
        let (directory, info) = (self.directory.clone(), self.info.clone());
        let (reserve_bytes, connections_max) = (self.reserve_bytes, self.connections_max);
        let write = move || {
            let free_bytes = free_bytes(&directory).ok();
            let process = Process::now();
            let node = Node { info: &info, process, free_bytes, reserve_bytes, connections_max };
            Bytes::from(metrics::page(&cores, &node))
        };
        Some(glommio::executor().spawn_blocking(write).await)
    }

    async fn reply(&self, head: &Parts) -> Response<Bytes> {
        if head.uri.path() != "/metrics" {
            return text(StatusCode::NOT_FOUND, "404 page not found: /metrics is what there is\n");
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        }
        match self.page().await {
            Some(page) => text(StatusCode::OK, page),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "a core does not answer\n"),
        }
    }
}

impl Service for ScrapeDoor {
    async fn call(&self, head: Parts, _: Bytes) -> Response<Content> {
        self.reply(&head).await.map(Content::Whole)
    }

    fn refuse(&self, _: &Parts, refusal: Refusal) -> Response<Bytes> {
        let status = match refusal {
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::HeadBroken | Refusal::BodyMalformed | Refusal::BodyBroken => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Overloaded | Refusal::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(status, format!("{refusal}\n"))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static(page::CONTENT_TYPE);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}
