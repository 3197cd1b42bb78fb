//! Just enough of HTTP/1.1 for a client that measures: requests as bytes, replies out of bytes.
//!
//! It knows status, length and end of a reply, nothing else. A connection stays open and carries one request
//! at a time, so whatever follows a reply is a mistake of the server. Parsing starts anew with each read;
//! replies that matter here arrive in one.

use std::borrow::Cow;

use memchr::memmem;

/// Bytes of a reply, head included. Nothing that is asked for here comes near.
pub(super) const REPLY_SIZE_MAX: usize = 64 << 20;

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// The status code.
    pub status: u16,
    /// The body, put together if it came in chunks.
    pub body: Cow<'a, [u8]>,
    /// Bytes that it took on the wire.
    pub size: usize,
    /// The server closes the connection after it.
    pub closes: bool,
}

/// What came is no reply that this client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The first line is not that of HTTP/1.x.
    #[error("no HTTP/1.1 reply")]
    StatusLine,
    /// Neither a length nor chunks, or both wrong.
    #[error("a reply without a length")]
    Length,
    /// Chunks that are none.
    #[error("a reply with broken chunks")]
    Chunks,
    /// More than [`REPLY_SIZE_MAX`].
    #[error("a reply that is too large")]
    Size,
    /// Bytes behind the reply that nobody asked for.
    #[error("bytes after a reply")]
    Trailing,
}

/// The reply that `bytes` are, or nothing if they are only its beginning.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Reply<'_>>, Malformed> {
    let Some(head_size) = memmem::find(bytes, b"\r\n\r\n").map(|it| it + 4) else {
        return if bytes.len() > REPLY_SIZE_MAX { Err(Malformed::Size) } else { Ok(None) };
    };
    let (head, rest) = bytes.split_at(head_size);
    let head = Head::parse(head)?;
    let (body, size) = match head.length {
        Length::Bytes(n) if n > REPLY_SIZE_MAX => return Err(Malformed::Size),
        Length::Bytes(n) if n > rest.len() => return Ok(None),
        Length::Bytes(n) => (Cow::Borrowed(&rest[..n]), n),
        Length::Chunks => match dechunk(rest)? {
            Some((body, size)) => (Cow::Owned(body), size),
            None => return Ok(None),
        },
    };
    if size < rest.len() {
        return Err(Malformed::Trailing);
    }
    Ok(Some(Reply { status: head.status, body, size: head_size + size, closes: head.closes }))
}

enum Length {
    Bytes(usize),
    Chunks,
}

struct Head {
    status: u16,
    length: Length,
    closes: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let mut lines = head.split(|it| *it == b'\n').map(|it| it.trim_ascii());
        let line = lines.next().unwrap_or_default();
        let line = line.strip_prefix(b"HTTP/1.").ok_or(Malformed::StatusLine)?;
        let status = line.get(2..5).and_then(number).ok_or(Malformed::StatusLine)?;
        let status = u16::try_from(status).map_err(|_| Malformed::StatusLine)?;
        let mut closes = line.starts_with(b"0");
        let mut length = matches!(status, 204 | 304).then_some(Length::Bytes(0));
        for line in lines {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = Some(Length::Bytes(number(value).ok_or(Malformed::Length)?));
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                length = value.eq_ignore_ascii_case(b"chunked").then_some(Length::Chunks);
            } else if name.eq_ignore_ascii_case(b"connection") {
                closes = value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(Self { status, length: length.ok_or(Malformed::Length)?, closes })
    }
}

/// The body, and how many bytes it took; nothing if the last chunk is not there yet.
fn dechunk(mut rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let whole = rest.len();
    let mut body = Vec::new();
    loop {
        let Some(end) = memmem::find(rest, b"\r\n") else { return Ok(None) };
        let size = rest[..end].split(|it| *it == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(size).ok().and_then(|it| usize::from_str_radix(it, 16).ok());
        let size = size.ok_or(Malformed::Chunks)?;
        if body.len().saturating_add(size) > REPLY_SIZE_MAX {
            return Err(Malformed::Size);
        }
        rest = &rest[end + 2..];
        if size == 0 {
            // No server that is asked here sends trailers.
            return match rest.first_chunk::<2>() {
                Some(b"\r\n") => Ok(Some((body, whole - rest.len() + 2))),
                Some(_) => Err(Malformed::Chunks),
                None => Ok(None),
            };
        }
        let Some((chunk, after)) = rest.split_at_checked(size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match after.first_chunk::<2>() {
            Some(b"\r\n") => rest = &after[2..],
            Some(_) => return Err(Malformed::Chunks),
            None => return Ok(None),
        }
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(|it| it.is_ascii_digit());
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// The bytes of a request up to the length of its body, the same for all requests of one route and key.
pub(super) fn head(method: &str, path: &str, host: &str, credential: Option<&str>) -> Vec<u8> {
    let credential = credential.map(|it| format!("{it}\r\n")).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{credential}");
    head.push_str("Content-Type: application/json\r\nContent-Length: ");
    head.into_bytes()
}

/// Append a request: a [`head`] and its body.
pub(super) fn put_request(head: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    put_number(body.len(), out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Append a number in digits.
pub(super) fn put_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_it_is() {
        let mut out = Vec::new();
        let head = head("POST", "/a", "h:1", Some("X-API-Key: k"));
        put_request(&head, b"{}", &mut out);
        let want = "POST /a HTTP/1.1\r\nHost: h:1\r\nX-API-Key: k\r\n\
                    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn a_reply_is_whole_or_not_yet() {
        for (text, status, body, closes) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok", false),
            (
                "HTTP/1.1 503 X\r\nContent-Length:3\r\nConnection: close\r\n\r\nno!",
                503,
                "no!",
                true,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n",
                200,
                "abc0123456789",
                false,
            ),
        ] {
            let bytes = text.as_bytes();
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{text:?} up to {end}");
            }
            let reply = parse(bytes).unwrap().expect("it is whole");
            assert_eq!(reply.status, status, "{text:?}");
            assert_eq!(&*reply.body, body.as_bytes(), "{text:?}");
            assert_eq!((reply.size, reply.closes), (bytes.len(), closes), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (text, want) in [
            ("ICY 200 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 abc\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 200 OK\r\n\r\n", Malformed::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Malformed::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", Malformed::Trailing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Malformed::Size),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Malformed::Chunks),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", Malformed::Chunks),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(want), "{text:?}");
        }
    }
}
