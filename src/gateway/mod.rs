//! The REST API of the network. Translates; decides nothing.
//!
//! One [`Gateway`] per core turns requests into [`Request`](crate::shard::request::Request)s and replies
//! into JSON. In order: preflight requests are answered, the sender is identified (but for public
//! pages), the namespace is resolved, the path is routed, the method is checked. Until it is known who
//! is asking, an unknown path looks like any other, and no body is read.
//!
//! Deliberately absent: SQL (passed on as it came, or built by `sql::select`), sockets and limits (`http`), retries and deadlines
//! (whoever implements `Submit`). Errors become replies in [`error`] only.
//!
//! Start reading at [`Gateway::answer`].

pub mod body;
mod counted;
pub mod error;
mod held;
mod idempotency;
pub mod json;
pub mod pages;
mod pieces;
mod reply;
mod route;
pub mod rows;
pub mod sql;
pub mod stamps;
pub mod stats;
pub mod storage;
pub mod tenants;
pub mod time;
mod window;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;

use crate::auth::Denied;
use crate::auth::Identity;
use crate::auth::Policy;
use crate::auth::credential::Presented;
use crate::auth::key::Keys;
use crate::auth::key::KeysError;
use crate::gateway::error::ApiError;
use crate::gateway::held::Holdings;
use crate::gateway::held::To;
use crate::gateway::route::Route;
use crate::gateway::stamps::Stamps;
use crate::gateway::stats::Seen;
use crate::gateway::stats::Stats;
use crate::gateway::stats::Watched;
use crate::gateway::tenants::Usage;
use crate::http::Refusal;
use crate::http::Sender;
use crate::http::ServedBy;
use crate::http::Service;
use crate::http::body::Content;
use crate::shard::request::Submit;
use crate::types::Namespace;
use crate::types::Timestamp;

/// Bytes of a reply from which on writing it down takes time of its own.
const LARGE_REPLY_SIZE: usize = 64 << 10;
/// Bytes of a body that anybody may send; nothing reads it.
const PUBLIC_BODY_SIZE_MAX: u64 = 4 << 10;
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How a gateway behaves; made from the configuration.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where a request without a credential acts, if `require_auth` is off.
    pub client_namespace: Namespace,
    /// Whether a request without a credential is refused.
    pub require_auth: bool,
    /// Each key and the namespace it opens.
    pub keys: Vec<(String, Namespace)>,
    /// Random and secret; keeps the time of a key's lookup from telling anything about other keys.
    pub key_seed: [u8; 16],
    /// Bytes that the results of one command may have.
    pub result_bytes: u64,
    /// Bounds of the server it runs in.
    pub http: crate::http::Options,
}

/// What the node says about itself, fixed at its start.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node's peer id.
    pub node_id: String,
    /// Version of the program.
    pub version: String,
    /// Revision it was built from; may be empty.
    pub commit: String,
    /// When it was built; may be empty.
    pub build_time: String,
    /// When the node started, for people.
    pub started_at: Timestamp,
    /// When the node started, for its uptime.
    pub started: Instant,
}

/// One core's gateway.
#[derive(Debug)]
pub struct Gateway<S> {
    policy: Policy,
    info: NodeInfo,
    node: S,
    stats: Rc<RefCell<Stats>>,
    stamps: Rc<Stamps>,
    held: Rc<Holdings>,
}

impl<S: Submit> Gateway<S> {
    /// A gateway that hands requests to `node`.
    pub fn new(options: &GatewayOptions, info: NodeInfo, node: S) -> Result<Self, KeysError> {
        let pairs = options.keys.iter().map(|(key, it)| (key.as_str(), it));
        // A core's own: its users are counted with each request, which cores would contend for.
        let client_namespace = Namespace::new(options.client_namespace.as_str());
        let policy = Policy {
            keys: Keys::new(pairs, options.key_seed)?,
            require_auth: options.require_auth,
            client_namespace: Some(client_namespace.expect("it is a namespace's name")),
        };
        let (stats, stamps) = (Rc::default(), Rc::default());
        let held = Holdings::new(held::Bounds::new(options.result_bytes));
        Ok(Self { policy, info, node, stats, stamps, held })
    }

    /// What it has answered so far.
    pub fn stats(&self) -> Rc<RefCell<Stats>> {
        Rc::clone(&self.stats)
    }

    /// Where it looks what time it is; whoever answers its requests says when.
    pub fn stamps(&self) -> Rc<Stamps> {
        Rc::clone(&self.stamps)
    }

    fn identify(&self, head: &Parts) -> Result<Identity, Denied> {
        let field = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
        self.policy.identify(&Presented {
            authorization: field(header::AUTHORIZATION),
            api_key: field(X_API_KEY),
            query: head.uri.query(),
        })
    }

    async fn answer(
        &self,
        head: &Parts,
        body: &[u8],
        seen: &Seen,
    ) -> Result<Response<Content>, ApiError> {
        let path = route::path_of(&head.uri);
        let route = Route::find(&path);
        seen.route.set(route.map_or(stats::OTHER, Route::pattern));
        if let Some(Route::Page(page)) = route {
            let reply = pages::serve(page, &self.info, &self.node).await;
            return Ok(reply.map(Content::Whole));
        }
        let identity = self.identify(head)?;
        if !route::needs_namespace(&path) {
            return Ok(route::elsewhere(&head.uri).map(Content::Whole));
        }
        let key = identity.key;
        let namespace = self.policy.authorize(identity)?;
        if let Err(error) = self.node.pass(key, &namespace).await {
            seen.namespace.get_or_init(|| namespace);
            return Err(error.into());
        }
        let served = self.node.elsewhere(&namespace).map(ServedBy::Core);
        match route {
            Some(Route::Sql(endpoint)) if head.method == endpoint.method() => {
                seen.served.set(served);
                seen.namespace.get_or_init(|| namespace.clone());
                let node = Watched { node: &self.node, seen, held: &self.held };
                let reply = sql::serve(endpoint, namespace, head, body, &node).await?;
                self.keep(reply, seen)
            }
            Some(Route::Storage(endpoint)) => {
                let endpoint = endpoint.by(&head.method).ok_or(ApiError::Method)?;
                seen.served.set(served);
                seen.namespace.get_or_init(|| namespace.clone());
                let node = Watched { node: &self.node, seen, held: &self.held };
                let reply = storage::serve(endpoint, namespace, head, body, &node).await?;
                self.keep(reply, seen)
            }
            Some(_) => Err(ApiError::Method),
            None => Ok(route::elsewhere(&head.uri).map(Content::Whole)),
        }
    }
}

impl<S> Gateway<S> {
    /// A reply that is counted until it is sent. What was set aside for it is not any more.
    fn keep(&self, reply: Response<Content>, seen: &Seen) -> Result<Response<Content>, ApiError> {
        let reserved = seen.reserved.take();
        let namespace = seen.namespace.get().expect("it is known since the request was let in");
        let to = if seen.usage.get().writes > 0 { To::Write } else { To::Read };
        let (head, content) = reply.into_parts();
        let content = self.held.keep(content, seen.held_bytes.get(), to, namespace)?;
        drop(reserved);
        Ok(Response::from_parts(head, content))
    }

    fn refusal(&self, error: &ApiError) -> Response<Bytes> {
        if let Some(limit) = error.limit() {
            self.stats.borrow_mut().count_refusal(limit);
        }
        error::reply_to(error)
    }

    /// The reply to a request that is refused before its body is read.
    fn refuse_unread(&self, head: &Parts, error: &ApiError) -> Response<Bytes> {
        let route = if head.method == Method::OPTIONS {
            stats::PREFLIGHT
        } else {
            Route::find(&route::path_of(&head.uri)).map_or(stats::OTHER, Route::pattern)
        };
        let mut reply = self.refusal(error);
        reply.extensions_mut().insert(ServedBy::Nobody);
        self.stats.borrow_mut().count(route, reply.status().as_u16(), None);
        reply::for_any_origin(reply)
    }

    fn count(&self, seen: &Seen, began: Instant, received: usize, reply: &mut Response<Content>) {
        let (status, sent) = (reply.status().as_u16(), reply.body().size());
        let is_small = sent.is_some_and(|it| it < LARGE_REPLY_SIZE);
        let took = self.stamps.took(began, seen.has_asked() && is_small);
        let mut counts = self.stats.borrow_mut();
        counts.count(seen.route.get(), status, Some(took));
        if let Some(namespace) = seen.namespace.get() {
            let usage = Usage {
                requests: 1,
                errors: u64::from(status >= 400),
                received_bytes: received as u64,
                sent_bytes: sent.unwrap_or(0) as u64,
                ..seen.usage.get()
            };
            counts.count_tenant(namespace, &usage);
            drop(counts);
            counted::count_pieces(reply.body_mut(), &self.stats, namespace);
        }
    }
}

impl<S: Submit + 'static> Service for Gateway<S> {
    async fn call(&self, head: Parts, body: Bytes) -> Response<Content> {
        let (began, seen) = (self.stamps.begin(), Seen::default());
        let answer = if head.method == Method::OPTIONS {
            seen.route.set(stats::PREFLIGHT);
            Ok(reply::empty(StatusCode::NO_CONTENT).map(Content::Whole))
        } else {
            self.answer(&head, &body, &seen).await
        };
        let mut reply = answer.unwrap_or_else(|it| self.refusal(&it).map(Content::Whole));
        self.count(&seen, began, body.len(), &mut reply);
        if let Some(served) = seen.served.get() {
            reply.extensions_mut().insert(served);
        }
        reply::for_any_origin(reply)
    }

    fn admit(&self, head: &Parts) -> Result<Sender, Response<Bytes>> {
        let is_public = head.method == Method::OPTIONS
            || matches!(Route::find(&route::path_of(&head.uri)), Some(Route::Page(_)));
        let checked = if !is_public {
            self.identify(head).map(|it| Sender(it.key.0)).map_err(ApiError::from)
        } else if may_have_body(head, PUBLIC_BODY_SIZE_MAX) {
            Err(ApiError::Refused(Refusal::BodyTooLarge))
        } else {
            Ok(Sender::default())
        };
        checked.map_err(|it| self.refuse_unread(head, &it))
    }

    fn refuse(&self, head: &Parts, refusal: Refusal) -> Response<Bytes> {
        self.refuse_unread(head, &ApiError::Refused(refusal))
    }
}

/// Whether a body of more than `size` bytes may follow: it says so, or does not say.
fn may_have_body(head: &Parts, size: u64) -> bool {
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    head.headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|it| it > size)
}

#[cfg(test)]
mod tests;
