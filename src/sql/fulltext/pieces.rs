//! What a full-text search is for, taken apart as far as it decides what the search takes.

use crate::limits;

/// What the message of a refusal begins with.
pub(in crate::sql) const REFUSED: &str = "full-text search";

/// Why one is refused.
pub(super) const TOO_MANY_WORDS: &str = "is for too many words: at most {}";

/// How a text that is searched for is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// `MATCH` of FTS5, whose tokenizers count their words themselves.
    Fts5,
    /// `MATCH` of FTS3 and FTS4. Any character that is not an ASCII letter or digit may be one of a word, or stand
    /// between words, as their tokenizer sees it; and each word without quotes is a phrase.
    Fts3,
    /// A pattern of `LIKE` or `GLOB`: one phrase for each part of it.
    Pattern,
}

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
    pub(super) fn of(text: &[u8], grammar: Grammar) -> Self {
        let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
        let mut pieces = Self { bytes: text.len(), ..Self::default() };
        if grammar == Grammar::Pattern {
            return pieces;
        }
        let (mut at, mut near) = (0, None);
        // A phrase goes on behind a plus; names of columns are no phrases, nor is how near phrases are to be.
        let (mut goes_on, mut in_columns, mut in_distance, mut word) =
            (false, false, false, &text[..0]);
        // What was counted for the last word, which may turn out to be none.
        let (mut words, mut phrases) = (0, 0);
        while let Some(&c) = text.get(at) {
            let rest = &text[at..];
            let last = word;
            let length = match c {
                b'"' => quoted_length(rest),
                _ if is_of_word(c) => rest.iter().take_while(|it| is_of_word(**it)).count(),
                _ => 1,
            };
            at += length;
            if !is_of_word(c) && (c == b' ' || c.is_ascii_control()) {
                continue;
            }
            word = &text[..0];
            match c {
                b'(' if grammar == Grammar::Fts5 && last == b"NEAR" => {
                    near = Some(0);
                    pieces.words -= words;
                    pieces.phrases -= phrases;
                }
                b')' => {
                    near = None;
                    in_distance = false;
                }
                b',' if near.is_some() => in_distance = true,
                b'{' => in_columns = true,
                b'}' => in_columns = false,
                b':' if !last.is_empty() => {
                    pieces.words -= words;
                    pieces.phrases -= phrases;
                }
                _ if in_columns || in_distance => {}
                _ if c == b'"' || is_of_word(c) => {
                    word = &rest[..length];
                    let is_operator = matches!(word, b"AND" | b"OR" | b"NOT");
                    words = if is_operator { 0 } else { count_words(word, grammar) };
                    phrases = match grammar {
                        _ if goes_on || is_operator => 0,
                        Grammar::Fts3 if c != b'"' => words,
                        _ => 1,
                    };
                    pieces.words += words;
                    pieces.phrases += phrases;
                    if let Some(n) = &mut near {
                        *n += phrases;
                        pieces.near = pieces.near.max(*n);
                    }
                }
                _ => {}
            }
            goes_on = grammar == Grammar::Fts5 && c == b'+';
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

/// Words of a word or string.
fn count_words(text: &[u8], grammar: Grammar) -> usize {
    if grammar == Grammar::Fts3 {
        let plain = text.split(|it| !it.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
        return plain.count() + text.iter().filter(|it| **it >= 0xc0).count();
    }
    text.split(|it| !is_of_word(*it)).filter(|it| !it.is_empty()).count()
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
    use super::Grammar;
    use super::Pieces;

    fn check(grammar: Grammar, text: &str, words: usize, phrases: usize, near: usize) {
        let want = Pieces { bytes: text.split('\0').next().unwrap().len(), words, phrases, near };
        assert_eq!(Pieces::of(text.as_bytes(), grammar), want, "{text:?}");
    }

    #[test]
    fn a_search_is_taken_apart_as_sqlite_does() {
        for (text, words, phrases, near) in [
            ("", 0, 0, 0),
            ("one", 1, 1, 0),
            ("one two OR three", 3, 3, 0),
            ("\"one two\" + three AND \"fo\"\"ur\"", 5, 2, 0),
            ("\"not ended", 2, 1, 0),
            ("NEAR(a \"b c\" d + e, 5) NOT NEAR (f g)", 7, 5, 3),
            ("NEAR near(a)", 3, 3, 0),
            ("{one two} : three", 1, 1, 0),
            ("- column : ^ three *", 1, 1, 0),
            ("größe 東京", 2, 2, 0),
            ("one\0two", 1, 1, 0),
            ("one\x1atwo", 1, 1, 0),
            ("one \x1a two\x1f", 3, 3, 0),
            ("NEAR(\x1a \x1a \x1a, 10)", 3, 3, 3),
        ] {
            check(Grammar::Fts5, text, words, phrases, near);
        }
    }

    #[test]
    fn where_words_may_end_anywhere_each_place_counts() {
        for (text, words, phrases) in [
            ("one_two OR three", 3, 3),
            ("\"one_two three\"", 3, 1),
            ("größe", 4, 4),
            ("東京", 2, 2),
            ("a+b", 2, 2),
        ] {
            check(Grammar::Fts3, text, words, phrases, 0);
        }
        check(Grammar::Pattern, "%a OR b OR \"c", 0, 0, 0);
    }
}
