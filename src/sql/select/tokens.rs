//! Tokens of the pieces that a SELECT is built from, as SQLite reads them.
//!
//! Stricter than SQLite wherever a text could be read in two ways, or could end what it stands in: no
//! semicolon, no comment, no parameter but a bare `?`, nothing unfinished, no byte that SQLite would skip.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, digits, underscores: a name or a keyword.
    Word,
    /// A name in double quotes, backquotes or brackets.
    Quoted,
    /// A text in single quotes.
    Text,
    /// A number, or a blob in the form `x'00'`.
    Literal,
    /// A bare question mark.
    Parameter,
    /// An operator, a bracket, a comma or a dot.
    Sign,
    /// There is no more.
    End,
}

/// A token and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

impl Token<'_> {
    /// Whether it is this keyword, in whatever case.
    pub(super) fn is_word(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this sign.
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Whether it may stand for something that has a name: quoted, or no word that SQLite keeps to itself.
    pub(super) fn is_name(&self) -> bool {
        match self.kind {
            Kind::Quoted => true,
            Kind::Word => !is_one_of(self.text, &RESERVED),
            _ => false,
        }
    }

    /// Whether it may stand for a name where SQLite expects several keywords as well: quoted, or no keyword
    /// at all.
    pub(super) fn is_plain_name(&self) -> bool {
        match self.kind {
            Kind::Quoted => true,
            Kind::Word => !is_one_of(self.text, &RESERVED) && !is_one_of(self.text, &KEYWORDS),
            _ => false,
        }
    }
}

/// Words that are no names. SQLite itself would take the last five for names in some places.
const RESERVED: [&str; 63] = [
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "AUTOINCREMENT",
    "BETWEEN",
    "CASE",
    "CHECK",
    "COLLATE",
    "COMMIT",
    "CONSTRAINT",
    "CREATE",
    "DEFAULT",
    "DEFERRABLE",
    "DELETE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "ESCAPE",
    "EXCEPT",
    "EXISTS",
    "FOREIGN",
    "FROM",
    "GROUP",
    "HAVING",
    "IN",
    "INDEX",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "ISNULL",
    "JOIN",
    "LIMIT",
    "NOT",
    "NOTHING",
    "NOTNULL",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "PRIMARY",
    "REFERENCES",
    "RETURNING",
    "SELECT",
    "SET",
    "TABLE",
    "THEN",
    "TO",
    "TRANSACTION",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "CAST",
    "INDEXED",
    "RAISE",
    "WINDOW",
    "WITH",
];

/// Words that are names where nothing else fits.
const KEYWORDS: [&str; 85] = [
    "ABORT",
    "ACTION",
    "AFTER",
    "ALWAYS",
    "ANALYZE",
    "ASC",
    "ATTACH",
    "BEFORE",
    "BEGIN",
    "BY",
    "CASCADE",
    "COLUMN",
    "CONFLICT",
    "CROSS",
    "CURRENT",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "DATABASE",
    "DEFERRED",
    "DESC",
    "DETACH",
    "DO",
    "EACH",
    "END",
    "EXCLUDE",
    "EXCLUSIVE",
    "EXPLAIN",
    "FAIL",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FOR",
    "FULL",
    "GENERATED",
    "GLOB",
    "GROUPS",
    "IF",
    "IGNORE",
    "IMMEDIATE",
    "INITIALLY",
    "INNER",
    "INSTEAD",
    "KEY",
    "LAST",
    "LEFT",
    "LIKE",
    "MATCH",
    "MATERIALIZED",
    "NATURAL",
    "NO",
    "NULLS",
    "OF",
    "OFFSET",
    "OTHERS",
    "OUTER",
    "OVER",
    "PARTITION",
    "PLAN",
    "PRAGMA",
    "PRECEDING",
    "QUERY",
    "RANGE",
    "RECURSIVE",
    "REGEXP",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPLACE",
    "RESTRICT",
    "RIGHT",
    "ROLLBACK",
    "ROW",
    "ROWS",
    "SAVEPOINT",
    "TEMP",
    "TEMPORARY",
    "TIES",
    "TRIGGER",
    "UNBOUNDED",
    "VACUUM",
    "VIEW",
    "VIRTUAL",
    "WITHIN",
    "WITHOUT",
];

/// Whether `word` is one of `words`, which are in upper case.
fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|it| it.eq_ignore_ascii_case(word))
}

/// The signs of more than one character, the longest first.
const LONG_SIGNS: [&str; 10] = ["->>", "->", "||", "<<", ">>", "<=", ">=", "<>", "!=", "=="];
/// The others.
const SIGNS: &[u8] = b"=<>+-*/%&|~(),.";

/// The token that `text` begins with, and what stands behind it; none if there is no such token.
pub(super) fn next(text: &str) -> Option<(Token<'_>, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
    let bytes = text.as_bytes();
    let Some(&first) = bytes.first() else {
        return Some((Token { kind: Kind::End, text }, text));
    };
    let (kind, size) = match first {
        b'\'' => (Kind::Text, quoted(text, "'")?),
        b'"' => (Kind::Quoted, quoted(text, "\"")?),
        b'`' => (Kind::Quoted, quoted(text, "`")?),
        b'[' => (Kind::Quoted, text.find(']')? + 1),
        b'?' => (Kind::Parameter, 1),
        b'x' | b'X' if bytes.get(1) == Some(&b'\'') => (Kind::Literal, blob(text)?),
        b'0'..=b'9' => (Kind::Literal, number(bytes)?),
        b'.' if bytes.get(1).is_some_and(u8::is_ascii_digit) => (Kind::Literal, number(bytes)?),
        b'-' if text.starts_with("--") => return None,
        b'/' if text.starts_with("/*") => return None,
        it if is_of_name(it) => (Kind::Word, word(text)?),
        it => {
            let long = LONG_SIGNS.iter().find(|it| text.starts_with(**it)).map(|it| it.len());
            (Kind::Sign, long.or_else(|| SIGNS.contains(&it).then_some(1))?)
        }
    };
    let (token, rest) = text.split_at(size);
    // `?1` and its like are other parameters, and a NUL ends the text for SQLite.
    let is_other = kind == Kind::Parameter && rest.bytes().next().is_some_and(is_of_name);
    (!is_other && !token.contains('\0')).then_some((Token { kind, text: token }, rest))
}

fn is_of_name(it: u8) -> bool {
    it.is_ascii_alphanumeric() || it == b'_' || !it.is_ascii()
}

/// Bytes of the name or keyword at the front.
fn word(text: &str) -> Option<usize> {
    let size = text.bytes().position(|it| !is_of_name(it)).unwrap_or(text.len());
    // A byte order mark is a blank for SQLite, if it stands first.
    (!text[..size].contains('\u{feff}') && !text[size..].starts_with('$')).then_some(size)
}

/// Bytes up to the closing quote, where a doubled one is none.
fn quoted(text: &str, quote: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote)? + 1;
        if !text[at..].starts_with(quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// Bytes of `x'…'`.
fn blob(text: &str) -> Option<usize> {
    let digits = text[2..].find('\'')?;
    let is_hex = text[2..2 + digits].bytes().all(|it| it.is_ascii_hexdigit());
    (is_hex && digits % 2 == 0).then_some(digits + 3)
}

/// Bytes of a number that nothing follows directly.
fn number(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize, is: fn(&u8) -> bool| {
        bytes[from..].iter().position(|it| !is(it)).map_or(bytes.len(), |it| from + it)
    };
    let mut at;
    if let [b'0', b'x' | b'X', ..] = bytes {
        at = digits(2, u8::is_ascii_hexdigit);
        if at == 2 {
            return None;
        }
    } else {
        at = digits(0, u8::is_ascii_digit);
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1, u8::is_ascii_digit);
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let end = digits(at + 1 + sign, u8::is_ascii_digit);
            if end == at + 1 + sign {
                return None;
            }
            at = end;
        }
    }
    let ends = bytes.get(at).is_none_or(|it| !is_of_name(*it) && *it != b'$');
    ends.then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens between bars, or what is left where there is none.
    fn show(text: &str) -> String {
        let (mut rest, mut shown) = (text, Vec::new());
        loop {
            match next(rest) {
                Some((Token { kind: Kind::End, .. }, _)) => return shown.join("|"),
                Some((token, after)) => {
                    shown.push(token.text.to_owned());
                    rest = after;
                }
                None => return format!("{} then {rest:?}", shown.join("|")),
            }
        }
    }

    #[test]
    fn what_is_a_token() {
        for (text, want) in [
            ("", ""),
            ("a.b_1 ü", "a|.|b_1|ü"),
            ("'it''s' \"a\"\"b\" `c``d` [e f]", "'it''s'|\"a\"\"b\"|`c``d`|[e f]"),
            ("1 1.5 .5 5. 1e3 1E-3 0xfF x'00fF'", "1|1.5|.5|5.|1e3|1E-3|0xfF|x'00fF'"),
            ("a->>b->c||d<=e<>f==g<<h", "a|->>|b|->|c||||d|<=|e|<>|f|==|g|<<|h"),
            ("a-b - -1", "a|-|b|-|-|1"),
            ("(?, ?)", "(|?|,|?|)"),
            ("a;", "a then \";\""),
            ("a --b", "a then \" --b\""),
            ("a--1", "a then \"--1\""),
            ("a/*b*/", "a then \"/*b*/\""),
            ("'open", " then \"'open\""),
            ("\"open\"\"", " then \"\\\"open\\\"\\\"\""),
            ("[open", " then \"[open\""),
            ("`", " then \"`\""),
            ("?1", " then \"?1\""),
            (":a", " then \":a\""),
            ("@a", " then \"@a\""),
            ("$a", " then \"$a\""),
            ("a$b", " then \"a$b\""),
            ("1a", " then \"1a\""),
            ("0x", " then \"0x\""),
            ("1e", " then \"1e\""),
            ("x'0'", " then \"x'0'\""),
            ("x'0g'", " then \"x'0g'\""),
            ("\u{feff}a", " then \"\\u{feff}a\""),
            ("a\u{feff}", " then \"a\\u{feff}\""),
            ("a\u{a0}b", "a\u{a0}b"),
            ("\0", " then \"\\0\""),
            ("'\0'", " then \"'\\0'\""),
            ("{}", " then \"{}\""),
            ("a!b", "a then \"!b\""),
        ] {
            assert_eq!(show(text), want, "{text:?}");
        }
    }

    #[test]
    fn names_are_what_sqlite_takes_for_names() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for word in RESERVED.iter().chain(&KEYWORDS).chain(&["plain", "overt", "ü"]) {
            let token = Token { kind: Kind::Word, text: word };
            let parses = |sql: &str| match connection.prepare(sql) {
                Ok(_) => true,
                Err(error) => !error.to_string().contains("syntax error"),
            };
            if token.is_name() {
                assert!(parses(&format!("SELECT a AS {word}, b FROM t")), "{word}");
                assert!(parses(&format!("SELECT ({word}) + {word}, t.{word} FROM t")), "{word}");
            }
            if token.is_plain_name() {
                assert!(parses(&format!("SELECT a {word} FROM {word} {word}")), "{word}");
                assert!(parses(&format!("SELECT 1 FROM {word} {word} LEFT JOIN x")), "{word}");
            }
        }
    }
}
