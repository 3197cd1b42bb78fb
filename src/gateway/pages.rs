//! Pages about the node, for load balancers, dashboards and people.
//!
//! `health` is 200 as long as somebody answers, and says in its body whether all is well: it is for whoever would
//! start the process anew. `health/ready` is 200 while requests had better be sent here, and 503 otherwise: it is
//! for whoever sends them. Both give reasons, each with a stable code:
//!
//! | code | what | health | ready |
//! |---|---|---|---|
//! | `no_answer` | a core does not answer in time | degraded | no |
//! | `stopping` | the node was told to stop | ok, as long as it answers | no |
//! | `no_leader` | partitions know of no leader, here or elsewhere | degraded | no |
//! | `fenced` | databases are damaged | degraded | yes |
//! | `disk_reserve` | the disk has less room than it is to have | degraded | yes |
//! | `log_stuck` | a log has no room for its next segment | degraded | yes |

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
use crate::shard::request::SubmitError;

/// How long a page waits for the node's answer: somebody is deciding where to send traffic.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Whether the node answers, and how it is.
    Health,
    /// Whether requests should be sent here.
    Ready,
    /// What the node has.
    Status,
    /// What the node runs.
    Version,
}

#[derive(Serialize)]
struct Health<'a> {
    client: Client,
    reasons: Vec<Reason>,
    server: Server<'a>,
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<Reason>,
}

/// Something that is not well.
#[derive(Debug, Serialize)]
struct Reason {
    code: &'static str,
    message: String,
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
            let (client, reasons) = check(node).await;
            let server = Server { started_at, status: Some("ok"), uptime };
            let status = if reasons.is_empty() { "ok" } else { "degraded" };
            json::to_vec(&Health { client, reasons, server, status })
        }
        Page::Ready => {
            let reasons = unready(&ask(node).await);
            let ready = reasons.is_empty();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            return reply::json(status, json::to_vec(&Ready { ready, reasons }));
        }
        Page::Status => {
            let status = ask(node).await.ok();
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

async fn check(node: &impl Submit) -> (Client, Vec<Reason>) {
    let start = sleep::now();
    let status = ask(node).await;
    let reasons = degraded(&status);
    let (words, connection, database) = match &status {
        Ok(_) if reasons.is_empty() => ("healthy", "ok", "ok"),
        Ok(_) => ("degraded", "ok", "degraded"),
        Err(_) => ("unhealthy", "disconnected", "unknown"),
    };
    let client = Client {
        status: words,
        checks: Checks { connection, database },
        last_updated: moment(sleep::unix_ms()),
        response_time: nanos(sleep::now() - start),
    };
    (client, reasons)
}

/// Why the node gives no answer.
enum Silence {
    /// It is about to end.
    Stopping,
    /// It is slow, or overwhelmed.
    NoAnswer,
}

/// What the node says, if it says anything in time.
async fn ask(node: &impl Submit) -> Result<Status, Silence> {
    match sleep::within(PATIENCE, node.submit(Request::Status)).await {
        Some(Ok(Reply::Status(status))) => Ok(status),
        Some(Err(SubmitError::ShuttingDown)) => Err(Silence::Stopping),
        _ => Err(Silence::NoAnswer),
    }
}

/// What keeps the node from being well.
fn degraded(status: &Result<Status, Silence>) -> Vec<Reason> {
    let reason = |code, message: String| Reason { code, message };
    let status = match status {
        Ok(status) => status,
        Err(Silence::Stopping) => return vec![stopping()],
        Err(Silence::NoAnswer) => return vec![no_answer()],
    };
    let mut reasons = Vec::new();
    reasons.extend(no_leader(status));
    if status.n_fenced > 0 {
        let message = format!("damaged and fenced databases: {}", status.n_fenced);
        reasons.push(reason("fenced", message));
    }
    if status.is_disk_low {
        let message = "the disk has less room than limits.disk_reserve_bytes";
        reasons.push(reason("disk_reserve", message.to_owned()));
    }
    if status.is_log_stuck {
        let message = "the disk has no room for the log's next segment";
        reasons.push(reason("log_stuck", message.to_owned()));
    }
    reasons
}

/// Why requests should go elsewhere.
fn unready(status: &Result<Status, Silence>) -> Vec<Reason> {
    match status {
        Ok(status) => {
            let stopping = status.is_stopping.then(stopping);
            stopping.into_iter().chain(no_leader(status)).collect()
        }
        Err(Silence::Stopping) => vec![stopping()],
        Err(Silence::NoAnswer) => vec![no_answer()],
    }
}

fn stopping() -> Reason {
    Reason { code: "stopping", message: "the node is stopping".to_owned() }
}

fn no_answer() -> Reason {
    Reason { code: "no_answer", message: "the node does not answer in time".to_owned() }
}

fn no_leader(status: &Status) -> Option<Reason> {
    let n = status.n_leaderless;
    let message = format!("partitions without a leader: {n} of {}", status.n_partitions);
    (n > 0 || status.n_partitions == 0).then_some(Reason { code: "no_leader", message })
}

fn moment(unix_ms: i64) -> String {
    time::rfc3339(unix_ms).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
