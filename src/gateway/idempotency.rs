//! `Idempotency-Key`: a client names its request, so that it can send it again without doing it twice (R18).
//!
//! Whether a request is the same as an earlier one is told by a hash over its method, its path, its query
//! and its body, byte by byte. A credential in the query does not count: who may act in a namespace, and
//! by which key, has no influence on what is done.
//!
//! Not here: what is remembered, and for how long (`sql`).

use http::HeaderMap;
use http::HeaderName;
use http::request::Parts;
use sha2::Digest;
use sha2::Sha256;

use crate::gateway::error::ApiError;
use crate::gateway::route;
use crate::wire::command::REQUEST_HASH_SIZE;
use crate::wire::command::RequestKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Parameters of a query that say who is asking, not what.
const CREDENTIALS: [&str; 2] = ["api_key", "token"];

/// The key of a request, if it has one.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.as_bytes();
    // Its form matters even where it is not used: a client should learn of it at once.
    let is_valid = RequestKey::new(key, [0; REQUEST_HASH_SIZE]).is_some();
    if is_valid && keys.next().is_none() { Ok(Some(key)) } else { Err(ApiError::IdempotencyKey) }
}

/// The name of a request that its client calls `key`.
pub(super) fn name<'a>(
    key: &'a [u8],
    head: &Parts,
    body: &[u8],
) -> Result<RequestKey<'a>, ApiError> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        // With its length, so that no two lists of parts look alike.
        hash.update(u64::try_from(bytes.len()).expect("a size").to_le_bytes());
        hash.update(bytes);
    };
    part(head.method.as_str().as_bytes());
    part(route::path_of(&head.uri).as_bytes());
    let query = head.uri.query().unwrap_or_default();
    let is_credential =
        |it: &&str| CREDENTIALS.contains(&it.split_once('=').map_or(*it, |(name, _)| name));
    let query: Vec<&str> = query.split('&').filter(|it| !is_credential(it)).collect();
    part(query.join("&").as_bytes());
    part(body);
    let digest = hash.finalize();
    let (hash, _) = digest.split_first_chunk().expect("more bytes than are wanted");
    RequestKey::new(key, *hash).ok_or(ApiError::IdempotencyKey)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hash(method: &str, target: &str, body: &str) -> [u8; REQUEST_HASH_SIZE] {
        let (head, ()) =
            Request::builder().method(method).uri(target).body(()).unwrap().into_parts();
        *name(b"k", &head, body.as_bytes()).unwrap().hash()
    }

    #[test]
    fn requests_are_the_same_if_all_but_the_credential_is() {
        let same = hash("POST", "/v1/rqlite/exec?blobs=object", "{}");
        for target in [
            "/v1/rqlite/exec?blobs=object&api_key=ak_1",
            "/v1/rqlite/exec?token=x&blobs=object",
            "/v1/rqlite/%65xec?blobs=object",
        ] {
            assert_eq!(hash("POST", target, "{}"), same, "{target}");
        }
        for (method, target, body) in [
            ("PUT", "/v1/rqlite/exec?blobs=object", "{}"),
            ("POST", "/v1/rqlite/transaction?blobs=object", "{}"),
            ("POST", "/v1/rqlite/exec", "{}"),
            ("POST", "/v1/rqlite/exec?blobs=object{}", ""),
            ("POST", "/v1/rqlite/exec?blobs=object", "{} "),
        ] {
            assert_ne!(hash(method, target, body), same, "{method} {target} {body}");
        }
    }
}
