//! What a command does to the keys and values of a namespace.
//!
//! ```text
//! payload of a command of kind `storage`, little-endian
//!    u8 what: 0 put, 1 delete, 2 get, 3 exists, 4 list; each followed by
//!    put               u64 milliseconds to live (0: for good), u32 length, key, u32 length, value
//!    delete get exists u32 length, key
//!    list              u32 how many, u32 length, prefix, u32 length, key to go on behind (or nothing)
//! ```

use bytes::BufMut;

use crate::limits;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::rows::StatementError;

/// What to do. Keys are 1 to [`limits::STORAGE_KEY_SIZE_MAX`] bytes of UTF-8; values are any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage<'a> {
    /// Set a value, whether or not there is one.
    Put {
        /// Its key.
        key: &'a str,
        /// For how long, from the command's time on; zero is for good.
        ttl_ms: u64,
        /// The value.
        value: &'a [u8],
    },
    /// Remove a value, if there is one.
    Delete {
        /// Its key.
        key: &'a str,
    },
    /// Read a value.
    Get {
        /// Its key.
        key: &'a str,
    },
    /// Whether there is a value.
    Exists {
        /// Its key.
        key: &'a str,
    },
    /// Keys in their order, byte by byte.
    List {
        /// How they begin.
        prefix: &'a str,
        /// Only those behind this one; empty is from the first on.
        after: &'a str,
        /// At most so many.
        n_max: u32,
    },
}

impl<'a> Storage<'a> {
    /// Whether it changes something, and so must be replicated.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }

    /// Refuses a value of `size` bytes where they may be `size_max` (400).
    pub fn check_value(size: usize, size_max: u32) -> Result<(), StatementError> {
        if size <= usize::try_from(size_max).unwrap_or(usize::MAX) {
            return Ok(());
        }
        let message = format!("value is too large: at most {size_max} bytes");
        Err(StatementError::coded("value_bytes", message))
    }

    /// Bytes of the value that a payload puts, whatever stands behind it.
    pub fn size_of_put(payload: &[u8]) -> Result<usize, DecodeError> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        reader.u64()?;
        reader.slice()?;
        Ok(reader.slice()?.len())
    }

    /// Bytes that it takes, encoded.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => 17 + key.len() + value.len(),
            Self::Delete { key } | Self::Get { key } | Self::Exists { key } => 5 + key.len(),
            Self::List { prefix, after, .. } => 13 + prefix.len() + after.len(),
        }
    }

    /// Append it to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let put = |out: &mut dyn BufMut, slice: &[u8]| {
            out.put_u32_le(u32::try_from(slice.len()).expect("slices in messages are bounded"));
            out.put_slice(slice);
        };
        match *self {
            Self::Put { key, ttl_ms, value } => {
                out.put_u8(0);
                out.put_u64_le(ttl_ms);
                put(out, key.as_bytes());
                put(out, value);
            }
            Self::Delete { key } => {
                out.put_u8(1);
                put(out, key.as_bytes());
            }
            Self::Get { key } => {
                out.put_u8(2);
                put(out, key.as_bytes());
            }
            Self::Exists { key } => {
                out.put_u8(3);
                put(out, key.as_bytes());
            }
            Self::List { prefix, after, n_max } => {
                out.put_u8(4);
                out.put_u32_le(n_max);
                put(out, prefix.as_bytes());
                put(out, after.as_bytes());
            }
        }
    }

    /// Read it from a payload, all of which it is.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let key = |reader: &mut Reader<'a>| {
            let key = reader.text()?;
            let fits = (1..=limits::STORAGE_KEY_SIZE_MAX).contains(&key.len());
            if fits { Ok(key) } else { Err(DecodeError::Malformed("length of a key")) }
        };
        let found = match reader.u8()? {
            0 => {
                let ttl_ms = reader.u64()?;
                Self::Put { ttl_ms, key: key(&mut reader)?, value: reader.slice()? }
            }
            1 => Self::Delete { key: key(&mut reader)? },
            2 => Self::Get { key: key(&mut reader)? },
            3 => Self::Exists { key: key(&mut reader)? },
            4 => {
                let n_max = reader.u32()?;
                if n_max > limits::STORAGE_LIST_MAX {
                    return Err(DecodeError::Malformed("length of a list"));
                }
                Self::List { n_max, prefix: reader.text()?, after: reader.text()? }
            }
            _ => return Err(DecodeError::Malformed("unknown operation on a key")),
        };
        let is_whole = reader.is_empty();
        if is_whole { Ok(found) } else { Err(DecodeError::Malformed("bytes behind a key")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for want in [
            Storage::Put { key: "ü", ttl_ms: u64::MAX, value: b"\0\xff" },
            Storage::Put { key: "k", ttl_ms: 0, value: b"" },
            Storage::Delete { key: "k" },
            Storage::Get { key: "k\0" },
            Storage::Exists { key: " " },
            Storage::List { prefix: "", after: "", n_max: 0 },
            Storage::List { prefix: "a/", after: "a/b", n_max: 1_000 },
        ] {
            let mut bytes = Vec::new();
            want.encode(&mut bytes);
            assert_eq!(bytes.len(), want.size());
            assert_eq!(Storage::decode(&bytes), Ok(want));
            for n in 0..bytes.len() {
                Storage::decode(&bytes[..n]).unwrap_err();
            }
            bytes.push(0);
            Storage::decode(&bytes).unwrap_err();
        }
        let long = "x".repeat(limits::STORAGE_KEY_SIZE_MAX + 1);
        for wrong in [
            Storage::Get { key: "" },
            Storage::Get { key: &long },
            Storage::List { prefix: "", after: "", n_max: 1_001 },
        ] {
            let mut bytes = Vec::new();
            wrong.encode(&mut bytes);
            Storage::decode(&bytes).unwrap_err();
        }
    }
}
