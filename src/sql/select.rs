//! Builds a SELECT from pieces that came apart: a table, columns, joins, conditions.
//!
//! ```text
//! SELECT <columns, or *> FROM <table>[ AS <alias>]
//!   [ <kind> JOIN <table>[ ON <expression>]]…
//!   [ WHERE key = ? AND key IS NULL AND … AND ((e1) AND (e2) OR …)]
//!   [ GROUP BY …[ HAVING …]] [ ORDER BY …] [ LIMIT n] [ OFFSET ?]
//! ```
//!
//! Each piece is read to its end ([`parser`]) and refused unless it is what belongs in its place, so that none
//! ends the statement, begins another, or adds a clause of its own. What passes is put in as it came; equal
//! pieces give an equal text, which SQLite need prepare only once. Values are always bound.
//!
//! Invariant: what is built is one statement, which reads.
//!
//! Cost: one pass over each piece, no allocation but for the text, which ends where a text of SQL must.

mod parser;
mod tokens;

use std::fmt::Write;

use crate::limits;
use crate::sql::select::parser::Parameters;
use crate::sql::select::parser::Parser;

/// A piece that is not what belongs in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {part}: {why}")]
pub struct SelectError {
    /// Which one.
    pub part: Part,
    /// Why.
    pub why: Why,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The columns of the result.
    Select,
    /// The table.
    Table,
    /// The other name of the table.
    Alias,
    /// The kind, the table or the condition of a join.
    Join,
    /// The name of what must have a value.
    Criteria,
    /// A condition.
    Where,
    /// What to group by.
    GroupBy,
    /// What to order by.
    OrderBy,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Select => "select",
            Self::Table => "table",
            Self::Alias => "alias",
            Self::Join => "join",
            Self::Criteria => "criteria",
            Self::Where => "where",
            Self::GroupBy => "group_by",
            Self::OrderBy => "order_by",
        })
    }
}

/// Why a piece is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is nothing.
    #[error("it is blank")]
    Blank,
    /// Something that does not belong there.
    #[error("unexpected {0:?}")]
    Unexpected(String),
    /// Something is missing at its end.
    #[error("incomplete")]
    End,
    /// Parentheses, or what amounts to them, in one another.
    #[error("nested too deeply")]
    Depth,
    /// A question mark where no arguments are given.
    #[error("a parameter has no argument here")]
    Parameter,
    /// With it, the text would be longer than [`limits::SQL_SIZE_MAX`].
    #[error("SQL text is too long: at most {} bytes", limits::SQL_SIZE_MAX)]
    Size,
    /// A join without a condition.
    #[error("\"on\" is missing")]
    On,
}

/// How a condition goes on from the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conjunction {
    /// Both must hold.
    #[default]
    And,
    /// One of them must hold.
    Or,
}

/// What a column must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal to the next argument.
    Equal,
    /// NULL.
    Null,
    /// One of the next arguments, or (if it says so) NULL. Of none, nothing is one.
    OneOf {
        /// How many arguments.
        n: usize,
        /// NULL is one of them.
        or_null: bool,
    },
}

/// A SELECT so far. The calls come in the order of its clauses: joins, criteria, conditions, groups, orders.
#[derive(Debug)]
pub struct Select {
    sql: String,
    clause: Clause,
    /// A parenthesis of the conditions is to be closed.
    is_open: bool,
}

/// The clause that was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Clause {
    From,
    Criteria,
    Conditions,
    Groups,
    Orders,
}

impl Select {
    /// Begin with the columns (none: all of them) of `table`, which may bring another name with it.
    pub fn new<'p>(
        columns: impl Iterator<Item = &'p str>,
        table: &str,
        alias: Option<&str>,
    ) -> Result<Self, SelectError> {
        let sql = String::with_capacity(128);
        let mut select = Self { sql, clause: Clause::From, is_open: false };
        select.sql.push_str("SELECT ");
        let mut n_columns = 0;
        for column in columns {
            if n_columns > 0 {
                select.sql.push_str(", ");
            }
            select.put(Part::Select, column, |it| {
                if n_columns == 0 {
                    it.distinct()?;
                }
                it.columns()
            })?;
            n_columns += 1;
        }
        if n_columns == 0 {
            select.sql.push('*');
        }
        select.sql.push_str(" FROM ");
        let has_alias = select.put_table(Part::Table, table)?;
        if let Some(alias) = alias {
            select.sql.push_str(" AS ");
            if has_alias {
                return Err(refuse(Part::Alias)(Why::Unexpected(alias.chars().take(32).collect())));
            }
            select.put(Part::Alias, alias, Parser::alone)?;
        }
        Ok(select)
    }

    /// Join another table, for which `on` must hold.
    pub fn join(&mut self, kind: &str, table: &str, on: Option<&str>) -> Result<(), SelectError> {
        assert_eq!(self.clause, Clause::From, "joins come before what must hold");
        let kind = join_kind(kind).ok_or_else(|| {
            refuse(Part::Join)(Why::Unexpected(kind.trim().chars().take(32).collect()))
        })?;
        self.sql.push_str(kind);
        self.put_table(Part::Join, table)?;
        match on {
            Some(on) => {
                self.sql.push_str(" ON ");
                self.put(Part::Join, on, Parser::expression)
            }
            None if kind == CROSS => Ok(()),
            None => Err(refuse(Part::Join)(Why::On)),
        }
    }

    /// What `key`, a column or an expression, must be; with all others of them.
    pub fn criterion(&mut self, key: &str, test: Test) -> Result<(), SelectError> {
        assert!(self.clause <= Clause::Criteria, "criteria come before conditions");
        self.sql.push_str(if self.clause == Clause::Criteria { " AND " } else { " WHERE " });
        self.clause = Clause::Criteria;
        let or_null = matches!(test, Test::OneOf { or_null: true, .. });
        if or_null {
            self.sql.push('(');
        }
        self.put_operand(key)?;
        match test {
            Test::Equal => self.sql.push_str(" = ?"),
            Test::Null => self.sql.push_str(" IS NULL"),
            Test::OneOf { n, .. } => {
                self.room(Part::Criteria, n.saturating_mul(", ?".len()))?;
                self.sql.push_str(" IN (");
                for at in 0..n {
                    self.sql.push_str(if at == 0 { "?" } else { ", ?" });
                }
                self.sql.push(')');
            }
        }
        if or_null {
            self.sql.push_str(" OR ");
            self.put_operand(key)?;
            self.sql.push_str(" IS NULL)");
        }
        Ok(())
    }

    /// A condition, and how it goes on from those before it; how many arguments it wants. What the criteria
    /// say must hold besides.
    pub fn condition(&mut self, how: Conjunction, text: &str) -> Result<usize, SelectError> {
        assert!(self.clause <= Clause::Conditions, "conditions come before groups");
        self.sql.push_str(match (self.clause, how) {
            (Clause::From, _) => " WHERE (",
            (Clause::Criteria, _) => " AND ((",
            (_, Conjunction::And) => " AND (",
            (_, Conjunction::Or) => " OR (",
        });
        // With criteria, they all stand in one parenthesis, which the next clause closes.
        self.is_open |= self.clause == Clause::Criteria;
        self.clause = Clause::Conditions;
        let n = self.put_with(Part::Where, text, Parameters::Allowed, |it| {
            it.expression()?;
            Ok(it.n_parameters())
        })?;
        self.sql.push(')');
        Ok(n)
    }

    /// What to group by, and what must hold for a group.
    pub fn group_by<'p>(
        &mut self,
        texts: impl ExactSizeIterator<Item = &'p str>,
    ) -> Result<(), SelectError> {
        assert!(self.clause < Clause::Groups, "groups come once, before orders");
        self.clause = Clause::Groups;
        self.close();
        let n = texts.len();
        for (nth, text) in texts.enumerate() {
            self.sql.push_str(if nth == 0 { " GROUP BY " } else { ", " });
            self.put(Part::GroupBy, text, |it| it.groups(nth + 1 == n))?;
        }
        Ok(())
    }

    /// What to order by.
    pub fn order_by<'p>(
        &mut self,
        texts: impl Iterator<Item = &'p str>,
    ) -> Result<(), SelectError> {
        assert!(self.clause < Clause::Orders, "orders come once");
        self.clause = Clause::Orders;
        self.close();
        for (nth, text) in texts.enumerate() {
            self.sql.push_str(if nth == 0 { " ORDER BY " } else { ", " });
            self.put(Part::OrderBy, text, Parser::orders)?;
        }
        Ok(())
    }

    /// The text. At most `limit` rows, if that is not negative; with `skips`, the last argument says how many
    /// to leave out before them.
    pub fn finish(mut self, limit: Option<i64>, skips: bool) -> String {
        self.close();
        if let Some(limit) = limit.or_else(|| skips.then_some(-1)) {
            // In the text, for SQLite plans with it: a few rows in order are read from an index, many are
            // sorted. Of a bound one it would know nothing. So each limit has a statement of its own.
            write!(self.sql, " LIMIT {limit}").expect("writing to a string");
        }
        if skips {
            self.sql.push_str(" OFFSET ?");
        }
        self.sql
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.sql.push(')');
        }
    }

    fn put_table(&mut self, part: Part, text: &str) -> Result<bool, SelectError> {
        self.put_with(part, text, Parameters::Refused, Parser::table)
    }

    /// A column as it is, anything else in parentheses.
    fn put_operand(&mut self, text: &str) -> Result<(), SelectError> {
        let start = self.sql.len();
        let is_path = self.put_with(Part::Criteria, text, Parameters::Refused, |it| {
            it.expression()?;
            Ok(it.is_path())
        })?;
        if !is_path {
            self.sql.insert(start, '(');
            self.sql.push(')');
        }
        Ok(())
    }

    fn put<'p>(
        &mut self,
        part: Part,
        text: &'p str,
        read: impl FnOnce(&mut Parser<'p>) -> Result<(), Why>,
    ) -> Result<(), SelectError> {
        self.put_with(part, text, Parameters::Refused, read)
    }

    /// Append `text` if it is what `read` reads, and nothing else.
    fn put_with<'p, T>(
        &mut self,
        part: Part,
        text: &'p str,
        parameters: Parameters,
        read: impl FnOnce(&mut Parser<'p>) -> Result<T, Why>,
    ) -> Result<T, SelectError> {
        self.room(part, text.trim_ascii().len())?;
        let parse = || {
            let mut parser = Parser::new(text, parameters)?;
            let read = read(&mut parser)?;
            parser.end()?;
            Ok(read)
        };
        let read = parse().map_err(refuse(part))?;
        self.sql.push_str(text.trim_ascii());
        Ok(read)
    }

    /// Whether so many bytes more may be added, asked before time is spent on them.
    fn room(&self, part: Part, n_bytes: usize) -> Result<(), SelectError> {
        let fits = self.sql.len().saturating_add(n_bytes) <= limits::SQL_SIZE_MAX;
        if fits { Ok(()) } else { Err(refuse(part)(Why::Size)) }
    }
}

fn refuse(part: Part) -> impl FnOnce(Why) -> SelectError {
    move |why| SelectError { part, why }
}

const CROSS: &str = " CROSS JOIN ";

/// How a kind of join is written; `LEFT`, `left outer` and `LEFT JOIN` are one.
fn join_kind(kind: &str) -> Option<&'static str> {
    let mut words = kind.split_ascii_whitespace().peekable();
    let mut is = |word: &str| words.next_if(|it| it.eq_ignore_ascii_case(word)).is_some();
    let (text, may_be_outer) = if is("INNER") {
        (" INNER JOIN ", false)
    } else if is("LEFT") {
        (" LEFT JOIN ", true)
    } else if is("RIGHT") {
        (" RIGHT JOIN ", true)
    } else if is("FULL") {
        (" FULL JOIN ", true)
    } else if is("CROSS") {
        (CROSS, false)
    } else {
        (" JOIN ", false)
    };
    if may_be_outer {
        is("OUTER");
    }
    is("JOIN");
    words.next().is_none().then_some(text)
}

#[cfg(test)]
mod tests;
