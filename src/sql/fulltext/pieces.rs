//! What a full-text search is for, taken apart as far as it decides what the search takes.

use crate::limits;

/// What the message of a refusal begins with.
pub(in crate::sql) const REFUSED: &str = "full-text search";

/// Why one is refused.
pub(super) const TOO_MANY_WORDS: &str = "is for too many words: at most {}";

/// What a text that is searched for consists of, or a little more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    pub(super) bytes: usize,
    pub(super) words: usize,
    pub(super) phrases: usize,
    /// The most that are in one `NEAR()`.
    pub(super) near: usize,
}

impl Pieces {
    /// Those of `text`, which ends at its first zero.
    pub(super) fn of(text: &[u8]) -> Self {
        let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
        let mut pieces = Self { bytes: text.len(), ..Self::default() };
        let (mut at, mut near) = (0, None);
        // A phrase goes on behind a plus; names of columns are no phrases.
        let (mut goes_on, mut in_columns, mut word) = (false, false, &text[..0]);
        while let Some(&c) = text.get(at) {
            let rest = &text[at..];
            let last = word;
            let length = match c {
                b'"' => quoted_length(rest),
                _ if is_of_word(c) => rest.iter().take_while(|it| is_of_word(**it)).count(),
                _ => 1,
            };
            at += length;
            if c == b' ' || c.is_ascii_control() {
                continue;
            }
            word = &text[..0];
            match c {
                b'(' if last == b"NEAR" => {
                    near = Some(0);
                    pieces.phrases = pieces.phrases.saturating_sub(1);
                }
                b')' => near = None,
                b'{' => in_columns = true,
                b'}' => in_columns = false,
                b':' if !last.is_empty() => pieces.phrases = pieces.phrases.saturating_sub(1),
                _ if in_columns => {}
                _ if c == b'"' || is_of_word(c) => {
                    word = &rest[..length];
                    let parts = word.split(|it| !is_of_word(*it));
                    pieces.words += parts.filter(|it| !it.is_empty()).count();
                    let is_operator = matches!(word, b"AND" | b"OR" | b"NOT");
                    if !goes_on && !is_operator {
                        pieces.phrases += 1;
                        if let Some(n) = &mut near {
                            *n += 1;
                            pieces.near = pieces.near.max(*n);
                        }
                    }
                }
                _ => {}
            }
            goes_on = c == b'+';
        }
        pieces
    }

    /// Why that is too much.
    pub(super) fn refused(self) -> Option<String> {
        let (what, n_max) = if self.bytes > limits::MATCH_SIZE_MAX {
            ("is for a text that is too long: at most {} bytes", limits::MATCH_SIZE_MAX)
        } else if self.words > limits::MATCH_WORDS_MAX {
            (TOO_MANY_WORDS, limits::MATCH_WORDS_MAX)
        } else if self.phrases > limits::MATCH_PHRASES_MAX {
            ("is for too many phrases: at most {}", limits::MATCH_PHRASES_MAX)
        } else if self.near > limits::MATCH_NEAR_MAX {
            ("is for too many phrases near each other: at most {}", limits::MATCH_NEAR_MAX)
        } else {
            return None;
        };
        Some(refused(what, n_max))
    }
}

/// The message for `what`, of which there may be `n_max`.
pub(super) fn refused(what: &str, n_max: usize) -> String {
    format!("{REFUSED} {}", what.replace("{}", &n_max.to_string()))
}

/// Whether SQLite takes `c` for a part of a word that needs no quotes.
fn is_of_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == 0x1a || c >= 0x80
}

/// Bytes of the string that begins with a quote at the start of `text`.
fn quoted_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(end) = memchr::memchr(b'"', &text[at..]) {
        at += end + 1;
        if text.get(at) != Some(&b'"') {
            return at;
        }
        at += 1;
        if at >= text.len() {
            break;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn a_search_is_taken_apart_as_sqlite_does() {
        for (text, words, phrases, near) in [
            ("", 0, 0, 0),
            ("one", 1, 1, 0),
            ("one two OR three", 4, 3, 0),
            ("\"one two\" + three AND \"fo\"\"ur\"", 6, 2, 0),
            ("\"not ended", 2, 1, 0),
            ("NEAR(a \"b c\" d + e, 5) NOT NEAR (f g)", 11, 6, 4),
            ("NEAR near(a)", 3, 3, 0),
            ("{one two} : three", 1, 1, 0),
            ("- column : ^ three *", 2, 1, 0),
            ("größe 東京", 2, 2, 0),
            ("one\0two", 1, 1, 0),
        ] {
            let want =
                Pieces { bytes: text.split('\0').next().unwrap().len(), words, phrases, near };
            assert_eq!(Pieces::of(text.as_bytes()), want, "{text}");
        }
    }
}
