//! Pages about the node, for load balancers, dashboards and people.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use serde::Serialize;

use crate::config::duration::format_go_duration;
use crate::gateway::NodeInfo;
use crate::gateway::json;
use crate::gateway::reply;
use crate::gateway::time;
use crate::http::sleep;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Status;
use crate::shard::request::Submit;

/// How long a page waits for the node's answer: somebody is deciding where to send traffic.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Whether the node answers.
    Health,
    /// What the node has.
    Status,
    /// What the node runs.
    Version,
}

#[derive(Serialize)]
struct Health<'a> {
    client: Client,
    server: Server<'a>,
    status: &'static str,
}

/// How the node behind the gateway does.
#[derive(Serialize)]
struct Client {
    status: &'static str,
    checks: Checks,
    last_updated: String,
    /// Nanoseconds.
    response_time: u64,
}

#[derive(Serialize)]
struct Checks {
    connection: &'static str,
    database: &'static str,
}

#[derive(Serialize)]
struct Server<'a> {
    started_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    uptime: &'a str,
}

#[derive(Serialize)]
struct Overview<'a> {
    network: Network<'a>,
    server: Server<'a>,
}

#[derive(Serialize)]
struct Network<'a> {
    node_id: &'a str,
    connected: bool,
    peer_count: u32,
    /// Bytes.
    database_size: u64,
    /// Nanoseconds.
    uptime: u64,
}

#[derive(Serialize)]
struct Program<'a> {
    build_time: &'a str,
    commit: &'a str,
    started_at: &'a str,
    uptime: &'a str,
    version: &'a str,
}

/// The page as it is now.
pub async fn serve(page: Page, info: &NodeInfo, node: &impl Submit) -> Response<Bytes> {
    let up = sleep::now() - info.started;
    let (uptime, started_at) = (&*format_go_duration(up), &*moment(info.started_at.0));
    let body = match page {
        Page::Version => json::to_vec(&Program {
            build_time: &info.build_time,
            commit: &info.commit,
            started_at,
            uptime,
            version: &info.version,
        }),
        Page::Health => {
            let client = check(node).await;
            let server = Server { started_at, status: Some("ok"), uptime };
            json::to_vec(&Health { client, server, status: "ok" })
        }
        Page::Status => {
            let status = ask(node).await;
            let network = Network {
                node_id: &info.node_id,
                connected: status.is_some(),
                // No other node is linked to this one in this version.
                peer_count: 0,
                database_size: status.unwrap_or_default().database_bytes,
                uptime: nanos(up),
            };
            json::to_vec(&Overview { network, server: Server { started_at, status: None, uptime } })
        }
    };
    reply::json(StatusCode::OK, body)
}

async fn check(node: &impl Submit) -> Client {
    let start = sleep::now();
    let is_up = ask(node).await.is_some();
    let word = |good, bad| if is_up { good } else { bad };
    Client {
        status: word("healthy", "unhealthy"),
        checks: Checks { connection: word("ok", "disconnected"), database: word("ok", "unknown") },
        last_updated: moment(sleep::unix_ms()),
        response_time: nanos(sleep::now() - start),
    }
}

/// What the node says, if it says anything in time.
async fn ask(node: &impl Submit) -> Option<Status> {
    match sleep::within(PATIENCE, node.submit(Request::Status)).await {
        Some(Ok(Reply::Status(status))) => Some(status),
        _ => None,
    }
}

fn moment(unix_ms: i64) -> String {
    time::rfc3339(unix_ms).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
