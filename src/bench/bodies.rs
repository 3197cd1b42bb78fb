//! What is asked and what is answered, in the words of either API.
//!
//! A row is `(id, client, body)`, and its body says which row it is, so that a read can be checked without
//! taking JSON apart. The statements are the same texts throughout, with arguments, so that servers may keep
//! them prepared.

use memchr::memmem;
use serde_json::Value;

use crate::bench::http::Reply;
use crate::bench::http::put_number;
use crate::bench::target::Api;

/// Bodies of requests about one table.
#[derive(Debug)]
pub(super) struct Bodies {
    api: Api,
    /// The statements as JSON strings.
    insert: String,
    read: String,
}

/// What the table looks like.
pub(super) fn schema(table: &str) -> String {
    format!(
        "CREATE TABLE \"{table}\" (id INTEGER PRIMARY KEY, client INTEGER NOT NULL, body TEXT NOT NULL)"
    )
}

impl Bodies {
    /// For `table`, whose name is a plain word.
    pub(super) fn new(api: Api, table: &str) -> Self {
        let string = |it: String| Value::String(it).to_string();
        Self {
            api,
            insert: string(format!("INSERT INTO {table} (id, client, body) VALUES (?, ?, ?)")),
            read: string(format!("SELECT id, body FROM {table} WHERE id = ?")),
        }
    }

    /// Insert one row.
    pub(super) fn put_insert(&self, id: u64, client: u64, out: &mut Vec<u8>) {
        match self.api {
            Api::Debros => {
                self.put_object(id, client, b"{", out);
            }
            Api::Rqlite { .. } => {
                out.push(b'[');
                self.put_array(id, client, out);
                out.push(b']');
            }
        }
    }

    /// Insert several rows, all or none.
    pub(super) fn put_transaction(
        &self,
        ids: impl Iterator<Item = u64>,
        client: u64,
        out: &mut Vec<u8>,
    ) {
        let is_debros = matches!(self.api, Api::Debros);
        out.extend_from_slice(if is_debros { b"{\"ops\":[" } else { b"[" });
        for (nth, id) in ids.enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            if is_debros {
                self.put_object(id, client, b"{\"kind\":\"exec\",", out);
            } else {
                self.put_array(id, client, out);
            }
        }
        out.extend_from_slice(if is_debros { b"]}" } else { b"]" });
    }

    /// Read one row.
    pub(super) fn put_read(&self, id: u64, out: &mut Vec<u8>) {
        let (before, between, after) = match self.api {
            Api::Debros => ("{\"sql\":", ",\"args\":[", "]}"),
            Api::Rqlite { .. } => ("[[", ",", "]]"),
        };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(self.read.as_bytes());
        out.extend_from_slice(between.as_bytes());
        put_number(id, out);
        out.extend_from_slice(after.as_bytes());
    }

    /// Any statement, without arguments.
    pub(super) fn put_statement(&self, sql: &str, out: &mut Vec<u8>) {
        let sql = Value::String(sql.to_owned());
        let body = match self.api {
            Api::Debros => format!("{{\"sql\":{sql}}}"),
            Api::Rqlite { .. } => format!("[{sql}]"),
        };
        out.extend_from_slice(body.as_bytes());
    }

    fn put_object(&self, id: u64, client: u64, opening: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(opening);
        out.extend_from_slice(b"\"sql\":");
        out.extend_from_slice(self.insert.as_bytes());
        out.extend_from_slice(b",\"args\":[");
        put_row(id, client, out);
        out.extend_from_slice(b"]}");
    }

    fn put_array(&self, id: u64, client: u64, out: &mut Vec<u8>) {
        out.push(b'[');
        out.extend_from_slice(self.insert.as_bytes());
        out.push(b',');
        put_row(id, client, out);
        out.push(b']');
    }

    /// Why a reply is none of success: status and code. Nothing if it is one.
    pub(super) fn failure(&self, reply: &Reply<'_>) -> Option<String> {
        let is_done = matches!(reply.status, 200 | 201);
        match self.api {
            Api::Debros if is_done => None,
            // An error of a statement comes with status 200 there.
            Api::Rqlite { .. } if is_done => {
                memmem::find(&reply.body, b"\"error\":").map(|_| "200 error".to_owned())
            }
            _ => {
                let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
                let code = body.as_ref().and_then(|it| it["code"].as_str()).unwrap_or_default();
                Some(format!("{} {code}", reply.status).trim_end().to_owned())
            }
        }
    }

    /// The rows of a reply to a query.
    pub(super) fn rows(&self, body: &[u8]) -> Option<Vec<Vec<Value>>> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        let rows = match self.api {
            Api::Debros => body["rows"].take(),
            // Without rows the key is left out.
            Api::Rqlite { .. } => match body["results"][0]["values"].take() {
                Value::Null => return body["results"][0]["columns"].is_array().then(Vec::new),
                rows => rows,
            },
        };
        serde_json::from_value(rows).ok()
    }
}

/// Whether the reply to a read holds the row.
pub(super) fn holds_row(reply: &Reply<'_>, id: u64) -> bool {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(id).as_bytes();
    memmem::find_iter(&reply.body, b"row ").any(|at| {
        let rest = &reply.body[at + 4..];
        rest.starts_with(digits) && rest.get(digits.len()) == Some(&b' ')
    })
}

/// The arguments of an insert.
fn put_row(id: u64, client: u64, out: &mut Vec<u8>) {
    put_number(id, out);
    out.push(b',');
    put_number(client, out);
    out.extend_from_slice(b",\"row ");
    put_number(id, out);
    out.extend_from_slice(b" of client ");
    put_number(client, out);
    out.extend_from_slice(b", short\"");
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;

    fn both() -> [Bodies; 2] {
        let rqlite = Api::Rqlite { level: "weak".to_owned() };
        [Bodies::new(Api::Debros, "t"), Bodies::new(rqlite, "t")]
    }

    fn json(put: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        put(&mut out);
        serde_json::from_slice(&out).expect("it is JSON")
    }

    fn reply(status: u16, body: &Value) -> Reply<'static> {
        let body = Cow::Owned(body.to_string().into_bytes());
        Reply { status, body, size: 0, closes: false }
    }

    #[test]
    fn each_api_gets_the_bodies_it_wants() {
        let [debros, rqlite] = both();
        let insert = "INSERT INTO t (id, client, body) VALUES (?, ?, ?)";
        let read = "SELECT id, body FROM t WHERE id = ?";
        let args = json!([7, 3, "row 7 of client 3, short"]);
        let more = json!([9, 3, "row 9 of client 3, short"]);
        assert_eq!(json(|out| debros.put_insert(7, 3, out)), json!({"sql": insert, "args": args}));
        assert_eq!(
            json(|out| rqlite.put_insert(7, 3, out)),
            json!([[insert, 7, 3, "row 7 of client 3, short"]])
        );
        assert_eq!(
            json(|out| debros.put_transaction([7, 9].into_iter(), 3, out)),
            json!({"ops": [{"kind": "exec", "sql": insert, "args": args},
                           {"kind": "exec", "sql": insert, "args": more}]})
        );
        assert_eq!(
            json(|out| rqlite.put_transaction([7, 9].into_iter(), 3, out)),
            json!([[insert, 7, 3, args[2]], [insert, 9, 3, more[2]]])
        );
        assert_eq!(json(|out| debros.put_read(7, out)), json!({"sql": read, "args": [7]}));
        assert_eq!(json(|out| rqlite.put_read(7, out)), json!([[read, 7]]));
        assert_eq!(json(|out| debros.put_statement("a \"b\"", out)), json!({"sql": "a \"b\""}));
        assert_eq!(json(|out| rqlite.put_statement("a \"b\"", out)), json!(["a \"b\""]));
    }

    #[test]
    fn failures_are_told_by_status_and_code() {
        let [debros, rqlite] = both();
        for (bodies, status, body, want) in [
            (&debros, 200, json!({"execution_state": "ok"}), None),
            (&debros, 503, json!({"error": "x", "code": "overloaded"}), Some("503 overloaded")),
            (&debros, 400, json!({"error": "no such table: t"}), Some("400")),
            (&rqlite, 200, json!({"results": [{"last_insert_id": 1, "rows_affected": 1}]}), None),
            (&rqlite, 200, json!({"results": [{"error": "no such table"}]}), Some("200 error")),
            (&rqlite, 200, json!({"results": [], "error": "stale read"}), Some("200 error")),
            (&rqlite, 503, json!("leader not found"), Some("503")),
        ] {
            assert_eq!(bodies.failure(&reply(status, &body)).as_deref(), want, "{body}");
        }
    }

    #[test]
    fn rows_are_found_in_either_reply() {
        let [debros, rqlite] = both();
        let want = Some(vec![vec![json!(1), json!("a")]]);
        let columns = json!(["id", "v"]);
        let rows = json!({"columns": columns, "count": 1, "items": [], "rows": [[1, "a"]]});
        assert_eq!(debros.rows(rows.to_string().as_bytes()), want);
        let rows = json!({"results": [{"columns": columns, "types": [], "values": [[1, "a"]]}]});
        assert_eq!(rqlite.rows(rows.to_string().as_bytes()), want);
        let none = json!({"results": [{"columns": columns, "types": []}]});
        assert_eq!(rqlite.rows(none.to_string().as_bytes()), Some(Vec::new()));
        let error = json!({"results": [{"error": "no such table"}]});
        assert_eq!(rqlite.rows(error.to_string().as_bytes()), None);
    }

    #[test]
    fn a_read_holds_its_row_and_no_other() {
        let text = |it: &str| reply(200, &json!({"rows": [[12, it]]}));
        assert!(holds_row(&text("row 12 of client 3, short"), 12));
        assert!(!holds_row(&text("row 12 of client 3, short"), 1));
        assert!(!holds_row(&text("row 12 of client 3, short"), 123));
        assert!(!holds_row(&reply(200, &json!({"rows": []})), 12));
    }
}
