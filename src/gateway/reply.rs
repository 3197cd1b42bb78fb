//! What all replies have in common.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::http::body::Content;

/// Let pages of any origin use the API: it knows its callers by key, never by cookie.
const CROSS_ORIGIN: [(HeaderName, HeaderValue); 5] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, PUT, POST, DELETE, OPTIONS"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Content-Type, Authorization, X-API-Key, Idempotency-Key"),
    ),
    (
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, Idempotency-Replayed"),
    ),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
];

/// A reply without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    reply(status, Bytes::new())
}

/// A reply with JSON, to which the line end is added.
pub(super) fn json(status: StatusCode, mut body: Vec<u8>) -> Response<Bytes> {
    body.push(b'\n');
    let mut reply = reply(status, Bytes::from(body));
    let kind = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// A reply with JSON that has its line end.
pub(super) fn json_content(status: StatusCode, content: Content) -> Response<Content> {
    let mut reply = reply(status, content);
    let kind = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// A reply with plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let mut reply = reply(status, Bytes::from_static(body.as_bytes()));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

fn reply<T>(status: StatusCode, body: T) -> Response<T> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    // Content type, the five below, and one or two of an error.
    *reply.headers_mut() = HeaderMap::with_capacity(8);
    reply
}

/// Say that it is the reply to an earlier request with the same key.
pub(super) fn mark_replayed<T>(reply: &mut Response<T>) {
    let name = HeaderName::from_static("idempotency-replayed");
    reply.headers_mut().insert(name, HeaderValue::from_static("true"));
}

/// The reply, readable from pages of any origin.
pub(super) fn for_any_origin<T>(mut reply: Response<T>) -> Response<T> {
    for (name, value) in CROSS_ORIGIN {
        reply.headers_mut().insert(name, value);
    }
    reply
}
