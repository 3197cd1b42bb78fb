//! What one core's gateway has answered: by route and status, by limit, by namespace.
//!
//! Plain numbers of one core, counted when a reply is ready; nothing is shared, and after its first reply of a kind
//! a request allocates nothing here. It costs two or three hundred instructions: what a route, a status and a
//! namespace are found by.

use std::cell::Cell;
use std::cell::OnceCell;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::gateway::held;
use crate::gateway::held::Holdings;
use crate::gateway::held::Reserved;
use crate::gateway::tenants::Tenants;
use crate::gateway::tenants::Usage;
use crate::http::ServedBy;
use crate::observe::histogram::Histogram;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Submit;
use crate::shard::request::SubmitError;
use crate::types::Namespace;
use crate::types::ShardId;
use crate::wire::rows::StatementResult;

/// The route of what leads nowhere, or was refused before it was looked at.
pub const OTHER: &str = "other";
/// The route of preflight requests.
pub const PREFLIGHT: &str = "preflight";

/// The limits that a request may be refused by, as the configuration calls them; and some that it does not. What
/// `connections` refuses is counted by the server.
const LIMITS: [&str; 13] = [
    "body_bytes",
    "header_bytes",
    "result_rows",
    "result_bytes",
    "statement_ms",
    "statement_steps",
    "statement_memory",
    "statement_match",
    "value_bytes",
    "temp_bytes",
    "requests_per_second",
    "database_bytes",
    "disk_reserve",
];

/// The limit that an error with this code is about, if it is about one.
pub fn limit_of(code: &str) -> Option<&'static str> {
    LIMITS.into_iter().find(|it| *it == code)
}

/// Replies of one route.
#[derive(Clone, Debug)]
pub struct RouteStats {
    /// As it is matched.
    pub route: &'static str,
    /// How many there were of each status, in the order of their first one.
    pub statuses: Vec<(u16, u64)>,
    /// From the whole request to the reply that is ready, in microseconds: from 64 us to 17 s.
    pub took_us: Histogram,
}

/// What a page reads of the [`Stats`] of a core.
#[derive(Debug)]
pub struct Snapshot {
    /// What each route replied.
    pub routes: Vec<RouteStats>,
    /// How many requests each limit has refused.
    pub refusals: Vec<(&'static str, u64)>,
    /// What the namespaces with a name use, by name.
    pub named: Vec<(Namespace, Usage)>,
    /// What all others use together.
    pub other: Usage,
}

/// All replies of a core.
#[derive(Debug)]
pub struct Stats {
    routes: Vec<RouteStats>,
    refusals: [u64; LIMITS.len()],
    tenants: Tenants,
}

impl Default for Stats {
    fn default() -> Self {
        Self { routes: Vec::new(), refusals: [0; LIMITS.len()], tenants: Tenants::default() }
    }
}

impl Stats {
    /// A reply is ready, to a request that took so long, if that is known.
    pub fn count(&mut self, route: &'static str, status: u16, took: Option<Duration>) {
        let at = self.routes.iter().position(|it| it.route == route).unwrap_or_else(|| {
            let (statuses, took_us) = (Vec::new(), Histogram::new(6));
            self.routes.push(RouteStats { route, statuses, took_us });
            self.routes.len() - 1
        });
        let of_route = &mut self.routes[at];
        if let Some(took) = took {
            of_route.took_us.record_time(took);
        }
        match of_route.statuses.iter_mut().find(|(it, _)| *it == status) {
            Some((_, n)) => *n += 1,
            None => of_route.statuses.push((status, 1)),
        }
    }

    /// A request was refused by a limit.
    pub fn count_refusal(&mut self, limit: &str) {
        if let Some(at) = LIMITS.iter().position(|it| *it == limit) {
            self.refusals[at] += 1;
        }
    }

    /// A request of a namespace was replied to.
    pub fn count_tenant(&mut self, namespace: &Namespace, usage: &Usage) {
        self.tenants.count(namespace, usage);
    }

    /// Further bytes were sent in a reply to a namespace, whose request is counted.
    pub fn count_sent(&mut self, namespace: &Namespace, bytes: u64) {
        self.tenants.count_sent(namespace, bytes);
    }

    /// What it is now.
    pub fn snapshot(&self) -> Snapshot {
        let mut named: Vec<_> =
            self.tenants.named().map(|(name, usage)| (name.clone(), *usage)).collect();
        named.sort_by(|(one, _), (two, _)| one.cmp(two));
        Snapshot {
            routes: self.routes.clone(),
            refusals: LIMITS.into_iter().zip(self.refusals).collect(),
            named,
            other: *self.tenants.other(),
        }
    }
}

/// What is seen of one request while it is answered.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) route: Cell<&'static str>,
    pub(super) namespace: OnceCell<Namespace>,
    pub(super) usage: Cell<Usage>,
    /// None if this core serves it.
    pub(super) served: Cell<Option<ServedBy>>,
    /// For the reply to a write.
    pub(super) reserved: RefCell<Option<Reserved>>,
    /// Bytes of the results, as far as they are in memory.
    pub(super) held_bytes: Cell<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            route: Cell::new(OTHER),
            namespace: OnceCell::new(),
            usage: Cell::default(),
            served: Cell::new(Some(ServedBy::Nobody)),
            reserved: RefCell::default(),
            held_bytes: Cell::default(),
        }
    }
}

impl Seen {
    /// Whether the node was asked, so that a turn of a loop has answered.
    pub(super) fn has_asked(&self) -> bool {
        let usage = self.usage.get();
        usage.reads + usage.writes > 0
    }
}

/// The way to the node, on which it is seen what a request reads and writes.
pub(super) struct Watched<'a, S> {
    pub(super) node: &'a S,
    pub(super) seen: &'a Seen,
    pub(super) held: &'a Rc<Holdings>,
}

impl<S: Submit> Submit for Watched<'_, S> {
    async fn submit(&self, request: Request) -> Result<Reply, SubmitError> {
        let mut usage = self.seen.usage.get();
        match &request {
            Request::Read { .. } => usage.reads = 1,
            Request::Write { namespace, draft } => {
                usage.writes = 1;
                let reserved = self.held.reserve(namespace, draft).await?;
                *self.seen.reserved.borrow_mut() = reserved;
            }
            Request::Status => {}
        }
        self.seen.usage.set(usage);
        let reply = self.node.submit(request).await;
        if let Ok(Reply::Results(results) | Reply::Replayed(results)) = &reply {
            self.seen.held_bytes.set(held::size_of(results));
        }
        if let Ok(Reply::Results(results)) = &reply {
            for result in results {
                let rows = match result {
                    StatementResult::Rows(rows) => Some(rows),
                    StatementResult::Counts { rows_affected, returned, .. } => {
                        usage.rows_written += rows_affected;
                        returned.as_ref()
                    }
                };
                usage.rows_read += rows.map_or(0, |it| it.count as u64);
            }
            self.seen.usage.set(usage);
        }
        reply
    }

    fn elsewhere(&self, namespace: &Namespace) -> Option<ShardId> {
        self.node.elsewhere(namespace)
    }
}
