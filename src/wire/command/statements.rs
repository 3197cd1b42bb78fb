//! The statements of a command, one after another; each is checked when it is reached.

use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::command::Mode;
use crate::wire::command::Value;

/// Iterates over the statements of a command.
#[derive(Clone, Debug)]
pub struct Statements<'a> {
    reader: Reader<'a>,
    left: u32,
}

/// One statement of a command.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// What its result is.
    pub mode: Mode,
    /// The text; it may hold several statements, separated by semicolons.
    pub sql: &'a str,
    /// The values to bind, in order.
    pub arguments: Arguments<'a>,
}

impl<'a> Iterator for Statements<'a> {
    type Item = Result<Statement<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(left) = self.left.checked_sub(1) else {
            let rest = std::mem::replace(&mut self.reader, Reader::new(&[]));
            let error = DecodeError::Malformed("bytes behind the last statement");
            return (!rest.is_empty()).then_some(Err(error));
        };
        self.left = left;
        let statement = self.statement();
        if statement.is_err() {
            *self = Self { reader: Reader::new(&[]), left: 0 };
        }
        Some(statement)
    }
}

impl<'a> Statements<'a> {
    /// Those of a payload that has `n`.
    pub(super) fn new(payload: &'a [u8], n: u32) -> Self {
        Self { reader: Reader::new(payload), left: n }
    }

    fn statement(&mut self) -> Result<Statement<'a>, DecodeError> {
        let mode = match self.reader.u8()? {
            0 => Mode::Exec,
            1 => Mode::Query,
            _ => return Err(DecodeError::Malformed("unknown mode of a statement")),
        };
        let sql = self.reader.text()?;
        let left = self.reader.u16()?;
        let arguments = Arguments { reader: self.reader, left };
        // Validated here once, so that iterating the arguments cannot fail.
        for _ in 0..left {
            Value::decode(&mut self.reader)?;
        }
        Ok(Statement { mode, sql, arguments })
    }
}

/// Iterates over the arguments of a statement.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Iterator for Arguments<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(Value::decode(&mut self.reader).expect("arguments were checked with their statement"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Arguments<'_> {}
