//! What preparing a statement costs, counted so that every replica counts the same (R12).
//!
//! A kilobyte of text may take SQLite seconds to prepare, and a command may hold thousands of such texts, or a
//! trigger make each of them so. SQLite counts no steps meanwhile. What it does is counted by its traces:
//! - It asks for permission once for every column, table and function that a statement, or what the statement
//!   names, comes upon. So the authorizer counts here, and says no when that was too much.
//! - It calls the progress handler while it looks for a plan where there are many.
//! - Literals are in proportion to the texts; an expression that is put in where another names it, to memory.
//! - Tables joined by columns of one name (`NATURAL`, `USING`) are compared each with each; their texts say how many.
//!
//! The same statement on the same schema comes to the same, if the schema, its statistics, its views' columns
//! and its virtual tables are at hand when preparing begins; else SQLite would read them meanwhile
//! ([`super::database::Database::forget_schema`]).

use std::cell::Cell;
use std::hash::Hash;
use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::sql::context;
use crate::sql::memory;
use crate::sql::statement;
use crate::sql::text;

/// What each question for permission counts for, in VM instructions. It stands for 1 to 20 µs.
const STEPS_PER_QUESTION: u64 = 64;
/// What each part of a plan that SQLite looks at twice counts for. It stands for 4 µs.
const STEPS_PER_CHOICE: u64 = 64;
/// What each pair of joined tables counts for. It stands for 4 µs, if they have a dozen columns of one name.
const STEPS_PER_PAIR: u64 = 16;
/// What each whole mebibyte of memory counts for. It stands for 2 ms. (Whole ones, because what a connection has
/// at hand differs by some kilobytes.)
const STEPS_PER_MEBIBYTE: u64 = 1 << 15;
/// Questions that cost nothing: what ordinary statements ask.
const QUESTIONS_FREE: u64 = 32;
/// Bytes of text that count for one VM instruction.
const BYTES_PER_STEP: u64 = 16;
/// Bytes of text that cost nothing.
const BYTES_FREE: u64 = 1 << 10;
/// Questions after which whoever runs the statement is asked whether that is enough: a millisecond or so.
const QUESTIONS_PER_ASK: u64 = 32;

struct Meter {
    is_on: Cell<bool>,
    is_out: Cell<bool>,
    steps_max: Cell<u64>,
    questions: Cell<u64>,
    text: Cell<Text>,
    ticks: Cell<u64>,
    /// A hash of the view or trigger that asked last.
    accessor: Cell<u64>,
    /// Of memory, at most at once.
    bytes: Cell<u64>,
}

/// What of a text makes preparing it long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    bytes: u64,
    joins: u64,
}

impl Text {
    /// That of `sql`.
    pub(super) fn of(sql: &str) -> Self {
        Self { bytes: u64::try_from(sql.len()).unwrap_or(u64::MAX), joins: text::count_joins(sql) }
    }

    /// That of two texts.
    pub(super) fn and(self, other: Self) -> Self {
        let bytes = self.bytes.saturating_add(other.bytes);
        Self { bytes, joins: self.joins.saturating_add(other.joins) }
    }

    fn steps(self) -> u64 {
        let pairs = self.joins.saturating_mul(self.joins);
        pairs
            .saturating_mul(STEPS_PER_PAIR)
            .saturating_add(self.bytes.saturating_sub(BYTES_FREE) / BYTES_PER_STEP)
    }
}

thread_local! {
    static METER: Meter = const {
        Meter {
            is_on: Cell::new(false),
            is_out: Cell::new(false),
            steps_max: Cell::new(u64::MAX),
            questions: Cell::new(0),
            text: Cell::new(Text { bytes: 0, joins: 0 }),
            ticks: Cell::new(0),
            accessor: Cell::new(0),
            bytes: Cell::new(0),
        }
    };
}

/// What preparing may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// VM instructions, as they are counted here.
    pub(super) steps: u64,
}

/// What preparing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// In VM instructions.
    pub(super) steps: u64,
    /// It was stopped: it took more than it might, or its caller had enough.
    pub(super) is_out: bool,
    /// It asked for more memory than it may have.
    pub(super) needs_memory: bool,
}

impl Meter {
    fn steps(&self) -> u64 {
        let questions = self.questions.get().saturating_sub(QUESTIONS_FREE);
        let choices = self.ticks.get().saturating_mul(context::STEPS_PER_TICK);
        questions
            .saturating_mul(STEPS_PER_QUESTION)
            .saturating_add(choices.saturating_mul(STEPS_PER_CHOICE))
            .saturating_add(self.text.get().steps())
            .saturating_add((self.bytes.get() >> 20).saturating_mul(STEPS_PER_MEBIBYTE))
    }

    /// Whether that is too many, or enough.
    fn check(&self, must_ask: bool) -> bool {
        // The limit first: what it decides must not depend on who else would stop here.
        let is_out = self.steps() > self.steps_max.get() || (must_ask && statement::is_enough());
        self.is_out.set(self.is_out.get() || is_out);
        self.is_out.get()
    }
}

/// Run `prepare`, which prepares `sql` and may take what `allowance` says.
pub(super) fn measured<T>(
    sql: &str,
    allowance: Allowance,
    prepare: impl FnOnce() -> T,
) -> (T, Effort) {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            METER.with(|it| it.is_on.set(false));
        }
    }
    METER.with(|it| {
        it.is_on.set(true);
        it.is_out.set(false);
        it.steps_max.set(allowance.steps);
        it.questions.set(0);
        it.text.set(Text::of(sql));
        it.ticks.set(0);
        it.accessor.set(0);
        it.bytes.set(0);
    });
    let off = Off;
    let (prepared, memory) = memory::with_bound(allowance.memory, prepare);
    drop(off);
    METER.with(|it| {
        it.bytes.set(u64::try_from(memory.peak).unwrap_or_default());
        // A short statement may ask for nothing at all, and so never be checked.
        let is_out = it.check(false);
        (prepared, Effort { steps: it.steps(), is_out, needs_memory: memory.is_out })
    })
}

/// SQLite asks for permission, on behalf of the view or trigger `accessor` if there is one. Whether it is to be
/// refused, because preparing takes too long.
pub(super) fn note_question(accessor: Option<&str>) -> bool {
    METER.with(|it| {
        if !it.is_on.get() {
            return false;
        }
        let questions = it.questions.get() + 1;
        it.questions.set(questions);
        if let Some(name) = accessor {
            let mut hasher = FxHasher::default();
            name.hash(&mut hasher);
            let accessor = hasher.finish();
            if it.accessor.replace(accessor) != accessor {
                it.text.set(it.text.get().and(context::text_of(name)));
            }
        }
        it.check(questions.is_multiple_of(QUESTIONS_PER_ASK))
    })
}

/// The progress handler is called. Whether preparing is to be stopped, if that is what goes on.
pub(super) fn note_tick() -> bool {
    METER.with(|it| {
        if !it.is_on.get() {
            return false;
        }
        it.ticks.set(it.ticks.get() + 1);
        it.check(true)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::sql::Rest;
    use crate::sql::Share;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Draft;
    use crate::wire::command::Mode;
    use crate::wire::command::Results;
    use crate::wire::command::Stamp;

    /// Takes 10 ms to prepare, where `w` has fifteen columns.
    fn natural(n: usize) -> String {
        format!("SELECT count(*) FROM w AS w0{}", " NATURAL JOIN w".repeat(n))
    }

    fn with_wide_table() -> Fixture {
        let mut fixture = Fixture::new();
        let columns: Vec<_> = (0..15).map(|it| format!("c{it}")).collect();
        fixture.must(&format!("CREATE TABLE w({})", columns.join(",")));
        fixture.must("CREATE TABLE t(a)");
        fixture
    }

    /// Let SQLite find many plans: a second's worth for twenty tables.
    fn with_indexes(fixture: &mut Fixture) {
        for n in 0..15 {
            let columns: Vec<_> = (0..8).map(|it| format!("c{}", (n + it) % 15)).collect();
            fixture.must(&format!("CREATE INDEX i{n} ON w({})", columns.join(",")));
        }
    }

    fn each(statements: &[String], steps: u64) -> Bytes {
        let stamp = Stamp { limits: CommandLimits { steps, ..LIMITS }, ..stamp(1) };
        let mut draft = Draft::new(Results::Last, 0);
        for sql in statements {
            draft.statement(Mode::Exec, sql).unwrap();
        }
        draft.seal(&stamp)
    }

    #[test]
    fn ordinary_statements_cost_nothing() {
        let mut fixture = with_wide_table();
        // What each counts for, beside what it does, is 16 steps.
        let inserts: Vec<_> = (0..20).map(|it| format!("INSERT INTO t VALUES ({it})")).collect();
        let printed = print(&fixture.apply([each(&inserts, 20 * 150)])[0]);
        assert!(printed.starts_with("1 rows"), "{printed}");
        assert_eq!(fixture.query("SELECT count(*) FROM t"), "[count(*)](20)");
    }

    #[test]
    fn many_texts_that_take_long_to_prepare_end_by_their_steps() {
        let mut fixture = with_wide_table();
        let trigger = format!("CREATE TRIGGER g AFTER INSERT ON t BEGIN {}; END", natural(59));
        fixture.must(&trigger);
        let inserts: Vec<_> =
            (0..10_000).map(|it| format!("INSERT INTO t VALUES ({it})")).collect();
        let outcomes = fixture.apply([
            each(&["INSERT INTO t VALUES (-1)".to_owned()], 1_000_000),
            each(&inserts, 1_000_000),
            each(&["INSERT INTO t VALUES (-2)".to_owned()], 1_000_000),
        ]);
        let printed: Vec<_> = outcomes.iter().map(print).collect();
        assert!(printed[0].starts_with("1 rows"), "{}", printed[0]);
        assert!(printed[1].starts_with("error statement_steps"), "{}", printed[1]);
        assert!(printed[2].starts_with("1 rows"), "{}", printed[2]);
        assert_eq!(fixture.query("SELECT group_concat(a) AS a FROM t"), "[a]('-1,-2')");
    }

    #[test]
    fn a_statement_at_hand_counts_like_one_that_is_not() {
        for steps in (1_000..6_000).step_by(500) {
            let run = |is_warm: bool| {
                let mut fixture = with_wide_table();
                fixture.must(&format!("CREATE VIEW v AS {}", natural(10)));
                let insert = "INSERT INTO t SELECT * FROM v".to_owned();
                if is_warm {
                    fixture.must(&insert);
                    fixture.must("DELETE FROM t");
                }
                let twice = [insert.clone(), insert];
                print(&fixture.apply([each(&twice, steps)])[0])
            };
            assert_eq!(run(true), run(false), "{steps} steps");
        }
    }

    #[test]
    fn literals_of_a_trigger_count() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a)");
        let list = vec!["1"; 50_000].join(",");
        fixture.must(&format!(
            "CREATE TRIGGER g AFTER INSERT ON t WHEN new.a IN ({list}) BEGIN DELETE FROM t WHERE a = 0; END"
        ));
        let inserts: Vec<_> = (0..1_000).map(|it| format!("INSERT INTO t VALUES ({it})")).collect();
        let printed = print(&fixture.apply([each(&inserts, 1_000_000)])[0]);
        assert!(printed.starts_with("error statement_steps"), "{printed}");
    }

    #[test]
    fn whoever_waits_may_stop_it() {
        let mut fixture = with_wide_table();
        with_indexes(&mut fixture);
        let text = format!("INSERT INTO t {}", natural(19));
        let entries = fixture.entries([command(Mode::Exec, &text, &[], &stamp(9))]);
        let mut asked = 0;
        let batch = fixture.database.apply_within(&entries, Share::Whole, &mut |_| {
            asked += 1;
            asked > 3
        });
        assert_eq!(batch.unwrap().rest, Rest::Long);
        let read = command(Mode::Query, &natural(19), &[], &stamp(9));
        let late = fixture.database.read(std::slice::from_ref(&read), &mut |_| true).unwrap();
        assert!(print(&late[0]).starts_with("error statement_ms"), "{late:?}");
        let outcome = fixture.database.read(&[read], &mut |_| false).unwrap();
        assert_eq!(print(&outcome[0]), "[count(*)](0)");
    }

    #[test]
    fn a_script_of_many_short_statements_may_be_stopped() {
        let mut fixture = with_wide_table();
        let inserts = vec!["INSERT INTO t VALUES (1)".to_owned(); 100];
        let entries = fixture.entries([each(&inserts, 1_000_000)]);
        let mut asked = 0;
        let batch = fixture.database.apply_within(&entries, Share::Whole, &mut |_| {
            asked += 1;
            asked > 50
        });
        assert_eq!(batch.unwrap().rest, Rest::Long);
        assert_eq!(fixture.query("SELECT count(*) FROM t"), "[count(*)](0)");
    }

    #[test]
    fn views_that_take_too_long_are_refused() {
        let mut fixture = with_wide_table();
        fixture.must(&format!("CREATE VIEW u AS {}", natural(59)));
        fixture.must("DROP VIEW u");
        with_indexes(&mut fixture);
        let refused = fixture.exec(&[&format!("CREATE VIEW v AS {}", natural(59))]).remove(0);
        assert!(refused.starts_with("error schema_views"), "{refused}");
        fixture.must("INSERT INTO t VALUES (1)");
    }
}
