//! A text compared with a pattern, character by character, as SQLite does it; what is looked at is counted.

/// Characters looked at that take about as long as one instruction.
pub(super) const LOOKS_PER_STEP: u32 = 16;
/// Bytes passed over in search of a character that take about as long as looking at one.
const SKIPPED_PER_LOOK: usize = 16;
/// Bytes of a character in UTF-8. What is no UTF-8 may have more.
const CHARACTER_BYTES_MAX: usize = 4;
/// Characters after which what they cost is charged: some microseconds.
const LOOKS_PER_CHARGE: u32 = 4_096;

/// The byte at `at`; behind the end, zero, which ends every text.
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// The character at `at`, and where the next one is. As SQLite reads what is no UTF-8: a byte that only goes on
/// stands for itself, and as many of those as there are belong to the byte that begins.
pub(super) fn read(text: &[u8], at: usize) -> (u32, usize) {
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
pub(super) fn skip(text: &[u8], at: usize) -> usize {
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
pub(super) enum Answer {
    Match,
    /// Not here; perhaps further on.
    No,
    /// Nor anywhere further on.
    Nowhere,
}

/// It takes longer than it may.
pub(super) struct Stopped;

/// A text that is compared with a pattern.
pub(super) struct Search<'a, F> {
    pub(super) pattern: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) all: u32,
    pub(super) one: u32,
    /// What escapes, or begins a set.
    pub(super) other: u32,
    pub(super) has_sets: bool,
    pub(super) is_folded: bool,
    /// Characters looked at that are not charged yet.
    pub(super) n_looks: u32,
    /// Charges so many steps; whether it is to stop.
    pub(super) charge: F,
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
    pub(super) fn compare(&mut self, mut p: usize, mut t: usize) -> Result<Answer, Stopped> {
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
