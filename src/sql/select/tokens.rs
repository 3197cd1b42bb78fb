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
        self.is_word_but(|it| {
            !is_one_of(it, reserved(it.len())) && !is_one_of(it, &NAMES_OF_TABLES)
        })
    }

    /// Whether it may stand for a table, which it may where SQLite expects nothing but one.
    pub(super) fn is_table(&self) -> bool {
        self.is_word_but(|it| !is_one_of(it, reserved(it.len())))
    }

    /// Whether it may stand for another name without `AS` before it, where a keyword could go on with what
    /// stands there.
    pub(super) fn is_alias(&self) -> bool {
        self.is_name() && !(self.kind == Kind::Word && is_one_of(self.text, &GOING_ON))
    }

    fn is_word_but(&self, is_name: impl FnOnce(&str) -> bool) -> bool {
        match self.kind {
            Kind::Quoted => true,
            Kind::Word => is_name(self.text),
            _ => false,
        }
    }
}

/// Words of this length that are no names.
fn reserved(length: usize) -> &'static [&'static str] {
    match length {
        2 => &["AS", "IN", "IS", "ON", "OR", "TO"],
        3 => &["ADD", "ALL", "AND", "NOT", "SET"],
        4 => &["CASE", "DROP", "ELSE", "FROM", "INTO", "JOIN", "NULL", "THEN", "WHEN"],
        5 => &[
            "ALTER", "CHECK", "GROUP", "INDEX", "LIMIT", "ORDER", "TABLE", "UNION", "USING",
            "WHERE",
        ],
        6 => &[
            "COMMIT", "CREATE", "DELETE", "ESCAPE", "EXCEPT", "EXISTS", "HAVING", "INSERT",
            "ISNULL", "SELECT", "UNIQUE", "UPDATE", "VALUES",
        ],
        7 => &["BETWEEN", "COLLATE", "DEFAULT", "FOREIGN", "NOTHING", "NOTNULL", "PRIMARY"],
        8 => &["DISTINCT"],
        9 => &["INTERSECT", "RETURNING"],
        10 => &["CONSTRAINT", "DEFERRABLE", "REFERENCES"],
        11 => &["TRANSACTION"],
        13 => &["AUTOINCREMENT"],
        _ => &[],
    }
}

/// Words that begin something where an expression may stand, and so are names of tables only.
const NAMES_OF_TABLES: [&str; 5] = ["CAST", "INDEXED", "RAISE", "WINDOW", "WITH"];

/// Words that go on with a column or a table; to SQLite, some only where nothing else fits.
const GOING_ON: [&str; 17] = [
    "ASC", "CROSS", "DESC", "END", "FILTER", "FULL", "GLOB", "INNER", "LEFT", "LIKE", "MATCH",
    "NATURAL", "OFFSET", "OUTER", "OVER", "REGEXP", "RIGHT",
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

    /// All words that SQLite knows, from itself, and some that it does not.
    fn words() -> Vec<String> {
        let mut words = vec!["plain".to_owned(), "overt".to_owned(), "ü".to_owned()];
        #[expect(unsafe_code, reason = "no other way to SQLite's list")]
        // SAFETY: the count is that of the list, and a word is `size` bytes that live as long as the program.
        unsafe {
            for nth in 0..rusqlite::ffi::sqlite3_keyword_count() {
                let (mut word, mut size) = (std::ptr::null(), 0);
                assert_eq!(
                    rusqlite::ffi::sqlite3_keyword_name(nth, &raw mut word, &raw mut size),
                    0
                );
                let size = usize::try_from(size).unwrap();
                let word = std::slice::from_raw_parts(word.cast::<u8>(), size);
                words.push(String::from_utf8(word.to_vec()).unwrap());
            }
        }
        words
    }

    #[test]
    fn names_are_what_sqlite_takes_for_names() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let parses = |sql: &str| match connection.prepare(sql) {
            Ok(_) => true,
            Err(error) => !error.to_string().contains("syntax error"),
        };
        let all = words();
        assert!(all.len() > 140, "{}", all.len());
        for word in &all {
            let text = &word.to_lowercase();
            let token = Token { kind: Kind::Word, text };
            let is_name =
                parses(&format!("SELECT a AS {word}, ({word}) + {word}, t.{word} FROM t"));
            let is_odd = NAMES_OF_TABLES.contains(&&**word);
            assert_eq!(token.is_name(), is_name && !is_odd, "{word}");
            let is_table = parses(&format!("SELECT 1 FROM {word} LEFT JOIN {word} AS a ON 1"))
                && parses(&format!(
                    "SELECT * FROM main.{word} JOIN {word} x ON 1 CROSS JOIN {word}(1)"
                ));
            assert_eq!(token.is_table(), is_table, "{word}");
            let is_alias =
                parses(&format!("SELECT max(a) {word}, b FROM t {word} LEFT JOIN u {word}"))
                    && parses(&format!("SELECT a {word} FROM t() {word} WHERE 1 LIMIT 1 OFFSET 1"));
            assert_eq!(
                token.is_alias(),
                is_alias && !is_odd && !GOING_ON.contains(&&**word),
                "{word}"
            );
        }
        let listed = (0..32).flat_map(reserved).chain(&NAMES_OF_TABLES).chain(&GOING_ON);
        for word in listed {
            assert!(all.iter().any(|it| it == word), "{word} is a word of SQLite's");
        }
    }
}
