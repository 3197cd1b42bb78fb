//! The shape of an SQL text: what it does, without the values that it does it with. For logs.
//!
//! Literals become `?`, lists of them `?, …`, blanks and comments one blank; names stay. What cannot be told from
//! a literal is taken for one: SQLite takes a text in double quotes for a string where it is no name, so one
//! stays only where a table's or a qualified name must stand.

use crate::sql::text;

/// Words behind which a quoted text is the name of a table.
const BEFORE_TABLES: [&str; 5] = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE"];
/// Bytes of a text that are looked at.
const READ_MAX: usize = 16 << 10;
/// What stands for what is left out.
const MORE: &str = "…";

/// The shape of `sql`, in at most `size_max` bytes, and three more if it is cut.
pub fn shape(sql: &str, size_max: usize) -> String {
    let mut shape = Shape { out: String::new(), is_spaced: false, words: [""; 2] };
    // SQLite reads no further than to the first NUL.
    let whole = sql.split('\0').next().unwrap_or_default();
    let end = (0..=whole.len().min(READ_MAX)).rev().find(|at| whole.is_char_boundary(*at));
    // A literal that is cut off is a literal still.
    let mut rest = &whole[..end.unwrap_or(0)];
    let is_cut = rest.len() < whole.len();
    while !rest.is_empty() && shape.out.len() <= size_max {
        let size = size_of_next(rest);
        let (token, after) = rest.split_at(size);
        if token == "(" && shape.follows_parameter() {
            // SQLite reads on in the name of the parameter, wherever that ends.
            shape.out.push_str("(…");
            break;
        }
        shape.push(token, after);
        rest = after;
    }
    if is_cut {
        shape.out.push_str(MORE);
    }
    shape.cut(size_max)
}

/// Bytes of the next token, a number or a blob as a whole.
fn size_of_next(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if is_digit(0) || (bytes[0] == b'.' && is_digit(1)) {
        let is_of_number = |at: usize| match bytes[at] {
            b'+' | b'-' => at > 0 && matches!(bytes[at - 1], b'e' | b'E') && is_digit(at + 1),
            it => it.is_ascii_alphanumeric() || matches!(it, b'_' | b'.'),
        };
        return (0..bytes.len()).find(|at| !is_of_number(*at)).unwrap_or(bytes.len());
    }
    if matches!(bytes[0], b'x' | b'X') && bytes.get(1) == Some(&b'\'') {
        return 1 + text::token(&rest[1..]);
    }
    text::token(rest)
}

/// A shape as far as it is written.
struct Shape<'a> {
    out: String,
    /// A blank, or a comment, stood before what comes next.
    is_spaced: bool,
    /// The last two tokens.
    words: [&'a str; 2],
}

impl<'a> Shape<'a> {
    fn push(&mut self, token: &'a str, after: &str) {
        let first = token.chars().next().expect("a token is not empty");
        let is_comment = token.starts_with("--") || token.starts_with("/*");
        if first.is_whitespace() || first == '\u{feff}' || is_comment {
            self.is_spaced = true;
            return;
        }
        if first == '?' || self.is_value(token, first, after) {
            self.push_value();
        } else {
            if token != "," {
                self.space();
            }
            self.out.push_str(token);
            if token == ")" {
                self.join_groups();
            }
        }
        self.is_spaced = false;
        self.words = [self.words[1], token];
    }

    fn is_value(&self, token: &str, first: char, after: &str) -> bool {
        let is_closed = |close: char| token.len() > 1 && token.ends_with(close);
        match first {
            '0'..='9' | '\'' => true,
            '.' => token.len() > 1,
            'x' | 'X' => token.contains('\''),
            '[' => !is_closed(']'),
            '`' => !is_closed('`'),
            '"' => !is_closed('"') || !self.is_name_here(after),
            _ => false,
        }
    }

    /// Whether only a name can stand here.
    fn is_name_here(&self, after: &str) -> bool {
        let [before, last] = self.words;
        let is_after = BEFORE_TABLES.iter().any(|it| last.eq_ignore_ascii_case(it));
        // `a IS DISTINCT FROM "b"` compares.
        let compares = before.eq_ignore_ascii_case("DISTINCT");
        (is_after && !compares) || last == "." || after.starts_with('.')
    }

    fn follows_parameter(&self) -> bool {
        let [before, last] = self.words;
        let is_sign = |it: &str| matches!(it, "@" | "#" | ":");
        !self.is_spaced && (last.contains('$') || is_sign(before) || is_sign(last))
    }

    fn space(&mut self) {
        if self.is_spaced && !self.out.is_empty() {
            self.out.push(' ');
        }
    }

    fn push_value(&mut self) {
        let list = self.out.trim_end_matches(' ');
        if list.ends_with(['?', '…']) && !self.is_spaced {
            // `?1`, and a string with a quote in it.
            return;
        }
        for end in ["?,", "?, …,"] {
            if list.ends_with(end) {
                self.out.truncate(list.len() - end.len());
                self.out.push_str("?, …");
                return;
            }
        }
        self.space();
        self.out.push('?');
    }

    /// Rows of values that follow one another become one.
    fn join_groups(&mut self) {
        for group in ["(?)", "(?, …)"] {
            for between in [", ", ","] {
                let twice = format!("{group}{between}{group}");
                if self.out.ends_with(&twice) {
                    self.out.truncate(self.out.len() - twice.len() + group.len());
                }
            }
        }
    }

    fn cut(mut self, size_max: usize) -> String {
        if self.out.len() > size_max {
            let end = (0..=size_max).rev().find(|at| self.out.is_char_boundary(*at));
            self.out.truncate(end.unwrap_or(0));
            self.out.push_str(MORE);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_go_and_names_stay() {
        for (sql, want) in [
            (
                "SELECT a FROM t1 WHERE b = 'x' AND c > 1.5e-3",
                "SELECT a FROM t1 WHERE b = ? AND c > ?",
            ),
            ("SELECT 'it''s', x'AB', .5, -7, 0xff", "SELECT ?, …, -?, …"),
            ("SELECT * FROM t WHERE a IN (1,2, 3 ,4)", "SELECT * FROM t WHERE a IN (?, …)"),
            ("INSERT INTO t VALUES (1, 'a'), (2, 'b'),(3,'c')", "INSERT INTO t VALUES (?, …)"),
            ("INSERT INTO t(a) VALUES(1),(2)", "INSERT INTO t(a) VALUES(?)"),
            ("SELECT ?1, ?2, :b, @c, $d", "SELECT ?, …, :b, @c, $d"),
            ("  SELECT -- secret\n\t1 /* secret */ ;", "SELECT ? ;"),
            (
                "SELECT \"a\" FROM \"t\" WHERE \"t\".\"b\" = \"c\"",
                "SELECT ? FROM \"t\" WHERE \"t\".\"b\" = ?",
            ),
            ("SELECT 1 WHERE a IS DISTINCT FROM \"s\"", "SELECT ? WHERE a IS DISTINCT FROM ?"),
            ("SELECT [a b], `c`, [open 'x'", "SELECT [a b], `c`, ?"),
            ("SELECT $a('), 'secret'", "SELECT $a(…"),
            ("SELECT @a('), 'secret'", "SELECT @a(…"),
            ("SELECT a$b(1), length('x')", "SELECT a$b(…"),
            ("SELECT 1\0'secret'", "SELECT ?"),
            ("SELECT '", "SELECT ?"),
            ("", ""),
        ] {
            assert_eq!(shape(sql, 200), want, "{sql}");
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let sql = format!("SELECT {}1", "ü + ".repeat(1_000));
        let cut = shape(&sql, 100);
        assert!(cut.len() <= 103 && cut.ends_with('…'), "{cut}");
    }

    proptest! {
        #[test]
        fn no_literal_is_in_a_shape(
            pieces in proptest::collection::vec(proptest::sample::select(&[
                "'secret'", "'sec''secret'", "= \"secret\"", "x'5ec3e7'", "X'5ec3e7'", "77777", "7.7777e-77777",
                ".77777", "0x77777", "'secret", "$a(')", "@b(", ":c", "?", "?77777", "(", ")", ",", ";", "+", "-",
                "IN", "VALUES", "FROM", "t", "a.b", "[c]", "`d`", "-- 'secret'\n", "/* 77777 */", "\n", "--", "/*",
                "IS DISTINCT FROM \"secret\"", "LIKE 'secret%' ESCAPE 's'", "é", "\u{feff}", "#", "\0",
            ][..]), 0..24),
        ) {
            let sql = pieces.join(" ");
            // A quote that is left open turns what was inside out: a literal's text would be a name.
            let n_open = pieces.iter().filter(|it| **it == "'secret" || **it == "$a(')").count();
            prop_assume!(n_open == 0 || pieces.iter().position(|it| it.contains('\'')) == pieces.len().checked_sub(1));
            let shape = shape(&sql, 4_096);
            for secret in ["secret", "5ec3e7", "77777"] {
                prop_assert!(!shape.contains(secret), "{sql:?} has the shape {shape:?}");
            }
        }

        #[test]
        fn no_text_does_harm(sql: String, size_max in 0_usize..64) {
            let shape = shape(&sql, size_max);
            prop_assert!(shape.len() <= size_max + MORE.len(), "{}", shape);
        }
    }
}
