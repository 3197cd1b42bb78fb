//! `LIKE` and `GLOB` as SQLite has them, but charged for what they compare, also in the middle of a value (R12).
//!
//! SQLite's own call no progress handler: a pattern of `%` and many letters takes milliseconds for each value
//! of 32 KiB, wherever it stands: in a statement, a constraint, an index on an expression. These count the
//! characters that they look at, which follow from the pattern and the text alone, and stop where that is
//! too many.
//!
//! A function of one's own loses the mark by which SQLite knows that `LIKE 'ab%'` may use an index, and no call
//! of its interface gives it back. So each function sets it itself, in SQLite's description of it, when it
//! is called the first time, by [`register`]; what it finds there is checked, and a test looks at the plans.

#![expect(
    unsafe_code,
    reason = "values are looked at where SQLite has them, and one of its flags is set"
)]

use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use rusqlite::ffi;

use crate::sql::context;
use crate::sql::fault::SqlError;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;

/// Characters looked at that take about as long as one instruction.
const LOOKS_PER_STEP: u32 = 16;
/// Bytes passed over in search of a character that take about as long as looking at one.
const SKIPPED_PER_LOOK: usize = 16;
/// Bytes of a character in UTF-8. What is no UTF-8 may have more.
const CHARACTER_BYTES_MAX: usize = 4;
/// Characters after which what they cost is charged: some microseconds.
const LOOKS_PER_CHARGE: u32 = 4_096;

/// SQLite's flags of a function: it may use an index; it heeds case.
const FLAG_LIKE: u32 = 0x4;
const FLAG_CASE: u32 = 0x8;

/// What has a meaning in a pattern. The first three are read by SQLite as well: they must stay what they are
/// there.
#[repr(C)]
struct Wildcards {
    /// Any number of characters.
    all: u8,
    /// One character.
    one: u8,
    /// Begins a set of characters; zero: there are none.
    set: u8,
    /// Upper and lower case are the same.
    is_folded: bool,
}

static LIKE: Wildcards = Wildcards { all: b'%', one: b'_', set: 0, is_folded: true };
static GLOB: Wildcards = Wildcards { all: b'*', one: b'?', set: b'[', is_folded: false };

/// The functions, their number of arguments, their wildcards, and a call.
const FUNCTIONS: [(&CStr, c_int, &Wildcards, &str); 3] = [
    (c"like", 2, &LIKE, "SELECT like('', '')"),
    (c"like", 3, &LIKE, "SELECT like('', '', 'x')"),
    (c"glob", 2, &GLOB, "SELECT glob('', '')"),
];

/// How SQLite describes a function, as far as that matters here.
#[repr(C)]
struct Description {
    n_arguments: i16,
    flags: u32,
    user_data: *mut c_void,
    next: *mut c_void,
    call: Option<Function>,
}

/// How SQLite describes a call, as far as that matters here.
#[repr(C)]
struct Call {
    result: *mut c_void,
    function: *mut Description,
}

type Function =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Register them on a connection.
pub(super) fn register(handle: Handle) -> Result<(), SqlError> {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS | ffi::SQLITE_DETERMINISTIC;
    for (name, n, wildcards, sql) in FUNCTIONS {
        let data: *const Wildcards = ptr::from_ref(wildcards);
        // SAFETY: the connection is open, the name is a C string, and the argument lives for ever; it is
        // only read.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                handle.raw(),
                name.as_ptr(),
                n,
                flags,
                data.cast_mut().cast(),
                Some(mark),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(handle.error(code));
        }
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |_| Ok::<_, SqlError>(()))?;
    }
    Ok(())
}

/// What a function is before its first call: marks it as one that may use an index, and becomes [`call`].
unsafe extern "C" fn mark(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the function's context, whose second word points to the description, as the program
    // that is linked with this one has them. (It comes with its source, and is of one version.) What is found
    // there is compared with what was registered before anything is changed. Nobody else uses the connection.
    // JUSTIFICATION: without the mark a search by a prefix reads the whole table: seconds instead of
    // microseconds.
    unsafe {
        let data = ffi::sqlite3_user_data(context);
        let function = &mut *(*context.cast::<Call>()).function;
        let of_sqlite = 0x3 | ffi::SQLITE_DETERMINISTIC.cast_unsigned();
        let is_expected = i32::from(function.n_arguments) == n
            && function.user_data == data
            && function.call.map(|it| it as usize) == Some(mark as *const () as usize)
            && function.flags & of_sqlite
                == (ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC).cast_unsigned();
        if !is_expected {
            ffi::sqlite3_result_error(context, c"not the SQLite this was built with".as_ptr(), -1);
            return;
        }
        let is_folded = (*data.cast::<Wildcards>()).is_folded;
        function.flags |= if is_folded { FLAG_LIKE } else { FLAG_LIKE | FLAG_CASE };
        function.call = Some(call);
    }
}

unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the function's context and `n` valid values; the wildcards are those registered.
    // What is read of a value stays in place until the call is over: each is read as text once.
    unsafe {
        let arguments = std::slice::from_raw_parts(arguments, usize::try_from(n).unwrap_or(0));
        let wildcards = &*ffi::sqlite3_user_data(context).cast::<Wildcards>();
        let connection = ffi::sqlite3_context_db_handle(context);
        let limit = ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH;
        if ffi::sqlite3_value_bytes(arguments[0]) > ffi::sqlite3_limit(connection, limit, -1) {
            let message = c"LIKE or GLOB pattern too complex";
            ffi::sqlite3_result_error(context, message.as_ptr(), -1);
            return;
        }
        let (mut all, mut one) = (u32::from(wildcards.all), u32::from(wildcards.one));
        let mut other = u32::from(wildcards.set);
        if let Some(escape) = arguments.get(2) {
            let Some(escape) = text(*escape) else { return };
            let (character, _) = read(escape, 0);
            if character == 0 || byte(escape, skip(escape, 0)) != 0 {
                let message = c"ESCAPE expression must be a single character";
                ffi::sqlite3_result_error(context, message.as_ptr(), -1);
                return;
            }
            other = character;
            // It takes the meaning of what it is.
            all = if all == character { 0 } else { all };
            one = if one == character { 0 } else { one };
        }
        let (Some(pattern), Some(text)) = (text(arguments[0]), text(arguments[1])) else { return };
        let mut search = Search {
            pattern,
            text,
            all,
            one,
            other,
            has_sets: wildcards.set != 0,
            is_folded: wildcards.is_folded,
            n_looks: 0,
            charge: |n| context::charge_search(n) || ffi::sqlite3_is_interrupted(connection) != 0,
        };
        let answer = search.compare(0, 0);
        let is_out = context::charge_search(u64::from(search.n_looks / LOOKS_PER_STEP));
        match answer {
            Ok(answer) if !is_out => {
                ffi::sqlite3_result_int(context, c_int::from(answer == Answer::Match));
            }
            _ => ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT),
        }
    }
}

/// A value as text, which may hold anything; none if it is NULL.
///
/// # Safety
/// `value` is valid, and is not read as anything else for as long as the text is used.
unsafe fn text<'a>(value: *mut ffi::sqlite3_value) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise. The length is that of the text, asked for after it.
    unsafe {
        let text = ffi::sqlite3_value_text(value);
        let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        (!text.is_null()).then(|| std::slice::from_raw_parts(text, length))
    }
}

/// The byte at `at`; behind the end, zero, which ends every text.
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// The character at `at`, and where the next one is. As SQLite reads what is no UTF-8: a byte that only goes on
/// stands for itself, and as many of those as there are belong to the byte that begins.
fn read(text: &[u8], at: usize) -> (u32, usize) {
    let first = byte(text, at);
    let mut next = at.saturating_add(1);
    let bits = match first {
        ..0xc0 => return (u32::from(first), next),
        0xc0..0xe0 => first & 0x1f,
        0xe0..0xf0 => first & 0x0f,
        0xf0..0xf8 => first & 0x07,
        0xf8..0xfc => first & 0x03,
        0xfc..0xfe => first & 0x01,
        0xfe.. => 0,
    };
    let mut character = u32::from(bits);
    while byte(text, next) & 0xc0 == 0x80 {
        character = (character << 6) | u32::from(byte(text, next) & 0x3f);
        next += 1;
    }
    let is_none = character < 0x80 || character & 0xffff_f800 == 0xd800;
    (if is_none { 0xfffd } else { character }, next)
}

/// Where the character after the one at `at` is, as SQLite counts characters.
fn skip(text: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    if byte(text, at) >= 0xc0 {
        while byte(text, next) & 0xc0 == 0x80 {
            next += 1;
        }
    }
    next
}

/// How a part of a pattern fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Match,
    /// Not here; perhaps further on.
    No,
    /// Nor anywhere further on.
    Nowhere,
}

/// It takes longer than it may.
struct Stopped;

/// A text that is compared with a pattern.
struct Search<'a, F> {
    pattern: &'a [u8],
    text: &'a [u8],
    all: u32,
    one: u32,
    /// What escapes, or begins a set.
    other: u32,
    has_sets: bool,
    is_folded: bool,
    /// Characters looked at that are not charged yet.
    n_looks: u32,
    /// Charges so many steps; whether it is to stop.
    charge: F,
}

impl<F: FnMut(u64) -> bool> Search<'_, F> {
    /// The character of the text at `t`, and where the next one is.
    fn next(&mut self, t: usize) -> Result<(u32, usize), Stopped> {
        let (c, next) = read(self.text, t);
        if next - t > CHARACTER_BYTES_MAX {
            let n = (next - t) / CHARACTER_BYTES_MAX;
            self.look(u32::try_from(n).unwrap_or(u32::MAX / 2))?;
        }
        Ok((c, next))
    }

    fn look(&mut self, n: u32) -> Result<(), Stopped> {
        self.n_looks += n;
        if self.n_looks < LOOKS_PER_CHARGE {
            return Ok(());
        }
        let n_steps = self.n_looks / LOOKS_PER_STEP;
        self.n_looks %= LOOKS_PER_STEP;
        if (self.charge)(u64::from(n_steps)) { Err(Stopped) } else { Ok(()) }
    }

    /// Whether the text from `t` on is what the pattern from `p` on says. As deep as the pattern has wildcards
    /// for any number of characters.
    fn compare(&mut self, mut p: usize, mut t: usize) -> Result<Answer, Stopped> {
        let mut escaped_end = None;
        loop {
            self.look(1)?;
            let (mut c, next) = read(self.pattern, p);
            p = next;
            if c == 0 {
                return Ok(if byte(self.text, t) == 0 { Answer::Match } else { Answer::No });
            }
            if c == self.all {
                return self.search(p, t);
            }
            if c == self.other {
                if self.has_sets {
                    let (character, next) = self.next(t)?;
                    t = next;
                    match self.is_in_set(p, character)? {
                        Some(end) => p = end,
                        None => return Ok(Answer::No),
                    }
                    continue;
                }
                (c, p) = read(self.pattern, p);
                if c == 0 {
                    return Ok(Answer::No);
                }
                escaped_end = Some(p);
            }
            let (c2, next) = self.next(t)?;
            t = next;
            let is_same = c == c2 || (self.is_folded && fold(c) == fold(c2));
            if !is_same && (c != self.one || Some(p) == escaped_end || c2 == 0) {
                return Ok(Answer::No);
            }
        }
    }

    /// The same, for a pattern before whose `p` stands a wildcard for any number of characters.
    fn search(&mut self, mut p: usize, mut t: usize) -> Result<Answer, Stopped> {
        let mut c;
        loop {
            self.look(1)?;
            (c, p) = read(self.pattern, p);
            if c == self.one && c != 0 {
                let (c2, next) = self.next(t)?;
                t = next;
                if c2 == 0 {
                    return Ok(Answer::Nowhere);
                }
            } else if c != self.all || c == 0 {
                break;
            }
        }
        if c == 0 {
            return Ok(Answer::Match);
        }
        if c == self.other {
            if self.has_sets {
                while byte(self.text, t) != 0 {
                    match self.compare(p - 1, t)? {
                        Answer::No => t = skip(self.text, t),
                        answer => return Ok(answer),
                    }
                }
                return Ok(Answer::Nowhere);
            }
            (c, p) = read(self.pattern, p);
            if c == 0 {
                return Ok(Answer::Nowhere);
            }
        }
        loop {
            match self.find(c, t)? {
                Some(next) => t = next,
                None => return Ok(Answer::Nowhere),
            }
            match self.compare(p, t)? {
                Answer::No => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Where the text goes on after the first `c` from `t` on; none if there is no such one.
    fn find(&mut self, c: u32, mut t: usize) -> Result<Option<usize>, Stopped> {
        if let Ok(c) = u8::try_from(c)
            && c.is_ascii()
        {
            let rest = self.text.get(t..).unwrap_or_default();
            let found = if self.is_folded {
                memchr::memchr3(0, c.to_ascii_lowercase(), c.to_ascii_uppercase(), rest)
            } else {
                memchr::memchr2(0, c, rest)
            };
            let n_skipped = found.unwrap_or(rest.len()) / SKIPPED_PER_LOOK;
            self.look(u32::try_from(n_skipped).unwrap_or(u32::MAX / 2))?;
            return Ok(found.filter(|it| rest[*it] != 0).map(|it| t + it + 1));
        }
        loop {
            self.look(1)?;
            let (c2, next) = self.next(t)?;
            if c2 == 0 {
                return Ok(None);
            }
            t = next;
            if c2 == c {
                return Ok(Some(t));
            }
        }
    }

    /// Whether `c` is in the set that begins at `p`, behind its bracket: where the pattern goes on then.
    fn is_in_set(&mut self, mut p: usize, c: u32) -> Result<Option<usize>, Stopped> {
        if c == 0 {
            return Ok(None);
        }
        let (mut before, mut is_seen, mut is_inverted) = (0, false, false);
        let mut c2;
        (c2, p) = read(self.pattern, p);
        if c2 == u32::from(b'^') {
            is_inverted = true;
            (c2, p) = read(self.pattern, p);
        }
        if c2 == u32::from(b']') {
            is_seen = c == c2;
            (c2, p) = read(self.pattern, p);
        }
        while c2 != 0 && c2 != u32::from(b']') {
            self.look(1)?;
            let is_last = matches!(byte(self.pattern, p), b']' | 0);
            if c2 == u32::from(b'-') && !is_last && before > 0 {
                (c2, p) = read(self.pattern, p);
                is_seen |= (before..=c2).contains(&c);
                before = 0;
            } else {
                is_seen |= c == c2;
                before = c2;
            }
            (c2, p) = read(self.pattern, p);
        }
        Ok((c2 != 0 && is_seen != is_inverted).then_some(p))
    }
}

/// An ASCII letter in lower case; anything else as it is.
fn fold(c: u32) -> u32 {
    if (u32::from(b'A')..=u32::from(b'Z')).contains(&c) { c | 0x20 } else { c }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use rusqlite::types::Value;

    use super::*;
    use crate::sql::Read;
    use crate::sql::Share;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::types::Dice;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Mode;
    use crate::wire::command::Stamp;

    const PATTERN_MAX: i32 = 60;

    /// A connection with SQLite's functions, and one with those here.
    fn both() -> [Connection; 2] {
        let connections = [(); 2].map(|()| Connection::open_in_memory().unwrap());
        register(Handle::new(&connections[1])).unwrap();
        for it in &connections {
            let limit = rusqlite::limits::Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH;
            it.set_limit(limit, PATTERN_MAX).unwrap();
        }
        connections
    }

    fn ask(connection: &Connection, sql: &str, arguments: &[Value]) -> Result<Option<i64>, String> {
        let mut statement = connection.prepare(sql).unwrap();
        statement
            .query_row(rusqlite::params_from_iter(arguments), |row| row.get(0))
            .map_err(|it| it.to_string())
    }

    const CALLS: [&str; 4] = [
        "SELECT CAST(?1 AS TEXT) LIKE CAST(?2 AS TEXT)",
        "SELECT CAST(?1 AS TEXT) LIKE CAST(?2 AS TEXT) ESCAPE CAST(?3 AS TEXT)",
        "SELECT CAST(?1 AS TEXT) GLOB CAST(?2 AS TEXT)",
        "SELECT ?1 LIKE ?2 ESCAPE ?3",
    ];

    /// Ask both, in all ways; how many said yes, no, and that it cannot be done.
    fn check(connections: &[Connection; 2], arguments: &[Value; 3]) -> [usize; 3] {
        let mut counts = [0; 3];
        for sql in CALLS {
            let n = if sql.contains("ESCAPE") { 3 } else { 2 };
            let [want, got] = connections.each_ref().map(|it| ask(it, sql, &arguments[..n]));
            assert_eq!(want, got, "{sql}: {arguments:?}");
            match got {
                Ok(Some(1)) => counts[0] += 1,
                Ok(Some(_)) => counts[1] += 1,
                Ok(None) => {}
                Err(_) => counts[2] += 1,
            }
        }
        counts
    }

    #[test]
    fn they_answer_as_sqlites_own_whatever_they_are_asked() {
        const PIECES: [&[u8]; 34] = [
            b"a",
            b"A",
            b"b",
            b"B",
            b"k",
            b"z",
            b"@",
            b"`",
            b"0",
            b" ",
            b"%",
            b"%",
            b"_",
            b"*",
            b"*",
            b"?",
            b"[",
            b"[",
            b"]",
            b"]",
            b"^",
            b"-",
            b"\\",
            b"\0",
            "é".as_bytes(),
            "É".as_bytes(),
            "\u{212a}".as_bytes(),
            "\u{1f980}".as_bytes(),
            b"\x80",
            b"\xc3",
            b"\xff",
            b"\xed\xa0\x80",
            b"\xf0\x80\x80\x81\xbf\xbf\xbf",
            b"\xef\xbf\xbe",
        ];
        const WILD: [&[u8]; 10] = [
            b"%",
            b"_",
            b"*",
            b"?",
            b"[a-z]",
            b"[^A-Z]",
            b"[]a-]",
            b"[^]-]",
            b"[\xc3\xa9-\xff]",
            b"%_%",
        ];
        let connections = both();
        let mut dice = Dice::new(7);
        let mut up_to =
            |n: usize| usize::try_from(dice.roll() % u64::try_from(n).unwrap()).unwrap();
        let mut counts = [0; 3];
        for _ in 0..40_000 {
            // Of few different pieces, so that much matches.
            let mut alphabet = Vec::new();
            for _ in 0..=up_to(6) {
                alphabet.push(PIECES[up_to(PIECES.len())]);
            }
            // The pattern is half of the text's pieces, half wildcards.
            let text: Vec<_> = (0..up_to(12)).map(|_| alphabet[up_to(alphabet.len())]).collect();
            let mut pattern = Vec::new();
            for piece in &text {
                match up_to(6) {
                    0 => pattern.extend_from_slice(alphabet[up_to(alphabet.len())]),
                    1 => pattern.extend_from_slice(WILD[up_to(WILD.len())]),
                    2 if up_to(3) == 0 => {}
                    _ => pattern.extend_from_slice(piece),
                }
            }
            let escape = alphabet[up_to(alphabet.len())].repeat(1 + up_to(8) / 7);
            let arguments = [text.concat(), pattern, escape].map(Value::Blob);
            for (sum, n) in counts.iter_mut().zip(check(&connections, &arguments)) {
                *sum += n;
            }
        }
        assert!(counts.iter().all(|it| *it > 10_000), "{counts:?}");
    }

    #[test]
    fn every_kind_of_value_is_asked_as_sqlite_would() {
        let connections = both();
        let values = [
            Value::Null,
            Value::Integer(12),
            Value::Real(1.5),
            Value::Text("1%".to_owned()),
            Value::Text("12".to_owned()),
            Value::Text("%".to_owned()),
            Value::Text("_".to_owned()),
            Value::Text(String::new()),
            Value::Blob(b"1_".to_vec()),
            Value::Blob(Vec::new()),
            Value::Text("%".repeat(60)),
            Value::Text("x".repeat(61)),
            Value::Text("é".repeat(31)),
            Value::Blob([b'1'; 61].to_vec()),
        ];
        let mut counts = [0; 3];
        for a in &values {
            for b in &values {
                for c in &values {
                    let arguments = [a.clone(), b.clone(), c.clone()];
                    for (sum, n) in counts.iter_mut().zip(check(&connections, &arguments)) {
                        *sum += n;
                    }
                }
            }
        }
        assert!(counts.iter().all(|it| *it > 100), "{counts:?}");
        for sql in ["SELECT like('a')", "SELECT glob(1, 2, 3)", "SELECT 'a' LIKE zeroblob(3)"] {
            let [want, got] = connections.each_ref().map(|it| {
                it.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|it| it.to_string())
            });
            assert_eq!(want, got, "{sql}");
        }
    }

    #[test]
    fn a_search_by_a_prefix_uses_an_index() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a TEXT COLLATE NOCASE, b TEXT)");
        fixture.must("CREATE INDEX t_a ON t(a)");
        fixture.must("CREATE INDEX t_b ON t(b)");
        let plain = Connection::open_in_memory().unwrap();
        plain
            .execute_batch(
                "CREATE TABLE t(a TEXT COLLATE NOCASE, b TEXT);
                 CREATE INDEX t_a ON t(a); CREATE INDEX t_b ON t(b);",
            )
            .unwrap();
        for (condition, is_search) in [
            ("a LIKE 'abc%'", true),
            ("a LIKE 'ab!%c%' ESCAPE '!'", true),
            ("b GLOB 'abc*'", true),
            ("b LIKE 'abc%'", false),
            ("a GLOB 'abc*'", false),
            ("a LIKE '%abc'", false),
            ("a LIKE b", false),
        ] {
            let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM t WHERE {condition}");
            let want: String = plain.query_row(&sql, [], |row| row.get(3)).unwrap();
            let got = fixture.query(&sql);
            assert!(got.contains(&want), "{condition}: {got}, not {want}");
            assert_eq!(got.contains("SEARCH"), is_search, "{condition}: {got}");
        }
    }

    #[test]
    fn what_would_take_an_hour_is_refused_wherever_it_stands() {
        // Each looks at most of 100 characters for each of the value's.
        let text = "replace(hex(zeroblob(15000)), '0', 'a')";
        let like = format!("LIKE '%{}b%'", "a".repeat(99));
        let glob = format!("GLOB '*{}b*'", "[a-c]".repeat(20));
        let broken = format!("LIKE '%{}b'", "a_".repeat(40));
        let loop_ = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
        let mut schemas = vec![format!(
            "CREATE TABLE t(a); {loop_} INSERT INTO t SELECT x FROM c WHERE x || {text} {glob}"
        )];
        for part in [
            format!("a CHECK({text} {like} IS NOT 1)"),
            format!("a, b AS (a || {text} {glob}) STORED"),
            format!("a CHECK(a || CAST(x'61C08080808080' AS TEXT) || {text} {broken} IS NOT 1)"),
        ] {
            schemas
                .push(format!("CREATE TABLE t({part}); {loop_} INSERT INTO t(a) SELECT x FROM c"));
        }
        for part in [format!("(a || {text} {like})"), format!("(a) WHERE a || {text} {like}")] {
            schemas.push(format!(
                "CREATE TABLE t(a); CREATE INDEX i ON t{part}; {loop_} INSERT INTO t SELECT x FROM c"
            ));
        }
        for sql in schemas {
            let mut fixture = Fixture::new();
            let stamp = Stamp { limits: CommandLimits { steps: 1_000_000, ..LIMITS }, ..stamp(1) };
            let command = command(Mode::Exec, &sql, &[], &stamp);
            let printed = print(&fixture.apply([command])[0]);
            assert!(printed.starts_with("error statement_steps"), "{sql}: {printed}");
        }
    }

    #[test]
    fn what_is_charged_is_bounded_also_where_more_may_tick_by() {
        context::begin_statement(16_000, u64::MAX);
        context::bound_charges(1_000);
        assert!(!context::charge_search(1_000));
        assert!(context::charge_search(1));
        context::unbounded();
    }

    #[test]
    fn where_there_is_little_time_it_is_given_up_in_the_middle_of_a_value() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a, b)");
        fixture.must("INSERT INTO t SELECT replace(hex(zeroblob(15000)), '0', 'a'), 'a text'");
        let slow = format!("a LIKE '%{}b%'", "a".repeat(99));
        let read = |fixture: &mut Fixture, condition: &str, share| {
            let sql = format!("SELECT b FROM t WHERE {condition}");
            let read = command(Mode::Query, &sql, &[], &stamp(1));
            fixture.database.read_within(&[read], share, &mut |_| false).unwrap().remove(0)
        };
        assert_eq!(read(&mut fixture, &slow, Share::Inline), Read::Long);
        let Read::Done(quick) = read(&mut fixture, "a LIKE '%b%' OR b LIKE 'A%'", Share::Inline)
        else {
            panic!("this is quick");
        };
        assert_eq!(print(&quick), "[b]('a text')");
        // With the time that it takes, a read may search as much as it likes.
        let whole = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20)
            SELECT count(*) FROM c, t WHERE a || x ";
        let whole = format!("{whole} {}", slow.strip_prefix("a ").unwrap());
        let stamp = Stamp { limits: CommandLimits { steps: 100_000, ..LIMITS }, ..stamp(1) };
        let read = command(Mode::Query, &whole, &[], &stamp);
        let outcome = fixture.database.read(&[read], &mut |_| false).unwrap().remove(0);
        assert_eq!(print(&outcome), "[count(*)](0)");
    }
}
