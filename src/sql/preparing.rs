//! What preparing a statement costs, counted so that every replica counts the same (R12).
//!
//! A kilobyte of text may take SQLite seconds to prepare, and a command may hold thousands of such texts, or a
//! trigger make each of them so. SQLite counts no steps meanwhile. What it does is counted by its traces:
//! - It asks for permission for the columns, tables and functions that a statement, or what the statement names, comes
//!   upon. So the authorizer counts here, and says no when that was too much.
//! - It calls the progress handler while it looks for a plan where there are many.
//! - Copies, comparisons and names among columns are counted where they happen ([`super::silent`]).
//! - The rest happens in silence, but follows from the texts of the statement and of the views and triggers that it comes
//!   upon: literals are in proportion to their bytes; tables joined by columns of one name (`NATURAL`, `USING`) are
//!   compared each with each, column by column; what is nested may double with each level.
//!
//! The same statement on the same schema comes to the same, if the schema, its statistics, its views' columns
//! and its virtual tables are at hand when preparing begins; else SQLite would read them meanwhile
//! ([`super::schema::load`]). Memory is bounded ([`memory`]), but does not count: how much is asked for
//! depends a little on what the connection has at hand.

use std::cell::Cell;
use std::hash::Hash;
use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::sql::charges;
use crate::sql::context;
use crate::sql::memory;
use crate::sql::statement;
use crate::sql::text;
use crate::sql::text::Joins;

/// What each question for permission counts for, in VM instructions. It stands for 1 to 20 µs.
const STEPS_PER_QUESTION: u64 = 64;
/// What each part of a plan that SQLite looks at twice counts for. It stands for 4 µs.
const STEPS_PER_CHOICE: u64 = 64;
/// What each pair of joined tables counts for. It stands for 4 µs, if they have a dozen columns of one name.
const STEPS_PER_PAIR: u64 = 16;
/// Pairs of columns, of tables joined by columns of one name, that count for one VM instruction: 50 ns.
const COLUMN_PAIRS_PER_STEP: u64 = 64;
/// Levels of nesting that cost nothing, and from which on nothing is added: the bound of memory is met before.
const DEPTH_FREE: u32 = 8;
const DEPTH_MAX: u32 = 20;
/// Questions that cost nothing: what ordinary statements ask.
const QUESTIONS_FREE: u64 = 32;
/// Bytes of text that count for one VM instruction.
const BYTES_PER_STEP: u64 = 16;
/// Bytes of text that cost nothing.
const BYTES_FREE: u64 = 1 << 10;
/// Silent steps that cost nothing: what ordinary statements take.
const SILENT_FREE: u64 = 1_000;
/// Silent steps after which it is checked whether that is too much.
const SILENT_PER_CHECK: u64 = 16_384;
/// Questions after which whoever runs the statement is asked whether that is enough: a millisecond or so.
const QUESTIONS_PER_ASK: u64 = 32;

struct Meter {
    is_on: Cell<bool>,
    is_out: Cell<bool>,
    steps_max: Cell<u64>,
    questions: Cell<u64>,
    /// Steps of what is done without asking.
    silent: Cell<u64>,
    text: Cell<Text>,
    /// Columns of the widest table.
    width: Cell<u64>,
    ticks: Cell<u64>,
    /// A hash of the view or trigger that asked last.
    accessor: Cell<u64>,
}

/// What of a text makes preparing it long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    bytes: u64,
    /// Of joined tables.
    pairs: u64,
    /// Those of them that are joined by columns of one name.
    natural_pairs: u64,
    depth: u32,
}

impl Text {
    /// That of `sql`, of which only the first statement counts.
    pub(super) fn of(sql: &str) -> Self {
        let Joins { bytes, n_tables, is_natural, depth } = text::joins(sql);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let pairs = n_tables.saturating_mul(n_tables);
        Self { bytes, pairs, natural_pairs: if is_natural { pairs } else { 0 }, depth }
    }

    /// That of two texts, one of which names the other.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            pairs: self.pairs.saturating_add(other.pairs),
            natural_pairs: self.natural_pairs.saturating_add(other.natural_pairs),
            depth: self.depth.saturating_add(other.depth).saturating_add(1),
        }
    }

    /// Whether it compares columns by their names.
    pub(super) fn is_natural(self) -> bool {
        self.natural_pairs > 0
    }

    /// What it counts for where tables have up to `width` columns, in VM instructions.
    pub(super) fn steps(self, width: u64) -> u64 {
        let column_pairs = width.saturating_mul(width) / COLUMN_PAIRS_PER_STEP;
        let levels = self.depth.min(DEPTH_MAX);
        let nested = if levels > DEPTH_FREE { 1 << levels } else { 0 };
        (self.pairs.saturating_mul(STEPS_PER_PAIR))
            .saturating_add(self.natural_pairs.saturating_mul(column_pairs))
            .saturating_add(self.bytes.saturating_sub(BYTES_FREE) / BYTES_PER_STEP)
            .saturating_add(nested)
    }
}

thread_local! {
    static METER: Meter = const {
        Meter {
            is_on: Cell::new(false),
            is_out: Cell::new(false),
            steps_max: Cell::new(u64::MAX),
            questions: Cell::new(0),
            silent: Cell::new(0),
            text: Cell::new(Text { bytes: 0, pairs: 0, natural_pairs: 0, depth: 0 }),
            width: Cell::new(0),
            ticks: Cell::new(0),
            accessor: Cell::new(0),
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
        let choices = self.ticks.get().saturating_mul(charges::STEPS_PER_TICK);
        questions
            .saturating_mul(STEPS_PER_QUESTION)
            .saturating_add(choices.saturating_mul(STEPS_PER_CHOICE))
            .saturating_add(self.silent.get().saturating_sub(SILENT_FREE))
            .saturating_add(self.text.get().steps(self.width.get()))
    }

    /// Whether that is too many, or enough.
    fn check(&self, must_ask: bool) -> bool {
        // The limit first: what it decides must not depend on who else would stop here.
        let is_out = self.steps() > self.steps_max.get() || (must_ask && statement::is_enough());
        self.is_out.set(self.is_out.get() || is_out);
        self.is_out.get()
    }
}

/// Run `prepare`, which prepares `sql` and may take what `allowance` says. It is not run if that is too little for
/// such a text.
pub(super) fn measured<T>(
    sql: &str,
    allowance: Allowance,
    prepare: impl FnOnce() -> T,
) -> (Option<T>, Effort) {
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
        it.silent.set(0);
        it.text.set(Text::of(sql));
        it.width.set(context::width());
        it.ticks.set(0);
        it.accessor.set(0);
    });
    let off = Off;
    // What the text alone comes to may be too much, and nothing would stop it then.
    if METER.with(|it| it.check(false)) {
        return (
            None,
            METER.with(|it| Effort { steps: it.steps(), is_out: true, needs_memory: false }),
        );
    }
    let (prepared, memory) = memory::with_bound(allowance.memory, prepare);
    drop(off);
    METER.with(|it| {
        it.check(false);
        let effort =
            Effort { steps: it.steps(), is_out: it.is_out.get(), needs_memory: memory.is_out };
        (Some(prepared), effort)
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
        if accessor.is_none() {
            it.accessor.set(0);
        }
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

/// SQLite does something that counts for `steps` and that it asks nobody for. Whether preparing has taken too long.
pub(super) fn note_silent(steps: u64) -> bool {
    METER.with(|it| {
        if !it.is_on.get() {
            return false;
        }
        let before = it.silent.get();
        let now = before.saturating_add(steps);
        it.silent.set(now);
        if before / SILENT_PER_CHECK != now / SILENT_PER_CHECK {
            it.check(false);
        }
        it.is_out.get()
    })
}

/// Run `f`, in which nothing counts.
pub(super) fn uncounted<T>(f: impl FnOnce() -> T) -> T {
    let was_on = METER.with(|it| it.is_on.replace(false));
    let done = f();
    METER.with(|it| it.is_on.set(was_on));
    done
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

    use super::Text;
    use crate::sql::Rest;
    use crate::sql::Share;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Mode;
    use crate::wire::command::Results;
    use crate::wire::command::Stamp;
    use crate::wire::command::draft::Draft;

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
    fn tables_joined_by_names_count_for_their_columns() {
        let mut fixture = Fixture::new();
        // No column has the name of another: all are compared, and nobody is asked anything.
        for table in 0..40 {
            let columns: Vec<_> = (0..500).map(|it| format!("t{table}c{it}")).collect();
            fixture.must(&format!("CREATE TABLE t{table}({})", columns.join(",")));
        }
        let joined: Vec<_> = (0..40).map(|it| format!("t{it}")).collect();
        let sql = format!("INSERT INTO t0(t0c0) SELECT 1 FROM {}", joined.join(" NATURAL JOIN "));
        // A tenth of a second for each.
        let printed = print(&fixture.apply([each(&vec![sql; 100], 10_000_000)])[0]);
        assert!(printed.starts_with("error statement_steps"), "{printed}");
        // Few of them are not tried where there is little time.
        let sql = "INSERT INTO t0(t0c0) SELECT 1 FROM t1 NATURAL JOIN t2".to_owned();
        let entries = fixture.entries([each(&[sql], 10_000_000)]);
        let batch = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap();
        assert_eq!(batch.rest, Rest::Long);
    }

    #[test]
    fn changes_of_the_schema_count_for_the_views_that_are_there() {
        let mut fixture = with_wide_table();
        fixture.must(&format!("CREATE VIEW v AS {}", natural(59)));
        // The view counts for 59² pairs.
        let create: Vec<_> = (0..100).map(|it| format!("CREATE TABLE c{it}(a)")).collect();
        let printed = print(&fixture.apply([each(&create, 1_000_000)])[0]);
        assert!(printed.starts_with("error statement_steps"), "{printed}");
        assert_eq!(print(&fixture.apply([each(&create[..5], 1_000_000)])[0]), "0 rows, id 0");
    }

    #[test]
    fn texts_count_for_their_first_statement_and_for_what_is_nested() {
        let width = 15;
        let of = |sql: &str| Text::of(sql).steps(width);
        assert_eq!(of("SELECT 1"), 0);
        assert_eq!(of("INSERT INTO t VALUES (1); SELECT 1 FROM a JOIN b JOIN c"), 0);
        assert_eq!(of("; SELECT 1 FROM a JOIN b JOIN c; SELECT 2"), 4 * 16);
        assert_eq!(of("SELECT 1 FROM a NATURAL JOIN b JOIN c"), 4 * (16 + 3));
        let trigger =
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT 1 FROM a JOIN b; END";
        assert_eq!(of(trigger), 16);
        assert_eq!(of(&format!("{}SELECT 1", "SELECT x FROM (".repeat(8))), 0);
        assert_eq!(of(&format!("{}SELECT 1", "SELECT x FROM (".repeat(18))), 1 << 18);
        assert_eq!(of(&format!("{}SELECT 1", "SELECT x FROM (".repeat(60))), 1 << 20);
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
