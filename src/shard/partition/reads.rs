//! Reads of a partition's databases: given out at once, unless they must see what is not applied yet.

use crate::limits;
use crate::shard::event::Effect;
use crate::shard::event::Token;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::shard::queue::EarlyRead;
use crate::shard::request::SubmitError;
use crate::types::Incarnation;
use crate::wire::command::draft::Draft;

impl Partition {
    /// Read at level `weak`: this replica leads by its own belief.
    pub(in crate::shard) fn read(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        at: Incarnation,
        draft: Draft,
    ) {
        let stamp = self.stamp(step, at);
        let database = self.database(at);
        let Some(queue) = self.queues.get_mut(&at) else {
            return step.reply(token, Err(SubmitError::NoLeader));
        };
        if queue.is_fenced {
            return step.reply(token, Err(SubmitError::Fenced));
        }
        queue.used_at = step.now;
        let command = draft.seal(&stamp);
        if queue.first_outstanding().is_some_and(|it| it <= self.term_start) {
            // Others may have acknowledged what is not applied here yet.
            if queue.early_reads.len() >= limits::PARKED_MAX {
                return step.reply(token, Err(SubmitError::Overloaded));
            }
            let deadline = step.now.after(limits::REQUEST_DEADLINE);
            self.early_until = self.early_until.or(Some(deadline));
            return queue.early_reads.push(EarlyRead { token, command, deadline });
        }
        self.n_open += usize::from(!queue.is_open);
        queue.is_open = true;
        queue.n_reads += 1;
        step.out.push(Effect::Read { token, database, command });
    }

    /// Reads that came early, once what they must see is applied.
    pub(super) fn give_out_early_reads(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        let database = self.database(incarnation);
        let Some(queue) = self.queues.get_mut(&incarnation) else { return };
        if queue.first_outstanding().is_some_and(|it| it <= self.term_start) {
            return;
        }
        for EarlyRead { token, command, .. } in std::mem::take(&mut queue.early_reads) {
            self.n_open += usize::from(!queue.is_open);
            queue.is_open = true;
            queue.n_reads += 1;
            step.out.push(Effect::Read { token, database, command });
        }
    }

    /// Reads that have waited too long for what they must see were not done.
    pub(super) fn answer_late_reads(&mut self, step: &mut Step<'_>) {
        if self.early_until.is_none_or(|at| step.now < at) {
            return;
        }
        self.early_until = None;
        for queue in self.queues.values_mut() {
            let n_late = queue.early_reads.partition_point(|it| it.deadline <= step.now);
            for late in queue.early_reads.drain(..n_late) {
                step.out.push(Effect::Reply {
                    token: late.token,
                    result: Err(SubmitError::Overloaded),
                });
            }
            let next = queue.early_reads.first().map(|it| it.deadline);
            self.early_until = self.early_until.into_iter().chain(next).min();
        }
    }
}
