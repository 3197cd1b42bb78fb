//! `/v1/storage/…`: keys and values of the sender's namespace.
//!
//! | method, path | parameters | body | reply |
//! |---|---|---|---|
//! | POST, PUT `put`; PUT `/v1/storage` | `key`, `ttl?` | the value | 201, `key`, `size`, `status` |
//! | GET `get`; GET `/v1/storage` | `key` | | the value; 404 if there is none |
//! | GET `exists` | `key` | | `exists` |
//! | GET `list` | `prefix?`, `after?`, `limit?` | | `keys` in the order of their bytes, `next` |
//! | POST, DELETE `delete` | `key` | or `{key}` | `key`, `status`; 404 if there is none |
//!
//! A key is 1 to 1024 bytes of UTF-8, a value any bytes up to `limits.value_bytes`. `ttl` is a duration such as
//! `1h30m`, after which the value is as if it had been deleted; a put without it is for good. `next` is what to give
//! as `after` for the keys that follow, or null if there are none; a list may have fewer keys than its limit and a
//! `next` all the same. `namespace`, if it is given, must be the sender's own. What writes takes an
//! `Idempotency-Key`.
//!
//! A value is copied once, into the command that is replicated, and sent from where the database put it.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;

use crate::auth::credential;
use crate::auth::credential::Plus;
use crate::config::duration::parse_go_duration;
use crate::gateway::body;
use crate::gateway::error::ApiError;
use crate::gateway::idempotency;
use crate::gateway::json;
use crate::gateway::pieces;
use crate::gateway::reply;
use crate::gateway::sql;
use crate::http::body::Content;
use crate::limits;
use crate::shard::request::Request;
use crate::shard::request::Submit;
use crate::types::Namespace;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementResult;
use crate::wire::rows::Values;
use crate::wire::storage::Storage;

/// What a path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Set a value.
    Put,
    /// Read a value.
    Get,
    /// Either, by the method.
    PutOrGet,
    /// Tell whether there is a value.
    Exists,
    /// List keys.
    List,
    /// Remove a value.
    Delete,
}

impl Endpoint {
    /// What it does, asked by `method`; none if it does not take that.
    pub fn by(self, method: &Method) -> Option<Self> {
        let (is_get, is_put) = (method == Method::GET, method == Method::PUT);
        let is_post = method == Method::POST;
        match self {
            Self::PutOrGet if is_put => Some(Self::Put),
            Self::PutOrGet if is_get => Some(Self::Get),
            Self::Put if is_put || is_post => Some(self),
            Self::Delete if is_post || method == Method::DELETE => Some(self),
            Self::Get | Self::Exists | Self::List if is_get => Some(self),
            _ => None,
        }
    }
}

/// What is wrong with a request about a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no key.
    #[error("missing 'key'")]
    Missing,
    /// The key is too long, or not UTF-8.
    #[error("invalid key: 1 to {} bytes of UTF-8", limits::STORAGE_KEY_SIZE_MAX)]
    Key,
    /// The time to live is none.
    #[error("invalid ttl: a duration such as 90s or 1h30m")]
    Ttl,
    /// A body that does not say a key.
    #[error("invalid body: {{key}}")]
    Body,
    /// Not a number of keys.
    #[error("invalid limit: 1 to {}", limits::STORAGE_LIST_MAX)]
    Limit,
}

/// What a request wants, read from its query and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    key: String,
    ttl_ms: u64,
    prefix: String,
    after: String,
    limit: u32,
    namespace: Option<Vec<u8>>,
}

impl Wish {
    /// Read what `endpoint` needs.
    pub fn read(endpoint: Endpoint, query: &str, body: &[u8]) -> Result<Self, KeyError> {
        let names = ["key", "ttl", "limit", "prefix", "after", "namespace"];
        let [key, ttl, limit, prefix, after, namespace] = parameters(query, names);
        let text = |it: Option<Vec<u8>>| {
            String::from_utf8(it.unwrap_or_default()).map_err(|_| KeyError::Key)
        };
        let mut wish = Self {
            key: String::new(),
            ttl_ms: 0,
            prefix: String::new(),
            after: String::new(),
            limit: limits::STORAGE_LIST,
            namespace,
        };
        if endpoint == Endpoint::List {
            (wish.prefix, wish.after) = (text(prefix)?, text(after)?);
            if let Some(it) = limit {
                wish.limit = number_of_keys(&it).ok_or(KeyError::Limit)?;
            }
            let longest = wish.prefix.len().max(wish.after.len());
            let fits = longest <= limits::STORAGE_KEY_SIZE_MAX;
            return if fits { Ok(wish) } else { Err(KeyError::Key) };
        }
        if let Some(ttl) = ttl.filter(|_| endpoint == Endpoint::Put) {
            wish.ttl_ms = str::from_utf8(&ttl).ok().and_then(ttl_ms).ok_or(KeyError::Ttl)?;
        }
        wish.key = match key {
            None if endpoint == Endpoint::Delete && !body.trim_ascii().is_empty() => {
                let body = str::from_utf8(body).map_err(|_| KeyError::Key)?;
                let found = body::any_field(body, "key").map_err(|_| KeyError::Body)?;
                found.unwrap_or_default().into_owned()
            }
            key => text(key)?,
        };
        if wish.key.is_empty() {
            return Err(KeyError::Missing);
        }
        let fits = wish.key.len() <= limits::STORAGE_KEY_SIZE_MAX;
        if fits { Ok(wish) } else { Err(KeyError::Key) }
    }

    /// As a command says it.
    pub fn storage<'a>(&'a self, endpoint: Endpoint, body: &'a [u8]) -> Storage<'a> {
        let Self { key, ttl_ms, prefix, after, limit, .. } = self;
        match endpoint {
            Endpoint::Put => Storage::Put { key, ttl_ms: *ttl_ms, value: body },
            Endpoint::Get | Endpoint::PutOrGet => Storage::Get { key },
            Endpoint::Exists => Storage::Exists { key },
            Endpoint::List => Storage::List { prefix, after, n_max: *limit },
            Endpoint::Delete => Storage::Delete { key },
        }
    }
}

/// What a query says of each of these names; as everywhere, the first of a name counts.
fn parameters<const N: usize>(query: &str, names: [&str; N]) -> [Option<Vec<u8>>; N] {
    let mut values = [const { None }; N];
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = credential::decode(name, Plus::Space);
        let nth = names.iter().position(|it| it.as_bytes() == &*name);
        if let Some(found) = nth.map(|it| &mut values[it]).filter(|it| it.is_none()) {
            *found = Some(credential::decode(value, Plus::Space).into_owned());
        }
    }
    values
}

/// How many keys to list; none if it is not digits alone, or out of range.
fn number_of_keys(text: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(text).ok().filter(|it| it.bytes().all(|it| it.is_ascii_digit()))?;
    digits.parse().ok().filter(|it| (1..=limits::STORAGE_LIST_MAX).contains(it))
}

/// Milliseconds of a time to live, at least one; none if it is no duration, or not positive.
fn ttl_ms(text: &str) -> Option<u64> {
    let nanos = u64::try_from(parse_go_duration(text).ok()?).ok()?;
    (nanos > 0).then(|| nanos.div_ceil(1_000_000))
}

/// Decode, hand over, answer.
pub async fn serve(
    endpoint: Endpoint,
    namespace: Namespace,
    head: &Parts,
    body: &[u8],
    node: &impl Submit,
) -> Result<Response<Content>, ApiError> {
    let wish = Wish::read(endpoint, head.uri.query().unwrap_or_default(), body)?;
    if wish.namespace.as_ref().is_some_and(|it| *it != namespace.as_str().as_bytes()) {
        return Err(ApiError::OtherNamespace);
    }
    let storage = wish.storage(endpoint, body);
    let mut draft = Draft::storage(&storage)?;
    let request = if storage.writes() {
        if let Some(key) = idempotency::key_of(&head.headers)? {
            draft.key(idempotency::name(key, head, body)?)?;
        }
        Request::Write { namespace, draft }
    } else {
        Request::Read { namespace, draft }
    };
    let (results, is_replayed) = sql::run(node, request).await?;
    let mut reply = match storage {
        Storage::Put { key, value, .. } => put_reply(key, value.len()).map(Content::Whole),
        Storage::Delete { key } => {
            delete_reply(key, results.last(), is_replayed)?.map(Content::Whole)
        }
        Storage::Get { key } => get_reply(key, sql::rows_of(results.last()))?,
        Storage::Exists { .. } => exists_reply(sql::rows_of(results.last())).map(Content::Whole),
        Storage::List { .. } => list_reply(sql::rows_of(results.last())).map(Content::Whole),
    };
    if is_replayed {
        reply::mark_replayed(&mut reply);
    }
    Ok(reply)
}

fn put_reply(key: &str, size: usize) -> Response<Bytes> {
    let mut out = Vec::with_capacity(48 + key.len());
    out.extend_from_slice(b"{\"key\":");
    json::put_text(&mut out, key);
    out.extend_from_slice(b",\"size\":");
    json::put_integer(&mut out, size);
    out.extend_from_slice(b",\"status\":\"ok\"}");
    reply::json(StatusCode::CREATED, out)
}

fn delete_reply(
    key: &str,
    result: Option<&StatementResult>,
    is_replayed: bool,
) -> Result<Response<Bytes>, ApiError> {
    if !matches!(result, Some(StatementResult::Counts { rows_affected: 1.., .. })) {
        return Err(ApiError::NoKey { key: key.to_owned(), is_replayed });
    }
    let mut out = Vec::with_capacity(32 + key.len());
    out.extend_from_slice(b"{\"key\":");
    json::put_text(&mut out, key);
    out.extend_from_slice(b",\"status\":\"ok\"}");
    Ok(reply::json(StatusCode::OK, out))
}

fn get_reply(key: &str, rows: Option<&Rows>) -> Result<Response<Content>, ApiError> {
    let Some(rows) = rows.filter(|it| it.count > 0) else {
        return Err(ApiError::NoKey { key: key.to_owned(), is_replayed: false });
    };
    // The one value is a blob: its tag, its length, and what was put there.
    let size = rows.values.size().saturating_sub(pieces::HEAD_SIZE);
    let start = pieces::HEAD_SIZE.min(rows.values.size());
    let mut reply = match &rows.values {
        Values::Held(bytes) => {
            let value = bytes.slice(usize::try_from(start).unwrap_or(bytes.len())..);
            Response::new(Content::Whole(value))
        }
        Values::Spooled(_) => {
            let value = Content::Pieces(pieces::bytes_of_value(rows.values.clone()));
            let mut reply = Response::new(value);
            reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            reply
        }
    };
    let kind = HeaderValue::from_static("application/octet-stream");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(reply)
}

fn exists_reply(rows: Option<&Rows>) -> Response<Bytes> {
    let exists = rows.is_some_and(|it| it.count > 0);
    reply::json(StatusCode::OK, format!("{{\"exists\":{exists}}}").into_bytes())
}

fn list_reply(rows: Option<&Rows>) -> Response<Bytes> {
    let mut out =
        Vec::with_capacity(64 + rows.map_or(0, |it| it.values.held().map_or(0, Bytes::len)));
    let mut next = None;
    let mut n_keys = 0;
    out.extend_from_slice(b"{\"keys\":[");
    let mut values = rows.into_iter().flat_map(Rows::values);
    while let (Some(Value::Text(key)), Some(is_rest)) = (values.next(), values.next()) {
        if is_rest == Value::Integer(1) {
            next = Some(key);
            break;
        }
        if n_keys > 0 {
            out.push(b',');
        }
        json::put_text(&mut out, key);
        n_keys += 1;
    }
    out.extend_from_slice(b"],\"next\":");
    match next {
        Some(key) => json::put_text(&mut out, key),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    reply::json(StatusCode::OK, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_asks_for() {
        use Endpoint::Delete;
        use Endpoint::Get;
        use Endpoint::List;
        use Endpoint::Put;
        let long = "x".repeat(limits::STORAGE_KEY_SIZE_MAX);
        let (fits, too_long) = (format!("key={long}"), format!("key={long}x"));
        for (endpoint, query, body, want) in [
            (Get, "key=a", "", Ok("Get { key: \"a\" }")),
            (Get, "key=a&key=b", "", Ok("Get { key: \"a\" }")),
            (Get, "key=+a%2Fb%00%C3%BC+", "", Ok("Get { key: \" a/b\\0ü \" }")),
            (Get, "k%65y=a", "", Ok("Get { key: \"a\" }")),
            (Get, "", "", Err(KeyError::Missing)),
            (Get, "key", "", Err(KeyError::Missing)),
            (Get, "key=%FF", "", Err(KeyError::Key)),
            (Get, &too_long, "", Err(KeyError::Key)),
            (Put, "key=a", "v", Ok("Put { key: \"a\", ttl_ms: 0, value: [118] }")),
            (Put, "key=a&ttl=1m30s", "", Ok("Put { key: \"a\", ttl_ms: 90000, value: [] }")),
            (Put, "key=a&ttl=1us", "", Ok("Put { key: \"a\", ttl_ms: 1, value: [] }")),
            (Put, "key=a&ttl=", "", Err(KeyError::Ttl)),
            (Put, "key=a&ttl=0", "", Err(KeyError::Ttl)),
            (Put, "key=a&ttl=-1s", "", Err(KeyError::Ttl)),
            (Put, "key=a&ttl=60", "", Err(KeyError::Ttl)),
            (Put, "ttl=1s", "{\"key\":\"a\"}", Err(KeyError::Missing)),
            (Delete, "", "{\"key\":\"a\"}", Ok("Delete { key: \"a\" }")),
            (Delete, "key=b", "{\"key\":\"a\"}", Ok("Delete { key: \"b\" }")),
            (Delete, "", "", Err(KeyError::Missing)),
            (Delete, "", " ", Err(KeyError::Missing)),
            (Delete, "", "{}", Err(KeyError::Missing)),
            (Delete, "", "{\"key\":\"\"}", Err(KeyError::Missing)),
            (Delete, "", "{\"key\":\" \"}", Ok("Delete { key: \" \" }")),
            (Delete, "", "{", Err(KeyError::Body)),
            (Delete, "", "{\"key\":1}", Err(KeyError::Body)),
            (Delete, "key=", "{\"key\":\"a\"}", Err(KeyError::Missing)),
            (Put, "key=a&ttl=1s&ttl=x", "", Ok("Put { key: \"a\", ttl_ms: 1000, value: [] }")),
            (Put, "key=a&ttl=x&ttl=1s", "", Err(KeyError::Ttl)),
            (List, "limit=1&limit=x", "", Ok("List { prefix: \"\", after: \"\", n_max: 1 }")),
            (List, "limit=%2B5", "", Err(KeyError::Limit)),
            (List, "limit=", "", Err(KeyError::Limit)),
            (List, "", "", Ok("List { prefix: \"\", after: \"\", n_max: 100 }")),
            (
                List,
                "prefix=a%25&after=b&limit=1000",
                "",
                Ok("List { prefix: \"a%\", after: \"b\", n_max: 1000 }"),
            ),
            (List, "limit=0", "", Err(KeyError::Limit)),
            (List, "limit=1001", "", Err(KeyError::Limit)),
            (List, "limit=x", "", Err(KeyError::Limit)),
            (List, "prefix=%FF", "", Err(KeyError::Key)),
        ] {
            let wish = Wish::read(endpoint, query, body.as_bytes());
            let got = wish.map(|it| format!("{:?}", it.storage(endpoint, body.as_bytes())));
            assert_eq!(got.as_deref().map_err(Clone::clone), want, "{endpoint:?} {query} {body}");
        }
        let error = Wish::read(Delete, "", b"{\"key\":\"\xff\"}").unwrap_err();
        assert_eq!(error, KeyError::Key);
        assert_eq!(KeyError::Body.to_string(), "invalid body: {key}");
        assert!(Wish::read(Get, &fits, b"").is_ok_and(|it| it.key == long));
        let wish = Wish::read(Get, "key=a&namespace=n%20", b"").unwrap();
        assert_eq!(wish.namespace.as_deref(), Some(&b"n "[..]));
    }
}
