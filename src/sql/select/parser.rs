//! Tells whether a piece of SQL is what it is said to be, all of it: an expression, columns, a table.
//!
//! A recursive descent over SQLite's grammar of expressions and of the SELECT inside of parentheses. It builds
//! nothing: a piece that passes stands in the statement as it came. Precedence matters only where it decides
//! what belongs together (`BETWEEN … AND`, `ESCAPE`).
//!
//! Left out, and so refused: parameters other than `?`, `WITH`, `VALUES`, `IN table`, `RAISE`, windows with a
//! name, `INDEXED BY`, `NATURAL` and `USING` joins, joins by comma.

use crate::sql::select::Why;
use crate::sql::select::tokens;
use crate::sql::select::tokens::Kind;
use crate::sql::select::tokens::Token;

/// Expressions in one another. Each level takes a few hundred bytes of the core's stack.
const DEPTH_MAX: u32 = 64;
/// Characters of a token that is not expected, as far as it is shown.
const SHOWN_MAX: usize = 32;

/// Strength of an operator: those of a stronger one are grouped first.
type Strength = u8;
const OR: Strength = 1;
const AND: Strength = 2;
/// Below `NOT`, whose operand may have all that is stronger than itself.
const NOT: Strength = 4;
const EQUAL: Strength = 4;
const LESS: Strength = 5;
const BIT: Strength = 7;
const ADD: Strength = 8;
const MULTIPLY: Strength = 9;
const CONCAT: Strength = 10;
const COLLATE: Strength = 11;
/// Stronger than all operators that stand between operands.
const PREFIX: Strength = 12;

/// Whether question marks may stand in a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    Allowed,
    Refused,
}

/// A reader of one piece.
pub(super) struct Parser<'a> {
    /// What stands behind `token`.
    rest: &'a str,
    token: Token<'a>,
    parameters: Parameters,
    n_parameters: usize,
    /// Nothing but names and dots has been read.
    is_path: bool,
    depth: u32,
}

type Parsed = Result<(), Why>;

impl<'a> Parser<'a> {
    /// A reader of `text`.
    pub(super) fn new(text: &'a str, parameters: Parameters) -> Result<Self, Why> {
        let (token, rest) = tokens::next(text).ok_or_else(|| unexpected(text))?;
        if token.kind == Kind::End {
            return Err(Why::Blank);
        }
        Ok(Self { rest, token, parameters, n_parameters: 0, is_path: true, depth: 0 })
    }

    /// Question marks read so far.
    pub(super) fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    /// Whether what was read is the name of a column and nothing else.
    pub(super) fn is_path(&self) -> bool {
        self.is_path
    }

    /// There must be no more.
    pub(super) fn end(&self) -> Parsed {
        if self.token.kind == Kind::End { Ok(()) } else { Err(self.unexpected()) }
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Parsed {
        self.operators(OR)
    }

    /// Columns of a result, each with or without another name.
    pub(super) fn columns(&mut self) -> Parsed {
        self.each(Self::column)
    }

    /// `DISTINCT` or `ALL`, if one of them is there.
    pub(super) fn distinct(&mut self) -> Parsed {
        if self.token.is_word("DISTINCT") || self.token.is_word("ALL") {
            self.next()?;
        }
        Ok(())
    }

    /// What to group by; and `HAVING`, if this is the last of it.
    pub(super) fn groups(&mut self, is_last: bool) -> Parsed {
        self.each(Self::expression)?;
        if is_last && self.accept("HAVING")? { self.expression() } else { Ok(()) }
    }

    /// What to order by.
    pub(super) fn orders(&mut self) -> Parsed {
        self.each(Self::order)
    }

    /// A table, a function or a SELECT that stands for one, with or without another name; whether it has one.
    pub(super) fn table(&mut self) -> Result<bool, Why> {
        if self.accept_sign("(")? {
            self.nested(Self::select)?;
            self.expect_sign(")")?;
        } else {
            self.table_name()?;
            if self.accept_sign(".")? {
                self.table_name()?;
            }
            if self.accept_sign("(")? {
                self.nested(Self::arguments)?;
            }
        }
        self.alias()
    }

    /// A name that stands alone.
    pub(super) fn alone(&mut self) -> Parsed {
        self.name()
    }

    fn column(&mut self) -> Parsed {
        // `*`, or `t.*`, which the operand leaves for its caller.
        if self.accept_sign("*")? {
            return Ok(());
        }
        let is_all = self.token.is_name() && self.is_all_of_a_table();
        if is_all {
            self.next()?;
            self.next()?;
            return self.next();
        }
        self.expression()?;
        self.alias().map(|_| ())
    }

    /// Whether a dot and an asterisk follow.
    fn is_all_of_a_table(&self) -> bool {
        let is = |text: &'a str, sign| match tokens::next(text) {
            Some((token, rest)) if token.is_sign(sign) => Some(rest),
            _ => None,
        };
        is(self.rest, ".").is_some_and(|rest| is(rest, "*").is_some())
    }

    /// Another name, if there is one.
    fn alias(&mut self) -> Result<bool, Why> {
        if self.accept("AS")? {
            if !self.token.is_name() && self.token.kind != Kind::Text {
                return Err(self.unexpected());
            }
        } else if !self.token.is_alias() {
            return Ok(false);
        }
        self.next()?;
        Ok(true)
    }

    fn order(&mut self) -> Parsed {
        self.expression()?;
        if !self.accept("ASC")? {
            self.accept("DESC")?;
        }
        if self.accept("NULLS")? && !self.accept("FIRST")? {
            self.expect("LAST")?;
        }
        Ok(())
    }

    /// Operands, and operators that are at least so strong.
    fn operators(&mut self, least: Strength) -> Parsed {
        self.nested(|it| {
            it.operand()?;
            while it.operator(least)? {}
            Ok(())
        })
    }

    /// What follows an operand: an operator and all that it wants. False if there is none.
    fn operator(&mut self, least: Strength) -> Result<bool, Why> {
        let token = self.token;
        let is_word = token.kind == Kind::Word;
        let strength = match token.text {
            "=" | "==" | "<>" | "!=" => EQUAL,
            "<" | "<=" | ">" | ">=" => LESS,
            "&" | "|" | "<<" | ">>" => BIT,
            "+" | "-" => ADD,
            "*" | "/" | "%" => MULTIPLY,
            "||" | "->" | "->>" => CONCAT,
            _ if is_word && token.is_word("OR") => OR,
            _ if is_word && token.is_word("AND") => AND,
            _ if is_word && token.is_word("COLLATE") => COLLATE,
            _ if is_word && is_test(&token) => EQUAL,
            _ => return Ok(false),
        };
        if strength < least || !matches!(token.kind, Kind::Sign | Kind::Word) {
            return Ok(false);
        }
        self.is_path = false;
        self.next()?;
        match strength {
            COLLATE => self.name()?,
            EQUAL if is_word => self.test(&token)?,
            _ => self.operators(strength + 1)?,
        }
        Ok(true)
    }

    /// What follows the word that a test begins with.
    fn test(&mut self, word: &Token<'a>) -> Parsed {
        if word.is_word("ISNULL") || word.is_word("NOTNULL") {
            return Ok(());
        }
        if word.is_word("IS") {
            self.accept("NOT")?;
            if self.accept("DISTINCT")? {
                self.expect("FROM")?;
            }
            return self.operators(EQUAL + 1);
        }
        let mut word = *word;
        if word.is_word("NOT") {
            word = self.token;
            self.next()?;
            if word.is_word("NULL") {
                return Ok(());
            }
        }
        if word.is_word("IN") {
            self.expect_sign("(")?;
            return self.nested(|it| {
                if it.token.is_word("SELECT") {
                    it.select()?;
                    it.expect_sign(")")
                } else {
                    it.arguments()
                }
            });
        }
        if word.is_word("BETWEEN") {
            self.operators(AND + 1)?;
            self.expect("AND")?;
            return self.operators(EQUAL + 1);
        }
        if is_match(&word) {
            self.operators(EQUAL + 1)?;
            return if self.accept("ESCAPE")? { self.operators(EQUAL + 1) } else { Ok(()) };
        }
        Err(unexpected(word.text))
    }

    fn operand(&mut self) -> Parsed {
        let token = self.token;
        match token.kind {
            Kind::Parameter => {
                if self.parameters == Parameters::Refused {
                    return Err(Why::Parameter);
                }
                self.is_path = false;
                self.n_parameters += 1;
                self.next()
            }
            Kind::Text | Kind::Literal => {
                self.is_path = false;
                self.next()
            }
            Kind::Sign => {
                self.is_path = false;
                self.next()?;
                match token.text {
                    "(" => self.group(),
                    "+" | "-" | "~" => self.operators(PREFIX),
                    _ => Err(unexpected(token.text)),
                }
            }
            Kind::Word | Kind::Quoted if token.is_name() => self.path(),
            Kind::Word => {
                self.is_path = false;
                self.next()?;
                self.keyword(&token)
            }
            Kind::Quoted | Kind::End => Err(self.unexpected()),
        }
    }

    /// An operand that begins with a keyword.
    fn keyword(&mut self, word: &Token<'a>) -> Parsed {
        if word.is_word("NULL") {
            Ok(())
        } else if word.is_word("NOT") {
            if self.accept("EXISTS")? { self.exists() } else { self.operators(NOT) }
        } else if word.is_word("EXISTS") {
            self.exists()
        } else if word.is_word("CASE") {
            self.case()
        } else if word.is_word("CAST") {
            self.cast()
        } else {
            Err(unexpected(word.text))
        }
    }

    /// A column, or the call of a function.
    fn path(&mut self) -> Parsed {
        self.next()?;
        if self.token.is_sign("(") {
            self.is_path = false;
            self.next()?;
            return self.nested(Self::call);
        }
        // Database, table and column at most.
        for _ in 0..2 {
            if !self.accept_sign(".")? {
                break;
            }
            self.name()?;
        }
        Ok(())
    }

    /// What follows `(` of a function's call.
    fn call(&mut self) -> Parsed {
        if self.accept_sign("*")? {
            self.expect_sign(")")?;
        } else {
            self.distinct()?;
            if !self.accept_sign(")")? {
                self.each(Self::expression)?;
                self.order_by()?;
                self.expect_sign(")")?;
            }
        }
        if self.accept("FILTER")? {
            self.expect_sign("(")?;
            self.expect("WHERE")?;
            self.expression()?;
            self.expect_sign(")")?;
        }
        if self.accept("OVER")? {
            self.expect_sign("(")?;
            self.window()?;
            self.expect_sign(")")?;
        }
        Ok(())
    }

    fn window(&mut self) -> Parsed {
        if self.accept("PARTITION")? {
            self.expect("BY")?;
            self.each(Self::expression)?;
        }
        self.order_by()?;
        let is_frame = self.accept("ROWS")? || self.accept("RANGE")? || self.accept("GROUPS")?;
        if !is_frame {
            return Ok(());
        }
        if self.accept("BETWEEN")? {
            self.frame_bound()?;
            self.expect("AND")?;
        }
        self.frame_bound()?;
        if !self.accept("EXCLUDE")? || self.accept("TIES")? || self.accept("GROUP")? {
            Ok(())
        } else if self.accept("NO")? {
            self.expect("OTHERS")
        } else {
            self.expect("CURRENT")?;
            self.expect("ROW")
        }
    }

    fn frame_bound(&mut self) -> Parsed {
        if self.accept("CURRENT")? {
            return self.expect("ROW");
        }
        if !self.accept("UNBOUNDED")? {
            self.operators(AND + 1)?;
        }
        if self.accept("PRECEDING")? { Ok(()) } else { self.expect("FOLLOWING") }
    }

    /// What follows `(` where an operand begins: one expression or several, or a SELECT.
    fn group(&mut self) -> Parsed {
        if self.token.is_word("SELECT") {
            self.nested(Self::select)?;
        } else {
            self.each(Self::expression)?;
        }
        self.expect_sign(")")
    }

    fn exists(&mut self) -> Parsed {
        self.expect_sign("(")?;
        self.nested(Self::select)?;
        self.expect_sign(")")
    }

    fn case(&mut self) -> Parsed {
        if !self.token.is_word("WHEN") {
            self.expression()?;
        }
        self.expect("WHEN")?;
        loop {
            self.expression()?;
            self.expect("THEN")?;
            self.expression()?;
            if !self.accept("WHEN")? {
                break;
            }
        }
        if self.accept("ELSE")? {
            self.expression()?;
        }
        self.expect("END")
    }

    fn cast(&mut self) -> Parsed {
        self.expect_sign("(")?;
        self.expression()?;
        self.expect("AS")?;
        // `VARCHAR(10)`, `DOUBLE PRECISION`.
        self.name()?;
        while self.token.is_name() {
            self.next()?;
        }
        if self.accept_sign("(")? {
            self.each(Self::signed_number)?;
            self.expect_sign(")")?;
        }
        self.expect_sign(")")
    }

    fn signed_number(&mut self) -> Parsed {
        if !self.accept_sign("-")? {
            self.accept_sign("+")?;
        }
        let is_number = self.token.text.starts_with(|it: char| it.is_ascii_digit() || it == '.');
        if self.token.kind == Kind::Literal && is_number {
            self.next()
        } else {
            Err(self.unexpected())
        }
    }

    /// What follows `(` of a list of values, which may be empty.
    fn arguments(&mut self) -> Parsed {
        if self.accept_sign(")")? {
            return Ok(());
        }
        self.each(Self::expression)?;
        self.expect_sign(")")
    }

    /// A SELECT, up to the parenthesis that closes it.
    fn select(&mut self) -> Parsed {
        loop {
            self.expect("SELECT")?;
            self.distinct()?;
            self.columns()?;
            if self.accept("FROM")? {
                self.table()?;
                while self.join()? {}
            }
            if self.accept("WHERE")? {
                self.expression()?;
            }
            if self.accept("GROUP")? {
                self.expect("BY")?;
                self.groups(true)?;
            }
            if self.accept("UNION")? {
                self.accept("ALL")?;
            } else if !self.accept("EXCEPT")? && !self.accept("INTERSECT")? {
                break;
            }
        }
        self.order_by()?;
        if self.accept("LIMIT")? {
            self.expression()?;
            if self.accept("OFFSET")? {
                self.expression()?;
            }
        }
        Ok(())
    }

    /// A join inside of a SELECT, if there is one.
    fn join(&mut self) -> Result<bool, Why> {
        let is_cross = self.accept("CROSS")?;
        let is_outer =
            !is_cross && (self.accept("LEFT")? || self.accept("RIGHT")? || self.accept("FULL")?);
        if is_outer {
            self.accept("OUTER")?;
        }
        let is_kind = is_cross || is_outer || self.accept("INNER")?;
        if !self.accept("JOIN")? {
            return if is_kind { Err(self.unexpected()) } else { Ok(false) };
        }
        self.table()?;
        if is_cross {
            if self.accept("ON")? {
                self.expression()?;
            }
        } else {
            self.expect("ON")?;
            self.expression()?;
        }
        Ok(true)
    }

    /// `ORDER BY` and what follows, if it is there.
    fn order_by(&mut self) -> Parsed {
        if !self.accept("ORDER")? {
            return Ok(());
        }
        self.expect("BY")?;
        self.orders()
    }

    /// One or more, with commas between.
    fn each(&mut self, one: fn(&mut Self) -> Parsed) -> Parsed {
        loop {
            one(self)?;
            if !self.accept_sign(",")? {
                return Ok(());
            }
            self.is_path = false;
        }
    }

    /// Read something that may contain itself.
    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= DEPTH_MAX {
            return Err(Why::Depth);
        }
        self.depth += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn name(&mut self) -> Parsed {
        if self.token.is_name() { self.next() } else { Err(self.unexpected()) }
    }

    fn table_name(&mut self) -> Parsed {
        if self.token.is_table() { self.next() } else { Err(self.unexpected()) }
    }

    /// Whether the keyword is there, which is read then.
    fn accept(&mut self, keyword: &str) -> Result<bool, Why> {
        let is_there = self.token.is_word(keyword);
        if is_there {
            self.next()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, keyword: &str) -> Parsed {
        if self.accept(keyword)? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn accept_sign(&mut self, sign: &str) -> Result<bool, Why> {
        let is_there = self.token.is_sign(sign);
        if is_there {
            self.next()?;
        }
        Ok(is_there)
    }

    fn expect_sign(&mut self, sign: &str) -> Parsed {
        if self.accept_sign(sign)? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn next(&mut self) -> Parsed {
        let (token, rest) = tokens::next(self.rest).ok_or_else(|| unexpected(self.rest))?;
        (self.token, self.rest) = (token, rest);
        Ok(())
    }

    fn unexpected(&self) -> Why {
        match self.token.kind {
            Kind::End => Why::End,
            _ => unexpected(self.token.text),
        }
    }
}

/// Whether a word begins a test: an operator that is spelled out, and as strong as `=`.
fn is_test(word: &Token<'_>) -> bool {
    ["IS", "IN", "NOT", "BETWEEN", "ISNULL", "NOTNULL"].iter().any(|it| word.is_word(it))
        || is_match(word)
}

fn is_match(word: &Token<'_>) -> bool {
    ["LIKE", "GLOB", "REGEXP", "MATCH"].iter().any(|it| word.is_word(it))
}

/// Why a piece is refused at `text`.
fn unexpected(text: &str) -> Why {
    Why::Unexpected(text.trim_start().chars().take(SHOWN_MAX).collect())
}
