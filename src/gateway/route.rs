//! Paths.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;

use crate::auth::credential;
use crate::auth::credential::Plus;
use crate::gateway::body::select::Form;
use crate::gateway::pages::Page;
use crate::gateway::reply;
use crate::gateway::sql::Endpoint;
use crate::gateway::storage;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A page about the node, open to everybody.
    Page(Page),
    /// SQL in the sender's namespace.
    Sql(Endpoint),
    /// Keys and values in the sender's namespace.
    Storage(storage::Endpoint),
}

impl Route {
    /// The route of exactly this path.
    pub(super) fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/rqlite/query" => Self::Sql(Endpoint::Query),
            "/v1/rqlite/exec" => Self::Sql(Endpoint::Exec),
            "/v1/rqlite/find" => Self::Sql(Endpoint::Select(Form::Find)),
            "/v1/rqlite/find-one" => Self::Sql(Endpoint::Select(Form::FindOne)),
            "/v1/rqlite/select" => Self::Sql(Endpoint::Select(Form::Select)),
            "/v1/rqlite/transaction" => Self::Sql(Endpoint::Transaction),
            "/v1/rqlite/schema" => Self::Sql(Endpoint::Schema),
            "/v1/rqlite/create-table" => Self::Sql(Endpoint::CreateTable),
            "/v1/rqlite/drop-table" => Self::Sql(Endpoint::DropTable),
            "/v1/storage" => Self::Storage(storage::Endpoint::PutOrGet),
            "/v1/storage/put" => Self::Storage(storage::Endpoint::Put),
            "/v1/storage/get" => Self::Storage(storage::Endpoint::Get),
            "/v1/storage/exists" => Self::Storage(storage::Endpoint::Exists),
            "/v1/storage/list" => Self::Storage(storage::Endpoint::List),
            "/v1/storage/delete" => Self::Storage(storage::Endpoint::Delete),
            "/health" | "/v1/health" => Self::Page(Page::Health),
            "/health/ready" | "/v1/health/ready" => Self::Page(Page::Ready),
            "/status" | "/v1/status" => Self::Page(Page::Status),
            "/v1/version" => Self::Page(Page::Version),
            _ => return None,
        })
    }

    /// The path that leads there, for those who count.
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Self::Sql(Endpoint::Query) => "/v1/rqlite/query",
            Self::Sql(Endpoint::Exec) => "/v1/rqlite/exec",
            Self::Sql(Endpoint::Select(Form::Find)) => "/v1/rqlite/find",
            Self::Sql(Endpoint::Select(Form::FindOne)) => "/v1/rqlite/find-one",
            Self::Sql(Endpoint::Select(Form::Select)) => "/v1/rqlite/select",
            Self::Sql(Endpoint::Transaction) => "/v1/rqlite/transaction",
            Self::Sql(Endpoint::Schema) => "/v1/rqlite/schema",
            Self::Sql(Endpoint::CreateTable) => "/v1/rqlite/create-table",
            Self::Sql(Endpoint::DropTable) => "/v1/rqlite/drop-table",
            Self::Storage(storage::Endpoint::PutOrGet) => "/v1/storage",
            Self::Storage(storage::Endpoint::Put) => "/v1/storage/put",
            Self::Storage(storage::Endpoint::Get) => "/v1/storage/get",
            Self::Storage(storage::Endpoint::Exists) => "/v1/storage/exists",
            Self::Storage(storage::Endpoint::List) => "/v1/storage/list",
            Self::Storage(storage::Endpoint::Delete) => "/v1/storage/delete",
            Self::Page(Page::Health) => "/v1/health",
            Self::Page(Page::Ready) => "/v1/health/ready",
            Self::Page(Page::Status) => "/v1/status",
            Self::Page(Page::Version) => "/v1/version",
        }
    }
}

/// The path without percent-encoding.
pub(super) fn path_of(uri: &Uri) -> Cow<'_, str> {
    match credential::decode(uri.path(), Plus::Plus) {
        Cow::Borrowed(_) => Cow::Borrowed(uri.path()),
        Cow::Owned(it) => Cow::Owned(String::from_utf8_lossy(&it).into_owned()),
    }
}

/// Whether a path belongs to a namespace, existing or not.
pub(super) fn needs_namespace(path: &str) -> bool {
    path == "/rqlite"
        || path == "/v1/rqlite"
        || path.starts_with("/v1/rqlite/")
        || path == "/v1/storage"
        || path.starts_with("/v1/storage/")
        || path.starts_with("/v1/pubsub")
}

/// The reply for a path that leads nowhere: the way to its clean form if it has another, else 404.
pub(super) fn elsewhere(uri: &Uri) -> Response<Bytes> {
    if let Some(mut location) = cleaned(uri.path()) {
        if let Some(query) = uri.query() {
            location.push('?');
            location.push_str(query);
        }
        if let Ok(location) = HeaderValue::try_from(location) {
            let mut reply = reply::empty(StatusCode::MOVED_PERMANENTLY);
            reply.headers_mut().insert(header::LOCATION, location);
            return reply;
        }
    }
    reply::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The path without empty, `.` and `..` segments; none if it is clean already.
fn cleaned(path: &str) -> Option<String> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            it => segments.push(it),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if path.ends_with('/') && clean.len() > 1 {
        clean.push('/');
    }
    // Browsers take a backslash for a slash, and two slashes for another host.
    let clean = clean.replace('\\', "%5C");
    (clean != path).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_leads_to_its_own_place() {
        for (path, pattern, route) in [
            ("/v1/rqlite/query", "/v1/rqlite/query", "Sql(Query)"),
            ("/v1/rqlite/exec", "/v1/rqlite/exec", "Sql(Exec)"),
            ("/v1/rqlite/find", "/v1/rqlite/find", "Sql(Select(Find))"),
            ("/v1/rqlite/find-one", "/v1/rqlite/find-one", "Sql(Select(FindOne))"),
            ("/v1/rqlite/select", "/v1/rqlite/select", "Sql(Select(Select))"),
            ("/v1/rqlite/transaction", "/v1/rqlite/transaction", "Sql(Transaction)"),
            ("/v1/rqlite/schema", "/v1/rqlite/schema", "Sql(Schema)"),
            ("/v1/rqlite/create-table", "/v1/rqlite/create-table", "Sql(CreateTable)"),
            ("/v1/rqlite/drop-table", "/v1/rqlite/drop-table", "Sql(DropTable)"),
            ("/v1/storage", "/v1/storage", "Storage(PutOrGet)"),
            ("/v1/storage/put", "/v1/storage/put", "Storage(Put)"),
            ("/v1/storage/get", "/v1/storage/get", "Storage(Get)"),
            ("/v1/storage/exists", "/v1/storage/exists", "Storage(Exists)"),
            ("/v1/storage/list", "/v1/storage/list", "Storage(List)"),
            ("/v1/storage/delete", "/v1/storage/delete", "Storage(Delete)"),
            ("/health", "/v1/health", "Page(Health)"),
            ("/v1/health", "/v1/health", "Page(Health)"),
            ("/health/ready", "/v1/health/ready", "Page(Ready)"),
            ("/v1/health/ready", "/v1/health/ready", "Page(Ready)"),
            ("/status", "/v1/status", "Page(Status)"),
            ("/v1/status", "/v1/status", "Page(Status)"),
            ("/v1/version", "/v1/version", "Page(Version)"),
        ] {
            let found = Route::find(path).unwrap();
            assert_eq!((found.pattern(), &*format!("{found:?}")), (pattern, route), "{path}");
        }
    }

    #[test]
    fn clean_paths() {
        for (path, want) in [
            ("/", None),
            ("/v1/x", None),
            ("/v1/x/", None),
            ("/...", None),
            ("//", Some("/")),
            ("//evil.example/x", Some("/evil.example/x")),
            ("/\\evil.example", Some("/%5Cevil.example")),
            ("/v1//x", Some("/v1/x")),
            ("/v1/./x/", Some("/v1/x/")),
            ("/v1/../../x", Some("/x")),
            ("/v1/..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), want, "{path}");
        }
    }
}
