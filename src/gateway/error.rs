//! The one place where an error becomes an HTTP reply.
//!
//! | error | status | code | what the client should do |
//! |---|---|---|---|
//! | credential missing or wrong | 401 | | authenticate |
//! | no namespace | 403 | | ask for one |
//! | body, arguments, statement | 400 | the statement's, if any | change it |
//! | one row wanted, and none there | 404 | | |
//! | no such key | 404 | `key_not_found` | |
//! | `namespace` is not the sender's | 403 | | leave it out |
//! | `Idempotency-Key` not 1 to 255 printable characters | 400 | `idempotency_key` | change it |
//! | the key was another request's | 422 | `idempotency_key_reused` | use a new one |
//! | too many keys in too short a time | 429 + `Retry-After` | `idempotency_keys_full` | send it again when it says |
//! | too many requests of a key | 429 + `Retry-After` | `too_many_requests` | send it again when it says |
//! | body or command too large | 413 | `body_bytes` | send less at once |
//! | database at its limit | 507 | `database_bytes` | delete something |
//! | disk almost full | 507 | `disk_reserve` | delete or drop something, ask for less at once, or tell the operator |
//! | a read met a busy database | 503 + `Retry-After` | `busy` | send it again later |
//! | wrong method | 405 | | |
//! | head that is no HTTP, or could be understood in two ways | 400 | `malformed_head` | change it |
//! | chunks that are none | 400 | `malformed_body` | change it |
//! | head too large | 431 | `header_bytes` | send less in it |
//! | body too slow | 408 | `body_timeout` | |
//! | too many connections | 503 + `Retry-After` | `connections` | use fewer, or another node |
//! | no leader, overloaded, shutting down | 503 + `Retry-After` | `no_leader`, `overloaded`, `shutting_down` | send it again later |
//! | fenced | 503 + `Retry-After` | `fenced` | send it again later: another replica may take over; if it stays, tell the operator |
//! | outcome unknown | 409 | `outcome_unknown` | look whether it happened (R19) |
//!
//! The last has no `Retry-After` and is no 5xx, because client libraries repeat those by themselves. What was
//! replied before to a request with the same key is replied again, with `Idempotency-Replayed: true`.

use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::auth::Denied;
use crate::auth::rate::TooMany;
use crate::gateway::body::BodyError;
use crate::gateway::json;
use crate::gateway::reply;
use crate::gateway::stats;
use crate::gateway::storage::KeyError;
use crate::http::Refusal;
use crate::shard::request::SubmitError;
use crate::wire::command::draft::DraftError;
use crate::wire::rows::StatementError;

/// Code of a statement's error that is about the size of the whole database.
const DATABASE_FULL: &str = "database_bytes";
/// Code of what needs room on a disk that has hardly any.
const DISK_FULL: &str = "disk_reserve";
/// Code of a read that found its database in use by the engine itself.
const BUSY: &str = "busy";
/// Code of a statement that met a database, or a node, that takes none any more.
const FENCED: &str = "fenced";

/// Code of a head that is too large.
const HEADER_BYTES: &str = "header_bytes";
/// Code of whatever met a queue that is full.
const OVERLOADED: &str = "overloaded";
/// Code of a body, or the command it becomes, that is too large.
const BODY_TOO_LARGE: &str = "body_bytes";
/// Code of a request whose key has asked too often.
const TOO_MANY: &str = "too_many_requests";
/// Code of whatever came by a connection too many.
const CONNECTIONS: &str = "connections";
/// Code of a request whose key belongs to another one.
const KEY_REUSED: &str = "idempotency_key_reused";
/// Code of a request for whose key there is no room yet.
const KEYS_FULL: &str = "idempotency_keys_full";

/// Why a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The sender may not.
    Denied(Denied),
    /// The path wants another method.
    Method,
    /// The body is not what the path wants, which is `shape`.
    Body {
        /// What is wrong.
        error: BodyError,
        /// What the body should look like.
        shape: &'static str,
    },
    /// A table's name that is no plain identifier.
    TableName,
    /// One row was asked for, and there is none.
    NoRow,
    /// There is no such key.
    NoKey {
        /// The key.
        key: String,
        /// That is what the same request was told before.
        is_replayed: bool,
    },
    /// A request about a key that is no request.
    Key(KeyError),
    /// A namespace was named that is not the sender's.
    OtherNamespace,
    /// A header `Idempotency-Key` that is none.
    IdempotencyKey,
    /// The node did not do it, or nobody knows.
    Submit(SubmitError),
    /// The server refused it before it was read.
    Refused(Refusal),
}

impl From<Denied> for ApiError {
    fn from(error: Denied) -> Self {
        Self::Denied(error)
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<DraftError> for ApiError {
    fn from(error: DraftError) -> Self {
        Self::Body { error: error.into(), shape: "" }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        Self::Submit(error)
    }
}

impl ApiError {
    /// The limit that the request has crossed, as the configuration calls it.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Refused(Refusal::HeadTooLarge) => Some(HEADER_BYTES),
            Self::Refused(Refusal::BodyTooLarge)
            | Self::Body { error: BodyError::Draft(DraftError::Size), .. } => Some(BODY_TOO_LARGE),
            Self::Submit(SubmitError::TooMany(_)) => Some("requests_per_second"),
            Self::Submit(SubmitError::DatabaseFull) => Some(DATABASE_FULL),
            Self::Submit(SubmitError::DiskReserve) => Some(DISK_FULL),
            Self::Submit(SubmitError::Statement(error)) => stats::limit_of(error.code?),
            _ => None,
        }
    }
}

/// The reply that tells the client whose move it is.
pub fn reply_to(error: &ApiError) -> Response<Bytes> {
    match error {
        ApiError::Denied(error) => denied(*error),
        ApiError::Method => refuse(StatusCode::METHOD_NOT_ALLOWED, None, "method not allowed"),
        ApiError::Body { error: BodyError::Shape, shape } => {
            refuse(StatusCode::BAD_REQUEST, None, &format!("invalid body: {shape}"))
        }
        ApiError::Body { error: error @ BodyError::Draft(DraftError::Size), .. } => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, Some(BODY_TOO_LARGE), &error.to_string())
        }
        ApiError::Body { error, .. } => refuse(StatusCode::BAD_REQUEST, None, &error.to_string()),
        ApiError::TableName => refuse(StatusCode::BAD_REQUEST, None, "invalid table identifier"),
        ApiError::NoKey { key, is_replayed } => {
            let message = format!("key not found: {key}");
            let mut reply = refuse(StatusCode::NOT_FOUND, Some("key_not_found"), &message);
            if *is_replayed {
                reply::mark_replayed(&mut reply);
            }
            reply
        }
        ApiError::Key(error) => refuse(StatusCode::BAD_REQUEST, None, &error.to_string()),
        ApiError::OtherNamespace => refuse(StatusCode::FORBIDDEN, None, "namespace mismatch"),
        ApiError::NoRow => refuse(StatusCode::NOT_FOUND, None, "not found"),
        ApiError::IdempotencyKey => refuse(
            StatusCode::BAD_REQUEST,
            Some("idempotency_key"),
            "invalid Idempotency-Key: one header with 1 to 255 printable ASCII characters",
        ),
        ApiError::Submit(error) => not_done(error),
        ApiError::Refused(refusal) => refused(*refusal),
    }
}

fn denied(error: Denied) -> Response<Bytes> {
    let (status, challenge) = match error {
        Denied::Missing => {
            (StatusCode::UNAUTHORIZED, Some(r#"Bearer realm="gateway", charset="UTF-8""#))
        }
        Denied::Invalid => (StatusCode::UNAUTHORIZED, Some(r#"Bearer error="invalid_token""#)),
        Denied::NoNamespace => (StatusCode::FORBIDDEN, None),
    };
    let mut reply = refuse(status, None, &error.to_string());
    if let Some(it) = challenge {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(it));
    }
    reply
}

fn not_done(error: &SubmitError) -> Response<Bytes> {
    let message = error.to_string();
    match error {
        SubmitError::Statement(error) => failed(error),
        SubmitError::Replayed(error) => {
            let mut reply = failed(error);
            reply::mark_replayed(&mut reply);
            reply
        }
        SubmitError::NoLeader => later("no_leader", &message),
        SubmitError::Overloaded => later(OVERLOADED, &message),
        SubmitError::TooMany(error) => too_many(*error),
        SubmitError::ShuttingDown => later("shutting_down", &message),
        SubmitError::Fenced => later(FENCED, &message),
        SubmitError::DatabaseFull => {
            refuse(StatusCode::INSUFFICIENT_STORAGE, Some(DATABASE_FULL), &message)
        }
        SubmitError::DiskReserve => {
            refuse(StatusCode::INSUFFICIENT_STORAGE, Some(DISK_FULL), &message)
        }
        SubmitError::OutcomeUnknown => {
            refuse(StatusCode::CONFLICT, Some("outcome_unknown"), &message)
        }
    }
}

fn failed(error: &StatementError) -> Response<Bytes> {
    let status = match error.code {
        Some(code @ (BUSY | FENCED | OVERLOADED)) => return later(code, &error.message),
        Some(DATABASE_FULL | DISK_FULL) => StatusCode::INSUFFICIENT_STORAGE,
        Some(KEY_REUSED) => StatusCode::UNPROCESSABLE_ENTITY,
        Some(KEYS_FULL) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut reply = refuse(status, error.code, &error.message);
    if let Some(seconds) = error.retry_after_s {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

fn refused(refusal: Refusal) -> Response<Bytes> {
    let message = refusal.to_string();
    match refusal {
        Refusal::HeadBroken => refuse(StatusCode::BAD_REQUEST, Some("malformed_head"), &message),
        Refusal::HeadTooLarge => {
            refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Some(HEADER_BYTES), &message)
        }
        Refusal::BodyTooLarge => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, Some(BODY_TOO_LARGE), &message)
        }
        Refusal::BodyTimeout => refuse(StatusCode::REQUEST_TIMEOUT, Some("body_timeout"), &message),
        Refusal::BodyMalformed | Refusal::BodyBroken => {
            refuse(StatusCode::BAD_REQUEST, Some("malformed_body"), &message)
        }
        Refusal::Overloaded => later(OVERLOADED, &message),
        Refusal::TooManyConnections => later(CONNECTIONS, &message),
    }
}

/// Not executed; in whole seconds, one may.
fn too_many(error: TooMany) -> Response<Bytes> {
    let mut reply = refuse(StatusCode::TOO_MANY_REQUESTS, Some(TOO_MANY), &error.to_string());
    let seconds = error.wait.as_secs() + u64::from(error.wait.subsec_nanos() > 0);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    reply
}

/// Not executed; the client may send it again.
fn later(code: &str, message: &str) -> Response<Bytes> {
    let mut reply = refuse(StatusCode::SERVICE_UNAVAILABLE, Some(code), message);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

fn refuse(status: StatusCode, code: Option<&str>, message: &str) -> Response<Bytes> {
    let mut body = Vec::with_capacity(64 + message.len());
    body.push(b'{');
    if let Some(code) = code {
        body.extend_from_slice(b"\"code\":");
        json::put_text(&mut body, code);
        body.push(b',');
    }
    body.extend_from_slice(b"\"error\":");
    json::put_text(&mut body, message);
    body.push(b'}');
    reply::json(status, body)
}
