//! `/v1/rqlite/…`: SQL in the sender's namespace.
//!
//! | path | body | reply |
//! |---|---|---|
//! | `query` | `{sql, args?}` | `columns`, `count`, `items` (objects), `rows` (arrays) |
//! | `find` | `{table, criteria?, options?}` | as `query` |
//! | `find-one` | the same | the row, an object; 404 if there is none |
//! | `select` | the pieces of a SELECT ([`select`]) | as `query`; with `one` as `find-one` |
//! | `exec` | `{sql, args?}` | `execution_state`, `last_insert_id`, `rows_affected`; with `RETURNING` those of `query` too |
//! | `transaction` | `{ops:[{kind,sql,args?}], return_results?}` or `{statements:[sql]}` | `status`; `results`, one per op, if asked for |
//! | `schema` (GET) | | `count`; `objects` and `tables`, the same `{name,sql,type}` twice |
//! | `create-table` | `{schema}` | 201, `status` |
//! | `drop-table` | `{table}` | `status`, whether or not there was such a table |
//!
//! `?blobs=object` has blobs written as `{"base64":…}`, `?envelope=items` has one row come as `query` gives it,
//! and none as an empty list. A transaction of queries only is a read. What writes takes an `Idempotency-Key`
//! ([`idempotency`]).

use bytes::Bytes;
use http::Method;
use http::Response;
use http::StatusCode;
use http::request::Parts;

use crate::auth::credential;
use crate::gateway::body;
use crate::gateway::body::BodyError;
use crate::gateway::body::select;
use crate::gateway::body::select::Form;
use crate::gateway::body::select::Selection;
use crate::gateway::error::ApiError;
use crate::gateway::idempotency;
use crate::gateway::json;
use crate::gateway::reply;
use crate::gateway::rows::Blobs;
use crate::gateway::rows::Table;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Submit;
use crate::types::Namespace;
use crate::wire::command::Draft;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementResult;

const SCHEMA: &str = "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table','view') \
                      AND name NOT LIKE 'sqlite_%' ORDER BY name";

/// What a path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Read.
    Query,
    /// Read by a statement that is built from pieces.
    Select(Form),
    /// Write.
    Exec,
    /// Several of both, all or none.
    Transaction,
    /// List tables and views.
    Schema,
    /// Create a table, or run any other statement.
    CreateTable,
    /// Drop a table, if there is one.
    DropTable,
}

impl Endpoint {
    /// The method it wants.
    pub fn method(self) -> Method {
        match self {
            Self::Schema => Method::GET,
            _ => Method::POST,
        }
    }

    /// Whether what it does may not be done twice.
    fn may_write(self) -> bool {
        !matches!(self, Self::Query | Self::Select(_) | Self::Schema)
    }

    /// What its body looks like.
    fn shape(self) -> &'static str {
        match self {
            Self::Query | Self::Exec | Self::Schema => "{sql, args?}",
            Self::Select(Form::Find | Form::FindOne) => "{table, criteria, options?}",
            Self::Select(Form::Select) => {
                "{table, select?, where?, joins?, order_by?, group_by?, limit?, offset?, one?}"
            }
            Self::Transaction => "{ops:[{kind,sql,args?}], return_results?}",
            Self::CreateTable => "{schema}",
            Self::DropTable => "{table}",
        }
    }
}

/// Decode, hand over, answer.
pub async fn serve(
    endpoint: Endpoint,
    namespace: Namespace,
    head: &Parts,
    body: &[u8],
    node: &impl Submit,
) -> Result<Response<Bytes>, ApiError> {
    let query = head.uri.query();
    let key = if endpoint.may_write() { idempotency::key_of(&head.headers)? } else { None };
    let wrong = |error| ApiError::Body { error, shape: endpoint.shape() };
    let mut is_replayed = false;
    let read = async |draft| {
        let (results, _) = run(node, Request::Read { namespace: namespace.clone(), draft }).await?;
        Ok::<_, ApiError>(results)
    };
    let mut write = async |mut draft: Draft| {
        if let Some(key) = key {
            let request = idempotency::name(key, head, body)?;
            draft.key(request).map_err(|error| wrong(error.into()))?;
        }
        let (results, replayed) =
            run(node, Request::Write { namespace: namespace.clone(), draft }).await?;
        is_replayed = replayed;
        Ok::<_, ApiError>(results)
    };
    let (status, out) = match endpoint {
        Endpoint::Query => {
            let draft = body::statement(body, Mode::Query).map_err(wrong)?;
            (StatusCode::OK, query_reply(read(draft).await?.last(), blobs(query)))
        }
        Endpoint::Select(form) => {
            let Selection { draft, one } = select::selection(body, form).map_err(wrong)?;
            let results = read(draft).await?;
            let out = if one && !wants_list(query) {
                row_reply(results.last(), blobs(query)).ok_or(ApiError::NoRow)?
            } else {
                query_reply(results.last(), blobs(query))
            };
            (StatusCode::OK, out)
        }
        Endpoint::Exec => {
            let draft = body::statement(body, Mode::Exec).map_err(wrong)?;
            (StatusCode::OK, exec_reply(write(draft).await?.last(), blobs(query)))
        }
        Endpoint::Transaction => {
            let transaction = body::transaction(body).map_err(wrong)?;
            let draft = transaction.draft;
            let results =
                if transaction.writes { write(draft).await? } else { read(draft).await? };
            let results = transaction.return_results.then_some(&*results);
            (StatusCode::OK, transaction_reply(results, blobs(query)))
        }
        Endpoint::Schema => {
            let draft = single(Mode::Query, SCHEMA).map_err(wrong)?;
            (StatusCode::OK, schema_reply(read(draft).await?.last()))
        }
        Endpoint::CreateTable => {
            let schema = body::field(body, "schema").map_err(wrong)?;
            write(single(Mode::Exec, &schema).map_err(wrong)?).await?;
            (StatusCode::CREATED, DONE.to_vec())
        }
        Endpoint::DropTable => {
            let table = body::field(body, "table").map_err(wrong)?;
            let table = identifier(&table).ok_or(ApiError::TableName)?;
            let sql = format!("DROP TABLE IF EXISTS \"{table}\"");
            write(single(Mode::Exec, &sql).map_err(wrong)?).await?;
            (StatusCode::OK, DONE.to_vec())
        }
    };
    let mut reply = reply::json(status, out);
    if is_replayed {
        reply::mark_replayed(&mut reply);
    }
    Ok(reply)
}

const DONE: &[u8] = br#"{"status":"ok"}"#;

/// The results, and whether they are those of an earlier request.
pub(super) async fn run(
    node: &impl Submit,
    request: Request,
) -> Result<(Vec<StatementResult>, bool), ApiError> {
    match node.submit(request).await? {
        Reply::Results(results) => Ok((results, false)),
        Reply::Replayed(results) => Ok((results, true)),
        Reply::Status(_) => unreachable!("statements are answered with results"),
    }
}

fn single(mode: Mode, sql: &str) -> Result<Draft, BodyError> {
    let mut draft = Draft::new(Results::Last, sql.len() + 16);
    draft.statement(mode, sql)?;
    Ok(draft)
}

/// The trimmed name, if it is letters, digits and underscores, and no digit first.
fn identifier(name: &str) -> Option<&str> {
    let name = name.trim();
    let is_word = name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
    let begins_well = name.bytes().next().is_some_and(|it| !it.is_ascii_digit());
    (is_word && begins_well).then_some(name)
}

fn blobs(query: Option<&str>) -> Blobs {
    if asks(query, "blobs", "object") { Blobs::Object } else { Blobs::Text }
}

/// Whether even a single row is to come in a list.
fn wants_list(query: Option<&str>) -> bool {
    asks(query, "envelope", "items")
}

fn asks(query: Option<&str>, name: &str, value: &str) -> bool {
    let asked = query.and_then(|it| credential::parameter(it, name));
    asked.is_some_and(|it| *it == *value.as_bytes())
}

/// The rows of a result, if it has some.
fn rows_of(result: Option<&StatementResult>) -> Option<&Rows> {
    match result? {
        StatementResult::Rows(rows) => Some(rows),
        StatementResult::Counts { returned, .. } => returned.as_ref(),
    }
}

fn query_reply(result: Option<&StatementResult>, blobs: Blobs) -> Vec<u8> {
    let Some(rows) = rows_of(result) else {
        return br#"{"columns":[],"count":0,"items":[],"rows":[]}"#.to_vec();
    };
    let table = Table::new(rows, blobs);
    let mut out = Vec::with_capacity(table.size_hint());
    out.extend_from_slice(b"{\"columns\":");
    table.put_columns(&mut out);
    put_number(&mut out, ",\"count\":", rows.count);
    out.extend_from_slice(b",\"items\":");
    table.put_items(&mut out);
    out.extend_from_slice(b",\"rows\":");
    table.put_rows(&mut out);
    out.push(b'}');
    out
}

/// The first row, an object; none if there is no row.
fn row_reply(result: Option<&StatementResult>, blobs: Blobs) -> Option<Vec<u8>> {
    let rows = rows_of(result).filter(|it| it.count > 0)?;
    let table = Table::new(rows, blobs);
    let mut out = Vec::with_capacity(table.size_hint());
    table.put_first(&mut out);
    Some(out)
}

fn exec_reply(result: Option<&StatementResult>, blobs: Blobs) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    put_counts(&mut out, result, "\"execution_state\":\"ok\",", blobs);
    out
}

/// An object with counts, and rows if there are some; its keys are sorted, and `state` comes where it
/// belongs among them.
fn put_counts(out: &mut Vec<u8>, result: Option<&StatementResult>, state: &str, blobs: Blobs) {
    let (rows_affected, last_insert_id) = match result {
        Some(StatementResult::Counts { rows_affected, last_insert_id, .. }) => {
            (*rows_affected, *last_insert_id)
        }
        Some(StatementResult::Rows(_)) | None => (0, 0),
    };
    let table = rows_of(result).map(|it| (Table::new(it, blobs), it.count));
    out.push(b'{');
    if let Some((table, count)) = &table {
        out.reserve(table.size_hint());
        out.extend_from_slice(b"\"columns\":");
        table.put_columns(out);
        put_number(out, ",\"count\":", *count);
        out.push(b',');
    }
    out.extend_from_slice(state.as_bytes());
    if let Some((table, _)) = &table {
        out.extend_from_slice(b"\"items\":");
        table.put_items(out);
        out.push(b',');
    }
    put_number(out, "\"last_insert_id\":", last_insert_id);
    if let Some((table, _)) = &table {
        out.extend_from_slice(b",\"rows\":");
        table.put_rows(out);
    }
    put_number(out, ",\"rows_affected\":", rows_affected);
    out.push(b'}');
}

fn transaction_reply(results: Option<&[StatementResult]>, blobs: Blobs) -> Vec<u8> {
    let Some(results) = results else {
        return DONE.to_vec();
    };
    let mut out = b"{\"results\":[".to_vec();
    for (nth, result) in results.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        match result {
            StatementResult::Rows(rows) => {
                let table = Table::new(rows, blobs);
                out.reserve(table.size_hint());
                table.put_items(&mut out);
            }
            StatementResult::Counts { .. } => put_counts(&mut out, Some(result), "", blobs),
        }
    }
    out.extend_from_slice(b"],\"status\":\"ok\"}");
    out
}

fn schema_reply(result: Option<&StatementResult>) -> Vec<u8> {
    let mut items = Vec::new();
    let mut count = 0;
    match rows_of(result) {
        Some(rows) => {
            Table::new(rows, Blobs::Text).put_items(&mut items);
            count = rows.count;
        }
        None => items.extend_from_slice(b"[]"),
    }
    let mut out = Vec::with_capacity(2 * items.len() + 48);
    put_number(&mut out, "{\"count\":", count);
    for key in [",\"objects\":", ",\"tables\":"] {
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&items);
    }
    out.push(b'}');
    out
}

fn put_number(out: &mut Vec<u8>, key: &str, value: impl itoa::Integer) {
    out.extend_from_slice(key.as_bytes());
    json::put_integer(out, value);
}
