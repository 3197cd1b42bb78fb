//! Statements of scripts about long values: up to half a megabyte, a few among many short ones. What SQLite bounds by
//! the length of a value is more than values: messages, strings and blobs written in a text, pieces of an index.

use crate::sql::testing::LIMITS;
use crate::types::Dice;
use crate::wire::command::CommandLimits;

/// Beside the other tables.
pub(super) fn schema(with_search: bool) -> Vec<String> {
    let columns: Vec<_> = (0..20).map(|it| format!("{}{it}", "c".repeat(100))).collect();
    let columns = columns.join(",");
    let long = (0..4_000).map(|it| format!("a <> {it}")).collect::<Vec<_>>().join(" AND ");
    let mut schema = vec![
        "CREATE TABLE long(id INTEGER PRIMARY KEY, v, note)".to_owned(),
        "CREATE INDEX long_note ON long(note)".to_owned(),
        // The message about a row that comes twice is two kilobytes.
        format!("CREATE TABLE wide({columns}, UNIQUE ({columns}))"),
        // So is one of these, and the other is longer than the values of most statements.
        format!("CREATE TABLE checked(a CHECK ({}))", &long[..2_000 - 2_000 % 11 - 4]),
        format!("CREATE TABLE checked_long(a CHECK ({long}))"),
        format!(
            "CREATE TRIGGER long_raise BEFORE INSERT ON long WHEN new.note = 'raise' BEGIN SELECT RAISE(ABORT, '{}'); END",
            "m".repeat(3_000)
        ),
        // A string that is longer than the values of most statements, in what others do.
        format!(
            "CREATE TRIGGER long_mark AFTER DELETE ON long WHEN old.note = 'mark' BEGIN INSERT INTO log VALUES ('mark', old.id, '{}'); END",
            "s".repeat(36_000)
        ),
    ];
    if with_search {
        schema.push("CREATE VIRTUAL TABLE long_search USING fts5(body, detail = full)".to_owned());
        schema.push("CREATE VIRTUAL TABLE long_old USING fts4(body)".to_owned());
    }
    schema
}

/// A blob as a text has it.
fn blob(bytes: u64) -> String {
    format!("x'{}'", "5a".repeat(usize::try_from(bytes).expect("a size")))
}

fn string(bytes: u64) -> String {
    format!("'{}'", "z".repeat(usize::try_from(bytes).expect("a size")))
}

/// A statement, or a few.
pub(super) fn statement(dice: &mut Dice) -> String {
    let n = dice.below(40);
    let m = dice.below(400);
    // Mostly one that any statement may touch, often one for the middle, and now and then one for the last.
    let bytes = match dice.below(8) {
        0..4 => m * 70,
        4..7 => 33_000 + m * 500,
        _ => 270_000 + m * 600,
    };
    match dice.below(40) {
        kind @ 0..24 => of_values(kind, n, m, bytes),
        kind => of_texts(kind, n, m, bytes),
    }
}

/// One whose values are long, or its message.
fn of_values(kind: u64, n: u64, m: u64, bytes: u64) -> String {
    let half = bytes / 2;
    match kind {
        0..3 => format!("INSERT INTO long(v, note) VALUES (zeroblob({bytes}), 'n{n}')"),
        3 => format!(
            "INSERT INTO long(v, note) VALUES (hex(randomblob({half})), {m}), ('short', {n})"
        ),
        4 => format!(
            "INSERT INTO long(v, note) SELECT printf('%.*c', {bytes}, 'x'), e FROM t LIMIT 3"
        ),
        5 => format!("UPDATE long SET note = note || '{n}' WHERE id % 3 = {}", n % 3),
        6 => "UPDATE long SET note = substr(note, 1, 5)".into(),
        7 => format!(
            "UPDATE long SET v = substr(v, {n}) || v WHERE id % 7 = {} RETURNING id, length(v)",
            n % 7
        ),
        8 => format!("UPDATE long SET v = replace(v, 'x', 'yz') WHERE id % 9 = {}", n % 9),
        9..12 => format!("DELETE FROM long WHERE id % 4 = {}", n % 4),
        12 => format!(
            "DELETE FROM long WHERE length(v) > {bytes}; SELECT id, v FROM long ORDER BY id LIMIT 1"
        ),
        13 => format!(
            "INSERT INTO long(v, note) SELECT group_concat(v), 'all' FROM (SELECT v FROM long LIMIT {})",
            n % 4
        ),
        14 => format!(
            "INSERT INTO log SELECT 'longest', max(length(v)), count(*) FROM long WHERE v > 'a' AND id > {n}"
        ),
        15 => format!(
            "INSERT INTO log SELECT 'sorted', length(v), {n} FROM (SELECT v FROM long ORDER BY v LIMIT 5)"
        ),
        16 => format!(
            "INSERT INTO wide SELECT {} WHERE json_valid('[1]')",
            vec![(n % 3).to_string(); 20].join(",")
        ),
        17 => format!("INSERT INTO wide VALUES ({})", vec![(n % 3).to_string(); 20].join(",")),
        18 => format!("INSERT INTO checked SELECT json_extract('[{m}]', '$[0]')"),
        19 => format!(
            "INSERT INTO {} VALUES ({})",
            if n < 20 { "checked" } else { "checked_long" },
            m * 100
        ),
        20 => format!("INSERT INTO checked_long SELECT json_extract('[{m}]', '$[0]')"),
        21 => format!(
            "INSERT INTO long(v, note) SELECT json('[1]'), '{}'",
            if n < 20 { "raise" } else { "other" }
        ),
        22 => format!(
            "DELETE FROM long WHERE id % 6 = {} AND json_valid('1'); INSERT INTO long(note) VALUES ('mark')",
            n % 6
        ),
        _ => format!("UPDATE long SET note = 'mark' WHERE id % 5 = {}", n % 5),
    }
}

/// One whose text is long, or what it makes of a text.
fn of_texts(kind: u64, n: u64, m: u64, bytes: u64) -> String {
    let half = bytes / 2;
    match kind {
        24 => format!("INSERT INTO long(v, note) VALUES ({}, 'written')", blob(half)),
        25 => {
            format!("INSERT INTO long(v, note) SELECT {}, json_array({n})", blob(half.min(3_000)))
        }
        26 => format!("INSERT INTO long(v, note) VALUES ({}, json_quote('{n}'))", string(bytes)),
        // The same texts again and again: at hand, or not.
        27..29 => format!(
            "SELECT count(*), sum(length(a.v)) FROM log AS c, long AS a, long AS b WHERE a.note || b.note <> {}",
            string(34_000)
        ),
        29 => format!(
            "INSERT INTO log SELECT 'blobs', count(*), max(typeof({0})) FROM long AS a, long AS b, t WHERE a.v <> {0}",
            blob(35_000)
        ),
        30 => format!(
            "INSERT INTO long(v, note) SELECT json_object(hex(zeroblob({})), {m}, 'k', {n}), 'json'",
            half / 2
        ),
        31 => format!(
            "UPDATE long SET v = json_set(v, '$.' || hex(zeroblob({n})), {m}), note = v ->> '$.k' WHERE note = 'json' AND json_valid(v)"
        ),
        32 => format!(
            "INSERT INTO long(v) SELECT json_extract('{{}}', '{}')",
            "''".repeat(usize::try_from(n * n).expect("small"))
        ),
        33 => format!(
            "CREATE VIEW IF NOT EXISTS big AS SELECT {} AS v; INSERT INTO long(v, note) SELECT v, 'big' FROM big",
            blob(500 + n * 1_000)
        ),
        34 => "DROP VIEW IF EXISTS big".into(),
        35 => format!(
            "EXPLAIN QUERY PLAN SELECT json(v) FROM long AS {} WHERE note = {n}",
            "n".repeat(usize::try_from(3 + m * 8).expect("small"))
        ),
        36 => format!(
            "INSERT INTO log SELECT 'quoted', length(quote(v)), length(trim(v, 'z')) FROM long WHERE id % 8 = {}",
            n % 8
        ),
        37 => format!(
            "INSERT INTO long(v, note) SELECT CAST(v AS TEXT), upper(note) FROM long WHERE v LIKE '%5%' LIMIT {}",
            n % 3
        ),
        38 => format!("ALTER TABLE long ADD COLUMN d{m} DEFAULT {}", blob(n * 50)),
        _ => format!(
            "CREATE INDEX IF NOT EXISTS long_{} ON long(substr(v, {m}, 90), length(v))",
            n % 3
        ),
    }
}

/// A statement on a virtual table whose rows are long.
pub(super) fn search_statement(dice: &mut Dice) -> String {
    let n = dice.below(40);
    // Rows of a few words, or of some ten thousand: the pieces of their index are longer than most values.
    let words = if dice.below(3) == 0 { 9_000 } else { 5 + n };
    let of_words = format!(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {words}) SELECT group_concat('w' || (x % {}), ' ') FROM c",
        1 + n * n
    );
    match dice.below(12) {
        0..3 => format!("INSERT INTO long_search(body) {of_words}"),
        3 => format!("DELETE FROM long_search WHERE rowid % 3 = {}", n % 3),
        4 => format!(
            "INSERT INTO long_search(long_search, rank) VALUES ('pgsz', {})",
            100 + n * 1_500
        ),
        5 => "INSERT INTO long_search(long_search) VALUES ('optimize')".into(),
        6 => format!(
            "INSERT INTO log SELECT 'long rows', count(*), sum(length(body)) FROM long_search WHERE long_search MATCH 'w{n}'"
        ),
        7..10 => format!("INSERT INTO long_old(body) {of_words}"),
        10 => format!("DELETE FROM long_old WHERE docid % 3 = {}", n % 3),
        _ => format!(
            "INSERT INTO log SELECT 'old rows', count(*), sum(length(offsets(long_old))) FROM long_old WHERE long_old MATCH 'w{n}'"
        ),
    }
}

/// Limits with room for all that, or for some of it.
pub(super) fn limits(dice: &mut Dice) -> CommandLimits {
    let wide = CommandLimits {
        steps: 60_000,
        result_rows: 60,
        result_bytes: 700_000,
        value_bytes: 600_000,
        database_bytes: 20 << 20,
        ..LIMITS
    };
    match dice.below(12) {
        0 => CommandLimits { value_bytes: 60_000, ..wide },
        1 => CommandLimits { value_bytes: 2_000, ..wide },
        2 => CommandLimits { steps: 300_000, ..wide },
        3 => CommandLimits { steps: 1_000_000, ..wide },
        4 => CommandLimits { steps: 20_000, result_bytes: 5_000, ..wide },
        5 => CommandLimits { temp_bytes: 1_000_000, ..wide },
        _ => wide,
    }
}
