//! What can be told from an SQL text without parsing it: its first words, and whether anything is left.
//!
//! Reads tokens as SQLite's tokenizer does as far as they matter here: blanks, comments, semicolons and
//! plain words. A text it does not understand counts as [`Verb::Other`], to which the authorizer allows
//! least.

use std::borrow::Cow;

use crate::sql::authorizer;
use crate::sql::context::Verb;

/// What stands between statements and between words.
const BLANKS: [char; 7] = [' ', '\t', '\n', '\x0c', '\r', ';', '\u{feff}'];
/// Bytes of a text that may count as simple.
const SIMPLE_SIZE_MAX: usize = 4 << 10;
/// Selects and joins of one that does.
const SIMPLE_JOINS_MAX: u32 = 8;
/// Parentheses in one another in one that does.
const SIMPLE_DEPTH_MAX: u32 = 16;

/// The words that decide what the first statement of `sql` may do.
pub(super) fn verb(sql: &str) -> Verb {
    let mut rest = sql;
    let mut word = next_word(&mut rest);
    if is(word, "EXPLAIN") {
        word = next_word(&mut rest);
        if is(word, "QUERY") {
            next_word(&mut rest);
            word = next_word(&mut rest);
        }
    }
    let first = word;
    if is(first, "CREATE") && is(next_word(&mut rest), "TABLE") {
        return Verb::CreateTable;
    }
    match first {
        it if ["CREATE", "ALTER", "DROP", "REINDEX"].into_iter().any(|word| is(it, word)) => {
            Verb::Schema
        }
        it if is(it, "ANALYZE") => Verb::Analyze,
        it if is(it, "PRAGMA") => Verb::Pragma,
        it if is(it, "VACUUM") => Verb::Vacuum,
        _ => Verb::Other,
    }
}

/// Whether `sql` holds nothing but blanks, comments and semicolons.
pub(super) fn is_blank(sql: &str) -> bool {
    skip(sql).is_empty()
}

/// Whether no statement of `sql` can make a database larger, but for what triggers do: each reads, deletes or
/// drops. False for what it does not understand.
pub fn only_shrinks(sql: &str) -> bool {
    begins_only_with(sql, &["DELETE", "DROP", "SELECT", "VALUES", "EXPLAIN"])
}

/// Whether every statement of `sql` reads or drops. False for what it does not understand.
pub fn only_drops(sql: &str) -> bool {
    begins_only_with(sql, &["DROP", "SELECT", "VALUES", "EXPLAIN"])
}

/// Whether every statement of `sql` begins with one of `words`.
fn begins_only_with(sql: &str, words: &[&str]) -> bool {
    let (mut at, mut is_start) = (0, true);
    let mut before = "";
    while at < sql.len() {
        let whole = &sql[at..at + token(&sql[at..])];
        at += whole.len();
        if whole == ";" {
            is_start = true;
        } else if !skip(whole).is_empty() {
            if is_start && !words.iter().any(|it| is(whole, it)) {
                return false;
            }
            // `$a(…)`, `@a(…)`: the name of a parameter, in which SQLite reads on to the parenthesis.
            let is_parameter = before.starts_with(['$', '@', '#', ':']) || whole.contains('$');
            if is_parameter && sql[at..].starts_with('(') {
                return false;
            }
            is_start = false;
        }
        before = whole;
    }
    true
}

/// What of a long `sql` holds its first statement, so that a script of thousands is not read to its end for each
/// of them. Where a statement ends is plain but for triggers, which hold others: from one on, it is all.
pub(super) fn first_statement(sql: &str) -> &str {
    if sql.len() <= SIMPLE_SIZE_MAX {
        return sql;
    }
    let mut rest = sql;
    if is(next_word(&mut rest), "CREATE") {
        let mut word = next_word(&mut rest);
        if is(word, "TEMP") || is(word, "TEMPORARY") {
            word = next_word(&mut rest);
        }
        if is(word, "TRIGGER") {
            return sql;
        }
    }
    let mut at = sql.len() - skip(sql).len();
    while at < sql.len() {
        let is_end = sql[at..].starts_with(';');
        at += token(&sql[at..]);
        if is_end {
            return &sql[..at];
        }
    }
    sql
}

/// Whether `sql` could have an instruction that takes time in proportion to a table, and that nothing counts:
/// `count(*)`, a `DELETE` of everything, a pragma, a function as a table. What views, triggers and virtual
/// tables add is another matter.
pub(super) fn may_have_long_step(sql: &str) -> bool {
    let mut last = "";
    let mut depth = 0_u32;
    // The last token was the name of a variable.
    let mut is_variable = false;
    let is_sign = |it: &str| matches!(it, "@" | ":" | "#" | "$");
    // Parentheses around a `DELETE` that has no condition so far.
    let mut deletes_all = None;
    for it in tokens(sql) {
        match it {
            "(" if is(last, "COUNT") => return true,
            // A variable may be called so, and hold anything up to the closing parenthesis.
            "(" if is_variable => return true,
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            ";" if deletes_all.is_some() => return true,
            it if is(it, "FROM") && is(last, "DELETE") => deletes_all = Some(depth),
            it if is(it, "WHERE") && deletes_all == Some(depth) => deletes_all = None,
            it if ["PRAGMA", "JSON_EACH", "JSON_TREE"].into_iter().any(|word| is(it, word)) => {
                return true;
            }
            it if it.get(..7).is_some_and(|it| is(it, "PRAGMA_")) => return true,
            _ => {}
        }
        is_variable = is_sign(last) || it.starts_with('$') || (is_variable && it == ":");
        last = it;
    }
    deletes_all.is_some()
}

/// Whether preparing `sql`, which may be any statement but one on the schema, is quick: it is short and
/// joins little. (Sixty-four tables joined `NATURAL` take SQLite 150 ms.)
pub(super) fn is_simple(sql: &str) -> bool {
    let (mut n_joined, mut depth, mut depth_max) = (0, 0_u32, 0);
    if sql.len() > SIMPLE_SIZE_MAX {
        return false;
    }
    for it in tokens(sql) {
        match it {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            it => n_joined += u32::from(["JOIN", "SELECT"].into_iter().any(|word| is(it, word))),
        }
        depth_max = depth_max.max(depth);
    }
    n_joined <= SIMPLE_JOINS_MAX && depth_max <= SIMPLE_DEPTH_MAX
}

/// What the first statement of a text joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Joins {
    /// Bytes of the statement.
    pub(super) bytes: usize,
    /// How often it joins, so far as it says so by the word.
    pub(super) n_tables: u64,
    /// Some are joined by columns of one name.
    pub(super) is_natural: bool,
    /// How deep SELECT stands in parentheses.
    pub(super) depth: u32,
}

/// What the first statement of `sql` joins.
pub(super) fn joins(sql: &str) -> Joins {
    let mut joins = Joins { bytes: sql.len(), ..Joins::default() };
    let (mut depth, mut n_before, mut is_trigger) = (0_u32, 0, false);
    for it in tokens(sql) {
        match it {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            ";" if n_before > 0 && !is_trigger => {
                joins.bytes = it.as_ptr().addr() - sql.as_ptr().addr();
                break;
            }
            it if is(it, "JOIN") => joins.n_tables += 1,
            it if is(it, "NATURAL") || is(it, "USING") => joins.is_natural = true,
            it if is(it, "SELECT") => joins.depth = joins.depth.max(depth),
            // CREATE [TEMP] TRIGGER, whose statements have semicolons of their own.
            it if n_before <= 4 => is_trigger |= is(it, "TRIGGER"),
            _ => {}
        }
        n_before += u32::from(it != ";");
    }
    joins
}

/// Whether `sql` makes a table of what a `SELECT` gives, and does not list its columns.
pub(super) fn makes_table_by_select(sql: &str) -> bool {
    let mut tokens = tokens(sql).skip_while(|it| *it == ";");
    let mut next = || tokens.next().unwrap_or_default();
    if !is(next(), "CREATE") || !is(next(), "TABLE") {
        return false;
    }
    let (name, mut after) = (next(), next());
    if is(name, "IF") && is(after, "NOT") {
        // What exists, and the name.
        (_, _, after) = (next(), next(), next());
    }
    if after == "." {
        (_, after) = (next(), next());
    }
    after != "("
}

/// Whether `sql` makes an ordinary table or an index, or makes indexes anew: no virtual table is part of it but
/// those that it reads.
pub(super) fn makes_table_or_index(sql: &str) -> bool {
    let mut rest = sql;
    let first = next_word(&mut rest);
    if is(first, "REINDEX") {
        return true;
    }
    let word = next_word(&mut rest);
    let word = if is(word, "UNIQUE") { next_word(&mut rest) } else { word };
    is(first, "CREATE") && (is(word, "TABLE") || is(word, "INDEX"))
}

/// Whether `sql` alters a table.
pub(super) fn is_alter(sql: &str) -> bool {
    let mut rest = sql;
    is(next_word(&mut rest), "ALTER")
}

/// Whether `sql` takes a column out of a table.
pub(super) fn drops_column(sql: &str) -> bool {
    let mut tokens = tokens(sql).skip_while(|it| *it == ";");
    let mut next = || tokens.next().unwrap_or_default();
    if !is(next(), "ALTER") || !is(next(), "TABLE") {
        return false;
    }
    let (_, mut after) = (next(), next());
    if after == "." {
        (_, after) = (next(), next());
    }
    is(after, "DROP")
}

/// Whether `sql`, from the schema, makes a virtual table.
pub(super) fn is_virtual_table(sql: &str) -> bool {
    let mut rest = sql;
    is(next_word(&mut rest), "CREATE") && is(next_word(&mut rest), "VIRTUAL")
}

/// The module of the virtual table that `sql` makes, as it stands there; none if there is something between that is not
/// understood.
pub(super) fn module(sql: &str) -> Option<&str> {
    // Behind `CREATE VIRTUAL TABLE`, as SQLite writes it, and a name.
    let mut rest = tokens(sql).skip(4);
    rest.next().filter(|it| is(it, "USING"))?;
    rest.next()
}

/// The tokens of `sql`, semicolons among them, but neither blanks nor comments; a quoted name without its
/// quotes.
fn tokens(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|it| it != ';' && BLANKS.contains(&it));
        if rest.is_empty() {
            return None;
        }
        loop {
            let (first, after) = rest.split_at(token(rest));
            rest = after.trim_start_matches(|it| it != ';' && BLANKS.contains(&it));
            let is_comment = first.starts_with("--") || first.starts_with("/*");
            if !is_comment {
                return Some(unquoted(first).unwrap_or(first));
            }
            if rest.is_empty() {
                return None;
            }
        }
    })
}

/// Whether `name` stands anywhere in `sql`, in whatever case.
pub(super) fn mentions(sql: &str, name: &str) -> bool {
    let (text, name) = (sql.as_bytes(), name.as_bytes());
    // The names asked for begin with what hardly any text contains.
    memchr::memmem::find(text, &name[..2]).is_some()
        && text.windows(name.len()).any(|it| it.eq_ignore_ascii_case(name))
}

/// `sql` with the schema table replaced by the view of it that a tenant may read, and `main.` before it by
/// `temp.`. All names are as long as what they replace. A quoted name stays where it could be anything but
/// a table's; if it is one after all, the authorizer refuses it.
pub(super) fn with_visible_schema(sql: &str) -> Cow<'_, str> {
    let mut changed: Option<String> = None;
    let mut replace = |at: usize, with: &str| {
        let text = changed.get_or_insert_with(|| sql.to_owned());
        text.replace_range(at..at + with.len(), with);
    };
    // The two tokens before this one: `main` and a dot, perhaps.
    let (mut before, mut at) = ([(0, ""); 2], 0);
    while at < sql.len() {
        let end = at + token(&sql[at..]);
        let whole = &sql[at..end];
        let (start, name) = unquoted(whole).map_or((at, whole), |name| (at + 1, name));
        // What is quoted may be a string, or the name of a column.
        let is_table = || start == at || names_table(before, &sql[end..]);
        if authorizer::SCHEMA_TABLES.iter().any(|it| is(name, it)) && is_table() {
            replace(start, authorizer::VIEW);
            if let [(main_at, main), (_, ".")] = before
                && is(main, "main")
            {
                replace(main_at, "temp");
            }
        }
        if !skip(whole).is_empty() {
            before = [before[1], (start, name)];
        }
        at = end;
    }
    changed.map_or(Cow::Borrowed(sql), Cow::Owned)
}

/// What stands between the quotes of `token`; none if it has none, or no end.
fn unquoted(token: &str) -> Option<&str> {
    [('"', '"'), ('`', '`'), ('[', ']')]
        .into_iter()
        .find_map(|(open, close)| token.strip_prefix(open)?.strip_suffix(close))
}

/// Whether a name between the tokens `before` and the text `after` can only be that of a table.
fn names_table(before: [(usize, &str); 2], after: &str) -> bool {
    let [(_, schema), (_, last)] = before;
    let is_after = ["FROM", "JOIN", "INTO", "UPDATE"].into_iter().any(|it| is(last, it));
    is_after || (last == "." && is(schema, "main")) || skip(after).starts_with('.')
}

/// Bytes of the longest blob that is written in `sql` (`x'00ff'`), or more: what stands in a string or a comment may
/// look like one.
pub(super) fn longest_blob(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut digits_max = 0;
    for quote in memchr::memchr_iter(b'\'', bytes) {
        if quote == 0 || !bytes[quote - 1].eq_ignore_ascii_case(&b'x') {
            continue;
        }
        let rest = &bytes[quote + 1..];
        let n_digits = rest.iter().take_while(|it| it.is_ascii_hexdigit()).count();
        if rest.get(n_digits) == Some(&b'\'') {
            digits_max = digits_max.max(n_digits);
        }
    }
    digits_max.div_ceil(2)
}

/// Bytes of the token that `text`, which is not empty, starts with.
pub(super) fn token(text: &str) -> usize {
    let until = |from: usize, close: &str| {
        text[from..].find(close).map_or(text.len(), |it| from + it + close.len())
    };
    let first = text.chars().next().expect("not empty");
    match first {
        // A doubled quote inside ends one token and starts the next, which finds the same end.
        '\'' => until(1, "'"),
        '"' => until(1, "\""),
        '`' => until(1, "`"),
        '[' => until(1, "]"),
        '-' if text.starts_with("--") => until(2, "\n"),
        '/' if text.starts_with("/*") => until(2, "*/"),
        _ if is_of_name(first) => text.find(|it| !is_of_name(it)).unwrap_or(text.len()),
        _ => first.len_utf8(),
    }
}

/// Whether `it` may stand in a name without quotes.
fn is_of_name(it: char) -> bool {
    it.is_ascii_alphanumeric() || it == '_' || it == '$' || !it.is_ascii()
}

fn is(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

/// The word at the front, which is taken away; empty if something else stands there.
fn next_word<'a>(rest: &mut &'a str) -> &'a str {
    let text = skip(rest);
    let end = text.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}

/// `text` without the blanks, comments and semicolons at its front.
fn skip(mut text: &str) -> &str {
    loop {
        let before = text.len();
        text = text.trim_start_matches(BLANKS);
        if let Some(comment) = text.strip_prefix("--") {
            text = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = text.strip_prefix("/*") {
            text = comment.split_once("*/").map_or("", |(_, after)| after);
        }
        if text.len() == before {
            return text;
        }
    }
}

#[cfg(test)]
mod tests;
