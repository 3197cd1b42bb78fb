//! Which commands of a batch took long.
//!
//! Whoever runs a batch is asked before each command whether to go on, and reads the clock then; the time
//! between two such moments is that of the command in between.

use std::time::Duration;

use bytes::Bytes;

use crate::sql;
use crate::sql::Applied;
use crate::sql::Entry;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementResult;

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// As it was run.
    pub command: Bytes,
    /// How long.
    pub took: Duration,
    /// Rows that it read, changed or returned; none if it failed.
    pub rows: Option<usize>,
}

/// Takes the time of each command of one batch.
#[derive(Debug)]
pub struct Stopwatch {
    /// From when on a command is slow; none if none is.
    threshold: Option<Duration>,
    began: Option<Instant>,
    n_begun: usize,
    /// How many had begun before it, where it stands in the log if it stands there, and its time.
    slow: Vec<(usize, Option<LogIndex>, Duration)>,
}

impl Stopwatch {
    /// A watch for a batch that is about to begin.
    pub fn new(threshold: Option<Duration>) -> Self {
        Self { threshold, began: None, n_begun: 0, slow: Vec::new() }
    }

    /// Whether anything can be slow; if not, nobody needs to read the clock for it.
    pub fn is_wanted(&self) -> bool {
        self.threshold.is_some()
    }

    /// A command begins, and the one before it has ended.
    pub fn on_begin(&mut self, now: Instant) {
        self.on_end(now);
        self.began = Some(now);
        self.n_begun += 1;
    }

    /// The batch has ended, or a command of it.
    pub fn on_end(&mut self, now: Instant) {
        if let (Some(threshold), Some(began)) = (self.threshold, self.began.take())
            && now.since(began) >= threshold
        {
            self.slow.push((self.n_begun - 1, sql::command_at_work(), now.since(began)));
        }
    }

    /// Of reads, which begin once each and in order: those that were slow, and ran to their end.
    pub fn slow_reads<'a>(
        &self,
        commands: &[Bytes],
        outcome_of: impl Fn(usize) -> Option<&'a Outcome>,
    ) -> Vec<Slow> {
        let slow = self.slow.iter().filter_map(|(nth, _, took)| {
            let rows = rows_of(outcome_of(*nth)?);
            Some(Slow { command: commands[*nth].clone(), took: *took, rows })
        });
        slow.collect()
    }

    /// Of commands that write, one of which may begin several times: those that were slow, and were applied.
    pub fn slow_applies(&self, entries: &[Entry], applied: &[Applied]) -> Vec<Slow> {
        if self.slow.is_empty() {
            return Vec::new();
        }
        let slow = entries.iter().zip(applied).filter_map(|(entry, applied)| {
            let times = self.slow.iter().filter(|(_, index, _)| *index == Some(entry.index));
            let took = times.map(|(_, _, took)| *took).max()?;
            let rows = match applied {
                Applied::Done(outcome) => rows_of(outcome),
                Applied::Replayed(_) | Applied::Skipped => None,
            };
            Some(Slow { command: entry.command.clone(), took, rows })
        });
        slow.collect()
    }
}

fn rows_of(outcome: &Outcome) -> Option<usize> {
    let rows = outcome.as_ref().ok()?.iter().map(|it| match it {
        StatementResult::Rows(rows) => rows.count,
        StatementResult::Counts { rows_affected, .. } => {
            usize::try_from(*rows_affected).unwrap_or(usize::MAX)
        }
    });
    Some(rows.fold(0, usize::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rows::StatementError;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_time_of_a_command_ends_where_the_next_begins() {
        let mut watch = Stopwatch::new(Some(10 * MS));
        for at in [0, 9, 19, 20] {
            watch.on_begin(Instant::START.after(at * MS));
        }
        watch.on_end(Instant::START.after(50 * MS));
        let commands: Vec<_> = (0..4).map(|n: u8| Bytes::from(vec![n])).collect();
        let outcomes: Vec<Outcome> = vec![Ok(Vec::new()); 3];
        let error = Err(StatementError::new("no"));
        let of = |nth: usize| Some(outcomes.get(nth).unwrap_or(&error));
        let slow = watch.slow_reads(&commands, of);
        let got: Vec<_> = slow.iter().map(|it| (it.command[0], it.took, it.rows)).collect();
        assert_eq!(got, [(1, 10 * MS, Some(0)), (3, 30 * MS, None)]);
        assert!(watch.slow_reads(&commands, |_| None).is_empty(), "what was given up runs again");
    }

    #[test]
    fn nothing_is_slow_without_a_threshold() {
        let mut watch = Stopwatch::new(None);
        watch.on_begin(Instant::START);
        watch.on_end(Instant::START.after(Duration::from_hours(1)));
        assert!(watch.slow.is_empty());
    }
}
