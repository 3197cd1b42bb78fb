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
                let proposed = system.propose(step, Incarnation::ENGINE, draft, None);
                self.retry_soon_if(proposed.is_err(), step, namespace);
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
        let mut is_refused = result.is_err();
        if result.is_ok() && system.leads() && row.state == State::Creating {
            let draft = catalog::make_live(namespace, row.incarnation);
            is_refused = system.propose(step, Incarnation::ENGINE, draft, None).is_err();
        }
        self.retry_soon_if(is_refused, step, namespace);
    }

    /// What was refused now is taken up again by the timer, well before those who wait give up.
    fn retry_soon_if(&mut self, is_refused: bool, step: &Step<'_>, namespace: &Namespace) {
        if is_refused {
            self.started.insert(namespace.clone(), step.now.after(limits::CREATION_RETRY_REFUSED));
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
