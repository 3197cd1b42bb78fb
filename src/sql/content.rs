//! A hash over the whole content of a database, the same on every replica that applied the same commands.
//!
//! The order is fixed: the schema by its own order, then table after table in the order of their trees
//! (rowid, or primary key). Where pages lie in the file does not count, nor how full they are.

use bytes::BytesMut;

use crate::sql::fault::SqlError;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::wire::command::Value;

/// Hash the database behind `handle`.
pub(super) fn hash(handle: Handle) -> Result<u64, SqlError> {
    let mut hash = Hash(0);
    let mut tables = Vec::new();
    let schema = "SELECT type, name, tbl_name, sql, type = 'table' AND rootpage > 0,
            (SELECT wr FROM main.pragma_table_list(m.name) WHERE schema = 'main')
        FROM main.sqlite_master AS m ORDER BY type, name";
    each(handle, schema, |row| {
        hash.add(row, 4);
        if row.value(4) == Ok(Value::Integer(1)) {
            let name = match row.value(1) {
                Ok(Value::Text(name)) => name.replace('"', "\"\""),
                _ => unreachable!("a table has a name"),
            };
            tables.push((name, row.value(5) == Ok(Value::Integer(1))));
        }
    })?;
    for (name, has_no_rowid) in tables {
        // Without an index the rows come in the order of the table's own tree.
        let sql = if has_no_rowid {
            format!("SELECT * FROM main.\"{name}\" NOT INDEXED")
        } else {
            let mut taken = Vec::new();
            each(handle, &format!("PRAGMA main.table_xinfo(\"{name}\")"), |row| {
                if let Ok(Value::Text(column)) = row.value(1) {
                    taken.push(column.to_ascii_lowercase());
                }
            })?;
            let free = ["rowid", "oid", "_rowid_"]
                .into_iter()
                .find(|it| !taken.iter().any(|name| name == it));
            let rowid = free.unwrap_or("NULL");
            format!("SELECT {rowid}, * FROM main.\"{name}\" NOT INDEXED ORDER BY {rowid}")
        };
        hash.bytes(name.as_bytes());
        each(handle, &sql, |row| hash.add(row, usize::MAX))?;
    }
    Ok(hash.0)
}

fn each(
    handle: Handle,
    sql: &str,
    mut f: impl FnMut(&crate::sql::statement::Row<'_>),
) -> Result<(), SqlError> {
    let (prepared, _) = Prepared::new(handle, sql)?;
    prepared.expect("not blank").run(std::iter::empty(), |row| {
        f(row);
        Ok::<_, SqlError>(())
    })
}

/// Multiply and fold, eight bytes at a time. Against accident, not against an adversary.
struct Hash(u64);

impl Hash {
    /// Add the first `n` values of a row, or all.
    fn add(&mut self, row: &crate::sql::statement::Row<'_>, n: usize) {
        let mut encoded = BytesMut::new();
        row.encode(n.min(row.n_columns()), &mut encoded);
        self.bytes(&encoded);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(u64::try_from(bytes.len()).expect("a size"));
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn word(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}
