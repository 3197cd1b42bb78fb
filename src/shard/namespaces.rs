//! How a namespace comes to be (R30), as the system partition's leader sees it.
//!
//! ```text
//! wanted ──propose──► row `creating` ──Ask──► database exists ──propose──► row `live` ──► answered
//! ```
//!
//! Every arrow starts from what the catalog says, so any of them can be repeated: after a restart, a change
//! of leader, or a failed attempt the leader takes up what it finds half done.

use std::collections::BTreeMap;

use crate::catalog;
use crate::catalog::Catalog;
use crate::catalog::State;
use crate::limits;
use crate::shard::event::Answer;
use crate::shard::event::Effect;
use crate::shard::event::Token;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::shard::request::SubmitError;
use crate::shard::room::Room;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::Namespace;

/// What the leader of the system partition is about to create.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Partitions for data; decides where a namespace goes.
    n_partitions: u16,
    pub(super) catalog: Catalog,
    /// Who waits for which.
    wanted: BTreeMap<Namespace, Vec<(Token, Instant)>>,
    /// What has been started, and when it may be started again.
    started: BTreeMap<Namespace, Instant>,
}

impl Namespaces {
    pub(super) fn new(n_partitions: u16, catalog: Catalog) -> Self {
        Self { n_partitions, catalog, wanted: BTreeMap::new(), started: BTreeMap::new() }
    }

    /// Somebody wants it to exist.
    pub(super) fn want(
        &mut self,
        step: &mut Step<'_>,
        system: &mut Partition,
        token: Token,
        namespace: Namespace,
    ) {
        if let Some(row) = self.catalog.get(&namespace)
            && row.state == State::Live
        {
            return step.reply(token, Ok(Answer::Namespace(row.clone())));
        }
        let is_full = self.catalog.len() + self.wanted.len() >= limits::NAMESPACES_MAX;
        if step.room < Room::Enough {
            return step.reply(token, Err(SubmitError::DiskReserve));
        }
        let waiters = self.wanted.get(&namespace).map_or(0, Vec::len);
        if is_full || waiters >= limits::PARKED_MAX {
            return step.reply(token, Err(SubmitError::Overloaded));
        }
        let deadline = step.now.after(limits::REQUEST_DEADLINE);
        self.wanted.entry(namespace.clone()).or_default().push((token, deadline));
        self.advance(step, system, &namespace);
    }

    /// Take the next step towards the namespace, unless one was taken a moment ago.
    fn advance(&mut self, step: &mut Step<'_>, system: &mut Partition, namespace: &Namespace) {
        let is_fresh = self.started.get(namespace).is_some_and(|retry_at| step.now < *retry_at);
        if is_fresh || !system.leads() {
            return;
        }
        self.started.insert(namespace.clone(), step.now.after(limits::CREATION_RETRY));
        match self.catalog.get(namespace) {
            None => {
                let incarnation = Incarnation(system.next_index().0);
                let home = namespace.home(self.n_partitions);
                let draft = catalog::create(namespace, incarnation, home);
                let proposed = system.propose_own(step, Incarnation::ENGINE, draft);
                self.settle(step, namespace, proposed);
            }
            Some(row) => step.out.push(Effect::Ask {
                namespace: namespace.clone(),
                database: DatabaseId { partition: row.partition, incarnation: row.incarnation },
            }),
        }
    }

    /// The hosting partition answered.
    pub(super) fn on_answered(
        &mut self,
        step: &mut Step<'_>,
        system: &mut Partition,
        namespace: &Namespace,
        result: Result<Answer, SubmitError>,
    ) {
        let Some(row) = self.catalog.get(namespace) else { return };
        let mut ended = result.map(drop);
        if ended.is_ok() && system.leads() && row.state == State::Creating {
            let draft = catalog::make_live(namespace, row.incarnation);
            ended = system.propose_own(step, Incarnation::ENGINE, draft);
        }
        self.settle(step, namespace, ended);
    }

    /// What was refused now is taken up again by the timer, well before those who wait give up. But a full disk
    /// may stay full: they are told at once.
    fn settle(
        &mut self,
        step: &mut Step<'_>,
        namespace: &Namespace,
        ended: Result<(), SubmitError>,
    ) {
        let Err(error) = ended else { return };
        self.started.insert(namespace.clone(), step.now.after(limits::CREATION_RETRY_REFUSED));
        if error == SubmitError::DiskReserve {
            for (token, _) in self.wanted.remove(namespace).unwrap_or_default() {
                step.reply(token, Err(SubmitError::DiskReserve));
            }
        }
    }

    /// The system partition applied a command: these rows are what it changed.
    pub(super) fn on_rows(
        &mut self,
        step: &mut Step<'_>,
        system: &mut Partition,
        rows: Vec<catalog::Row>,
    ) {
        for row in rows {
            self.catalog.fold(row.clone());
            step.out.push(Effect::CatalogChanged { row: row.clone() });
            self.started.remove(&row.namespace);
            match row.state {
                State::Creating => self.advance(step, system, &row.namespace),
                State::Live => {
                    for (token, _) in self.wanted.remove(&row.namespace).unwrap_or_default() {
                        step.reply(token, Ok(Answer::Namespace(row.clone())));
                    }
                }
            }
        }
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let wanted = self.wanted.values().filter_map(|it| it.first()).map(|(_, at)| *at).min();
        let started = self.started.values().min().copied();
        wanted.into_iter().chain(started).min()
    }

    pub(super) fn on_timeout(&mut self, step: &mut Step<'_>, system: &mut Partition) {
        let now = step.now;
        self.wanted.retain(|_, waiters| {
            waiters.retain(|(token, deadline)| {
                let is_late = *deadline <= now;
                if is_late {
                    // Creating has no effect that a client could see, so it may be asked for again.
                    step.reply(*token, Err(SubmitError::NoLeader));
                }
                !is_late
            });
            !waiters.is_empty()
        });
        self.started.retain(|_, retry_at| now < *retry_at);
        self.take_up(step, system);
    }

    /// Take up everything that is wanted or half done: on becoming leader, and now and then.
    pub(super) fn take_up(&mut self, step: &mut Step<'_>, system: &mut Partition) {
        let half_done = self.catalog.rows().filter(|it| it.state == State::Creating);
        let mut open: Vec<_> = half_done.map(|it| it.namespace.clone()).collect();
        open.extend(self.wanted.keys().cloned());
        for namespace in open {
            self.advance(step, system, &namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use crate::catalog;
    use crate::catalog::Catalog;
    use crate::raft;
    use crate::shard::Shard;
    use crate::shard::ShardBoot;
    use crate::shard::event::Answer;
    use crate::shard::event::Effect;
    use crate::shard::event::Event;
    use crate::shard::event::Token;
    use crate::shard::partition::PartitionBoot;
    use crate::shard::request::SubmitError;
    use crate::shard::room::Room;
    use crate::sql::Database;
    use crate::sql::Entry;
    use crate::sql::Role;
    use crate::sql::Vfs;
    use crate::sql::testing::LIMITS;
    use crate::types::HardState;
    use crate::types::Instant;
    use crate::types::LogIndex;
    use crate::types::Namespace;
    use crate::types::PartitionId;
    use crate::types::ReplicaId;
    use crate::types::Term;
    use crate::types::Timestamp;

    /// A shard that leads the system partition, whose database works.
    struct Harness {
        shard: Shard,
        engine: Database,
        /// How often the hosting partition was asked to create the database.
        n_asked: usize,
        replies: Vec<(Token, Result<Answer, SubmitError>)>,
        now: Instant,
        _folder: TempDir,
    }

    impl Harness {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("0.db");
            Database::create(&path, Vfs::system(), catalog::ENGINE_SCHEMA).unwrap();
            let partition = PartitionBoot {
                id: PartitionId::SYSTEM,
                replica: ReplicaId(1),
                recovered: raft::Recovered {
                    hard_state: HardState {
                        term: Term(1),
                        vote: ReplicaId(0),
                        commit: LogIndex(1),
                    },
                    conf_state: raft::ConfState {
                        voters: vec![ReplicaId(1)],
                        ..raft::ConfState::default()
                    },
                    compacted: (LogIndex(1), Term(1)),
                    entries: Vec::new(),
                },
                stamp: Timestamp(0),
                incarnations: Vec::new(),
                floors: BTreeMap::new(),
            };
            let shard = Shard::new(ShardBoot {
                partitions: vec![partition],
                catalog: Catalog::default(),
                n_partitions: 1,
                limits: LIMITS,
                log_bytes: usize::MAX,
                fence_log_bytes: usize::MAX,
                open_databases: 10,
                seed: 1,
                now: Instant::START,
                wall: Timestamp(1),
            });
            let mut harness = Self {
                shard,
                engine: Database::open(&path, Vfs::system(), Role::Engine).unwrap(),
                n_asked: 0,
                replies: Vec::new(),
                now: Instant::START,
                _folder: folder,
            };
            harness.step(Event::Start);
            harness
        }

        /// Take a step, a turn's end, and all that follows.
        fn step(&mut self, event: Event) {
            let mut events = vec![event, Event::TurnEnd];
            while !events.is_empty() {
                let mut effects = Vec::new();
                for event in std::mem::take(&mut events) {
                    self.shard.step(self.now, event, &mut effects);
                }
                for effect in effects {
                    match effect {
                        Effect::Persist { ticket, .. } => events.push(Event::Persisted { ticket }),
                        Effect::Apply { database, commands } => {
                            let entry = |(index, command)| Entry { index, command };
                            let entries: Vec<_> = commands.into_iter().map(entry).collect();
                            let ran = self.engine.apply(&entries).unwrap();
                            let (applied, size) = (ran.applied, ran.size);
                            events.push(Event::Applied { database, applied, size });
                        }
                        Effect::Ask { .. } => self.n_asked += 1,
                        Effect::Reply { token, result } => self.replies.push((token, result)),
                        _ => {}
                    }
                }
                if !events.is_empty() {
                    events.push(Event::TurnEnd);
                }
            }
        }

        fn want(&mut self, token: u64) {
            let namespace = Namespace::new("n").unwrap();
            self.step(Event::CreateNamespace { token: Token(token), namespace });
        }

        fn answer(&mut self, result: Result<Answer, SubmitError>) {
            let namespace = Namespace::new("n").unwrap();
            self.step(Event::Answered { namespace, result });
        }
    }

    #[test]
    fn a_disk_that_fills_up_while_a_namespace_is_created_is_told_at_once() {
        let mut harness = Harness::new();
        harness.want(1);
        harness.want(2);
        assert_eq!((harness.n_asked, harness.replies.len()), (1, 0));
        harness.step(Event::DiskSpace { room: Room::Low });
        harness.answer(Err(SubmitError::DiskReserve));
        let refused = |token| (Token(token), Err(SubmitError::DiskReserve));
        assert_eq!(harness.replies, [refused(1), refused(2)]);
        harness.want(3);
        assert_eq!(harness.replies[2], refused(3));
        // Half of it is there: when there is room again, it is taken up.
        harness.step(Event::DiskSpace { room: Room::Enough });
        harness.now = harness.now.after(crate::limits::CREATION_RETRY_REFUSED);
        harness.step(Event::Timeout);
        assert_eq!(harness.n_asked, 2);
        harness.want(4);
        harness.answer(Ok(Answer::Results(Vec::new())));
        assert!(matches!(harness.replies[3], (Token(4), Ok(Answer::Namespace(_)))));
        assert_eq!(harness.replies.len(), 4);
    }

    #[test]
    fn another_refusal_is_tried_again() {
        let mut harness = Harness::new();
        harness.want(1);
        harness.answer(Err(SubmitError::Overloaded));
        assert_eq!((harness.n_asked, harness.replies.len()), (1, 0));
        harness.now = harness.now.after(crate::limits::CREATION_RETRY_REFUSED);
        harness.step(Event::Timeout);
        assert_eq!((harness.n_asked, harness.replies.len()), (2, 0));
    }
}
