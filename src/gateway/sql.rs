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
use crate::gateway::pieces;
use crate::gateway::pieces::Paper;
use crate::gateway::pieces::Plan;
use crate::gateway::reply;
use crate::gateway::rows::Blobs;
use crate::gateway::rows::Part;
use crate::gateway::rows::Table;
use crate::http::body::Content;
use crate::limits;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Submit;
use crate::types::Namespace;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::draft::Draft;
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
) -> Result<Response<Content>, ApiError> {
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
            (StatusCode::OK, content(Shape::Table, &read(draft).await?, blobs(query)))
        }
        Endpoint::Select(form) => {
            let Selection { draft, one } = select::selection(body, form).map_err(wrong)?;
            let results = read(draft).await?;
            let shape = if one && !wants_list(query) { Shape::Row } else { Shape::Table };
            if shape == Shape::Row && rows_of(results.last()).is_none_or(|it| it.count == 0) {
                return Err(ApiError::NoRow);
            }
            (StatusCode::OK, content(shape, &results, blobs(query)))
        }
        Endpoint::Exec => {
            let draft = body::statement(body, Mode::Exec).map_err(wrong)?;
            (StatusCode::OK, content(Shape::Execution, &write(draft).await?, blobs(query)))
        }
        Endpoint::Transaction => {
            let transaction = body::transaction(body).map_err(wrong)?;
            let draft = transaction.draft;
            let results =
                if transaction.writes { write(draft).await? } else { read(draft).await? };
            let out = if transaction.return_results {
                content(Shape::Each, &results, blobs(query))
            } else {
                done()
            };
            (StatusCode::OK, out)
        }
        Endpoint::Schema => {
            let draft = single(Mode::Query, SCHEMA).map_err(wrong)?;
            (StatusCode::OK, content(Shape::Schema, &read(draft).await?, Blobs::Text))
        }
        Endpoint::CreateTable => {
            let schema = body::field(body, "schema").map_err(wrong)?;
            write(single(Mode::Exec, &schema).map_err(wrong)?).await?;
            (StatusCode::CREATED, done())
        }
        Endpoint::DropTable => {
            let table = body::field(body, "table").map_err(wrong)?;
            let table = identifier(&table).ok_or(ApiError::TableName)?;
            let sql = format!("DROP TABLE IF EXISTS \"{table}\"");
            write(single(Mode::Exec, &sql).map_err(wrong)?).await?;
            (StatusCode::OK, done())
        }
    };
    let mut reply = reply::json_content(status, out);
    if is_replayed {
        reply::mark_replayed(&mut reply);
    }
    Ok(reply)
}

fn done() -> Content {
    Content::Whole(Bytes::from_static(b"{\"status\":\"ok\"}\n"))
}

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
pub(super) fn rows_of(result: Option<&StatementResult>) -> Option<&Rows> {
    match result? {
        StatementResult::Rows(rows) => Some(rows),
        StatementResult::Counts { returned, .. } => returned.as_ref(),
    }
}

/// What a reply says of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Columns, count, and the rows twice.
    Table,
    /// The first row, which there must be.
    Row,
    /// Counts, and rows if there are some.
    Execution,
    /// Each result.
    Each,
    /// The rows as objects, twice.
    Schema,
}

/// The text of a reply: at once, or, if the results are large, piece by piece while it is sent.
fn content(shape: Shape, results: &[StatementResult], blobs: Blobs) -> Content {
    if pieces::are_large(results) {
        let mut plan = Plan::default();
        put_reply(&mut plan, shape, results, blobs);
        return Content::Pieces(plan.into_pieces(blobs, limits::PIECE_SIZE));
    }
    let mut out = Vec::new();
    put_reply(&mut out, shape, results, blobs);
    Content::Whole(out.into())
}

fn put_reply(out: &mut impl Paper, shape: Shape, results: &[StatementResult], blobs: Blobs) {
    match shape {
        Shape::Table => put_table(out, results.last(), blobs),
        Shape::Row => put_first(out, results.last(), blobs),
        Shape::Execution => {
            out.reserve(96);
            put_counts(out, results.last(), "\"execution_state\":\"ok\",", blobs);
        }
        Shape::Each => put_results(out, results, blobs),
        Shape::Schema => put_schema(out, results.last()),
    }
    out.text().push(b'\n');
}

fn put_table(out: &mut impl Paper, result: Option<&StatementResult>, blobs: Blobs) {
    let Some(rows) = rows_of(result) else {
        let empty = br#"{"columns":[],"count":0,"items":[],"rows":[]}"#;
        return out.text().extend_from_slice(empty);
    };
    let table = Table::new(rows, blobs);
    out.reserve(table.size_hint());
    out.text().extend_from_slice(b"{\"columns\":");
    table.put_columns(out.text());
    put_number(out.text(), ",\"count\":", rows.count);
    out.text().extend_from_slice(b",\"items\":");
    out.put(&table, Part::Items);
    out.text().extend_from_slice(b",\"rows\":");
    out.put(&table, Part::Rows);
    out.text().push(b'}');
}

fn put_first(out: &mut impl Paper, result: Option<&StatementResult>, blobs: Blobs) {
    let rows = rows_of(result).expect("there is a row");
    let table = Table::new(rows, blobs);
    out.reserve(table.size_hint());
    out.put(&table, Part::First);
}

/// An object with counts, and rows if there are some; its keys are sorted, and `state` comes where it
/// belongs among them.
fn put_counts(out: &mut impl Paper, result: Option<&StatementResult>, state: &str, blobs: Blobs) {
    let (rows_affected, last_insert_id) = match result {
        Some(StatementResult::Counts { rows_affected, last_insert_id, .. }) => {
            (*rows_affected, *last_insert_id)
        }
        Some(StatementResult::Rows(_)) | None => (0, 0),
    };
    let table = rows_of(result).map(|it| (Table::new(it, blobs), it.count));
    out.text().push(b'{');
    if let Some((table, count)) = &table {
        out.reserve(table.size_hint());
        out.text().extend_from_slice(b"\"columns\":");
        table.put_columns(out.text());
        put_number(out.text(), ",\"count\":", *count);
        out.text().push(b',');
    }
    out.text().extend_from_slice(state.as_bytes());
    if let Some((table, _)) = &table {
        out.text().extend_from_slice(b"\"items\":");
        out.put(table, Part::Items);
        out.text().push(b',');
    }
    put_number(out.text(), "\"last_insert_id\":", last_insert_id);
    if let Some((table, _)) = &table {
        out.text().extend_from_slice(b",\"rows\":");
        out.put(table, Part::Rows);
    }
    put_number(out.text(), ",\"rows_affected\":", rows_affected);
    out.text().push(b'}');
}

fn put_results(out: &mut impl Paper, results: &[StatementResult], blobs: Blobs) {
    out.text().extend_from_slice(b"{\"results\":[");
    for (nth, result) in results.iter().enumerate() {
        if nth > 0 {
            out.text().push(b',');
        }
        match result {
            StatementResult::Rows(rows) => {
                let table = Table::new(rows, blobs);
                out.reserve(table.size_hint());
                out.put(&table, Part::Items);
            }
            StatementResult::Counts { .. } => put_counts(out, Some(result), "", blobs),
        }
    }
    out.text().extend_from_slice(b"],\"status\":\"ok\"}");
}

fn put_schema(out: &mut impl Paper, result: Option<&StatementResult>) {
    let table = rows_of(result).map(|it| Table::new(it, Blobs::Text));
    let count = rows_of(result).map_or(0, |it| it.count);
    put_number(out.text(), "{\"count\":", count);
    for key in [",\"objects\":", ",\"tables\":"] {
        out.text().extend_from_slice(key.as_bytes());
        match &table {
            Some(table) => out.put(table, Part::Items),
            None => out.text().extend_from_slice(b"[]"),
        }
    }
    out.text().push(b'}');
}

fn put_number(out: &mut Vec<u8>, key: &str, value: impl itoa::Integer) {
    out.extend_from_slice(key.as_bytes());
    json::put_integer(out, value);
}
