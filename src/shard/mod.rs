//! Everything one core owns, as one deterministic state machine: [`Shard::step`] is the whole story.
//!
//! No clock, no files, no sockets, no randomness: time, seeds and completions come in as [`Event`]s, what
//! must happen in the world goes out as [`Effect`]s, in the order in which it must happen.
//!
//! Invariants
//! - A write is answered *because* its command is committed and applied, and each request once.
//! - A step is short: what takes time is an effect.
//! - The log forgets only what every database has on disk.

pub mod event;
pub mod fair;
pub mod lines;
pub mod partition;
pub mod request;
pub mod room;

mod backlog;
mod compaction;
mod inflight;
mod namespaces;
mod queue;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use crate::catalog;
use crate::catalog::Catalog;
use crate::limits;
use crate::shard::compaction::Compaction;
use crate::shard::event::Answer;
use crate::shard::event::Effect;
use crate::shard::event::Event;
use crate::shard::event::Ticket;
use crate::shard::event::Token;
use crate::shard::namespaces::Namespaces;
use crate::shard::partition::Partition;
use crate::shard::partition::PartitionBoot;
use crate::shard::partition::Step;
use crate::shard::request::Status;
use crate::shard::request::SubmitError;
use crate::shard::room::Room;
use crate::sql::Applied;
use crate::types::DatabaseId;
use crate::types::DatabaseSize;
use crate::types::Dice;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::PartitionId;
use crate::types::Timestamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Kind;
use crate::wire::command::draft::Draft;

/// What a shard starts from.
#[derive(Debug)]
pub struct ShardBoot {
    /// Its partitions.
    pub partitions: Vec<PartitionBoot>,
    /// What the system partition's engine database says, if that partition is here.
    pub catalog: Catalog,
    /// Partitions for data of the whole network, `database.shard_count`.
    pub n_partitions: u16,
    /// What a command may cost.
    pub limits: CommandLimits,
    /// Bytes of kept log at which it is compacted.
    pub log_bytes: usize,
    /// Bytes of kept log of a partition at which nothing is held for fenced databases any more.
    pub fence_log_bytes: usize,
    /// Databases that may be open at once.
    pub open_databases: usize,
    /// All its randomness.
    pub seed: u64,
    /// The time at which it starts.
    pub now: Instant,
    /// The wall clock at which it starts.
    pub wall: Timestamp,
}

/// A request that waits for its partition to have a leader.
#[derive(Debug)]
struct Parked {
    token: Token,
    deadline: Instant,
    what: What,
}

/// What can be asked of a leader.
#[derive(Debug)]
enum What {
    Write(DatabaseId, Draft),
    Read(DatabaseId, Draft),
    CreateNamespace(crate::types::Namespace),
    CreateDatabase(DatabaseId, crate::types::Namespace),
}

impl What {
    fn partition(&self) -> PartitionId {
        match self {
            Self::Write(it, _) | Self::Read(it, _) | Self::CreateDatabase(it, _) => it.partition,
            Self::CreateNamespace(_) => PartitionId::SYSTEM,
        }
    }
}

/// How much a shard has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that write, and are not decided.
    pub waiting: usize,
    /// Bytes of those.
    pub waiting_bytes: usize,
    /// Requests that wait for a leader.
    pub parked: usize,
    /// Requests whose commands wait for a place in the log.
    pub backlog: usize,
    /// Requests refused because their namespace had its share of a crowded partition.
    pub unfair: u64,
    /// Databases closed because too many were open.
    pub evictions: u64,
    /// Rounds of compaction that ended.
    pub compactions: u64,
    /// How often a fenced database's part of the log was let go.
    pub let_go: u64,
    /// By how much the terms of all partitions have risen since the start.
    pub terms: u64,
}

/// One core's state.
#[derive(Debug)]
pub struct Shard {
    partitions: BTreeMap<PartitionId, Partition>,
    namespaces: Namespaces,
    compaction: Compaction,
    parked: VecDeque<Parked>,
    /// Partitions with proposals that have not left yet.
    unready: BTreeSet<PartitionId>,
    /// Partitions that led at the end of the last step.
    leading: BTreeSet<PartitionId>,
    limits: CommandLimits,
    open_databases: usize,
    /// Databases closed because too many were open.
    n_evictions: u64,
    /// Sum of the terms at the start.
    terms_before: u64,
    dice: Dice,
    ticket: Ticket,
    /// The wall clock when it was last read, and when that was.
    wall: (Timestamp, Instant),
    /// What the disk has, as of the last word about it.
    room: Room,
}

impl Shard {
    /// A core with the partitions that its disk kept. [`Event::Start`] sets it in motion.
    pub fn new(boot: ShardBoot) -> Self {
        let mut dice = Dice::new(boot.seed);
        let now = boot.now;
        let partitions = boot.partitions.into_iter();
        let partitions = partitions.map(|it| (it.id, Partition::new(it, now, &mut dice))).collect();
        let mut shard = Self {
            partitions,
            namespaces: Namespaces::new(boot.n_partitions, boot.catalog),
            compaction: Compaction::new(boot.log_bytes, boot.fence_log_bytes),
            parked: VecDeque::new(),
            unready: BTreeSet::new(),
            leading: BTreeSet::new(),
            limits: boot.limits,
            open_databases: boot.open_databases,
            n_evictions: 0,
            terms_before: 0,
            dice,
            ticket: Ticket(0),
            wall: (boot.wall, now),
            room: Room::Enough,
        };
        shard.terms_before = shard.terms();
        shard
    }

    /// Advance by one event. Everything that must happen in the world is appended to `out`.
    pub fn step(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Start => self.on_start(now, out),
            Event::Clock { wall } => self.wall = (wall, now),
            Event::DiskSpace { room } => self.room = room,
            Event::Write { token, database, draft } => {
                self.on_request(now, token, What::Write(database, draft), out);
            }
            Event::Read { token, database, draft } => {
                self.on_request(now, token, What::Read(database, draft), out);
            }
            Event::CreateNamespace { token, namespace } => {
                self.on_request(now, token, What::CreateNamespace(namespace), out);
            }
            Event::CreateDatabase { token, database, namespace } => {
                self.on_request(now, token, What::CreateDatabase(database, namespace), out);
            }
            Event::Answered { namespace, result } => {
                let (mut step, rest) = self.parts(now, out);
                if let Some(system) = rest.partitions.get_mut(&PartitionId::SYSTEM) {
                    rest.namespaces.on_answered(&mut step, system, &namespace, result);
                    rest.unready.insert(PartitionId::SYSTEM);
                }
            }
            Event::Message { partition, message } => {
                let (mut step, rest) = self.parts(now, out);
                if let Some(it) = rest.partitions.get_mut(&partition) {
                    it.on_message(&mut step, message);
                }
            }
            Event::Persisted { ticket } => {
                let (mut step, rest) = self.parts(now, out);
                for partition in rest.partitions.values_mut() {
                    partition.on_persisted(&mut step, ticket);
                }
            }
            Event::Applied { database, applied, size } => {
                self.on_applied(now, database, applied, size, out);
            }
            Event::ReadFinished { database, token, outcome } => {
                let partition = self.partitions.get_mut(&database.partition);
                let queue = partition.and_then(|it| it.queues.get_mut(&database.incarnation));
                queue.expect("what was read is known").n_reads -= 1;
                let result = outcome.map(Answer::Results).map_err(SubmitError::Statement);
                out.push(Effect::Reply { token, result });
            }
            Event::Strained { database, is_strained } => {
                let partition = self.partitions.get_mut(&database.partition);
                if let Some(it) = partition.and_then(|it| it.queues.get_mut(&database.incarnation))
                {
                    it.is_strained = is_strained;
                }
            }
            Event::Fenced { database } => {
                let (mut step, rest) = self.parts(now, out);
                if let Some(it) = rest.partitions.get_mut(&database.partition) {
                    it.on_fenced(&mut step, database.incarnation);
                    rest.compaction.note_fence(database.partition);
                }
            }
            Event::Synced => {
                let (mut step, rest) = self.parts(now, out);
                rest.compaction.on_synced(&mut step, rest.partitions);
            }
            Event::ManifestsWritten => {
                let (mut step, rest) = self.parts(now, out);
                rest.compaction.on_manifests_written(&mut step, rest.partitions);
            }
            Event::ManifestsNotWritten => {
                let (mut step, rest) = self.parts(now, out);
                rest.compaction.on_manifests_not_written(&mut step);
            }
            Event::Lagging { partition, last } => {
                let (mut step, rest) = self.parts(now, out);
                if let Some(it) = rest.partitions.get_mut(&partition) {
                    it.rewrite(&mut step, last);
                }
            }
            Event::Evicted { database } => self.on_evicted(now, database, out),
            Event::Timeout => self.on_timeout(now, out),
            Event::TurnEnd => self.on_turn_end(now, out),
        }
    }

    /// When to call [`Self::step`] with [`Event::Timeout`], if nothing else happens first.
    pub fn next_timeout(&self) -> Option<Instant> {
        let partitions = self.partitions.values().filter_map(Partition::next_timeout);
        let parked = self.parked.front().map(|it| it.deadline);
        let others = [self.namespaces.next_timeout(), self.compaction.next_timeout(), parked];
        partitions.chain(others.into_iter().flatten()).min()
    }

    /// What this shard knows about itself; the shell adds the bytes of the files.
    pub fn status(&self) -> Status {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Status {
            database_bytes: 0,
            n_partitions: count(self.partitions.len()),
            n_leading: count(self.leading.len()),
            n_leaderless: count(self.partitions.values().filter(|it| !it.has_leader()).count()),
            n_namespaces: if self.partitions.contains_key(&PartitionId::SYSTEM) {
                count(self.namespaces.catalog.len())
            } else {
                0
            },
            n_fenced: 0,
            is_disk_low: self.room != Room::Enough,
            is_log_stuck: false,
            is_stopping: false,
        }
    }

    /// What waits in this shard.
    pub fn load(&self) -> Load {
        let mut load = Load { parked: self.parked.len(), ..Load::default() };
        load.terms = self.terms() - self.terms_before;
        load.evictions = self.n_evictions;
        load.compactions = self.compaction.n_rounds();
        load.let_go = self.compaction.n_let_go();
        for it in self.partitions.values() {
            let in_flight = it.shares().total();
            load.waiting += in_flight.n;
            load.waiting_bytes += in_flight.bytes;
            load.backlog += it.n_backlog();
            load.unfair += it.shares().n_refused();
        }
        load
    }

    /// The terms of all partitions together: each change of one is a change of this.
    fn terms(&self) -> u64 {
        self.partitions.values().map(|it| it.replica.term().0).sum()
    }

    /// Whether nobody waits for an answer, so that the node may stop.
    pub fn is_quiet(&self) -> bool {
        self.parked.is_empty() && self.partitions.values().all(|it| it.n_waiting() == 0)
    }

    /// A partition's replica, to look at.
    pub fn replica(&self, partition: PartitionId) -> Option<&crate::raft::Replica> {
        self.partitions.get(&partition).map(|it| &it.replica)
    }

    fn on_start(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (mut step, rest) = self.parts(now, out);
        for partition in rest.partitions.values_mut() {
            partition.drain(&mut step);
        }
    }

    fn on_request(&mut self, now: Instant, token: Token, what: What, out: &mut Vec<Effect>) {
        let (mut step, rest) = self.parts(now, out);
        let partition = what.partition();
        match rest.partitions.get_mut(&partition) {
            None => step.reply(token, Err(SubmitError::NoLeader)),
            Some(it) if it.leads() => {
                rest.unready.insert(partition);
                ask(&mut step, it, rest.namespaces, token, what);
            }
            // Perhaps the new leader is us.
            Some(_) if rest.parked.len() < limits::PARKED_MAX => {
                let deadline = now.after(limits::REQUEST_DEADLINE);
                rest.parked.push_back(Parked { token, deadline, what });
            }
            Some(_) => step.reply(token, Err(SubmitError::Overloaded)),
        }
    }

    fn on_applied(
        &mut self,
        now: Instant,
        database: DatabaseId,
        applied: Vec<Applied>,
        size: DatabaseSize,
        out: &mut Vec<Effect>,
    ) {
        let (mut step, rest) = self.parts(now, out);
        let Some(partition) = rest.partitions.get_mut(&database.partition) else { return };
        let of_engine = partition.on_applied(&mut step, database.incarnation, applied, size);
        if partition.give_pages_back(&mut step, database.incarnation) {
            rest.unready.insert(database.partition);
        }
        if database.partition == PartitionId::SYSTEM {
            let rows = of_engine.iter().flatten().flat_map(|it| catalog::rows_of(it)).collect();
            rest.namespaces.on_rows(&mut step, partition, rows);
            rest.unready.insert(PartitionId::SYSTEM);
        }
    }

    fn on_evicted(&mut self, now: Instant, database: DatabaseId, out: &mut Vec<Effect>) {
        let (mut step, rest) = self.parts(now, out);
        let Some(partition) = rest.partitions.get_mut(&database.partition) else { return };
        if let Some(queue) = partition.queues.get_mut(&database.incarnation) {
            queue.is_evicting = false;
            // What it was is told anew by the connection that opens it.
            queue.is_strained = false;
        }
        partition.dispatch(&mut step, database.incarnation);
    }

    fn on_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (mut step, rest) = self.parts(now, out);
        for partition in rest.partitions.values_mut() {
            if partition.next_timeout().is_some_and(|at| at <= now) {
                partition.on_timeout(&mut step);
            }
        }
        while let Some(late) = rest.parked.pop_front_if(|it| it.deadline <= now) {
            step.reply(late.token, Err(SubmitError::NoLeader));
        }
        if let Some(system) = rest.partitions.get_mut(&PartitionId::SYSTEM)
            && rest.namespaces.next_timeout().is_some_and(|at| at <= now)
        {
            rest.namespaces.on_timeout(&mut step, system);
            rest.unready.insert(PartitionId::SYSTEM);
        }
    }

    fn on_turn_end(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.look_who_leads(now, out);
        let (mut step, rest) = self.parts(now, out);
        while let Some(id) = rest.unready.pop_first() {
            rest.partitions.get_mut(&id).expect("partitions stay").drain(&mut step);
        }
        if rest.compaction.is_due(rest.partitions, *step.ticket, now) {
            rest.compaction.start(&mut step, rest.partitions);
        }
        self.evict(now, out);
    }

    /// Close what has not been needed for longest, while more is open than may be.
    fn evict(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (mut step, rest) = self.parts(now, out);
        let n_open: usize = rest.partitions.values().map(|it| it.n_open).sum();
        // While a sync is under way it is not known yet what will be clean.
        if n_open <= rest.open_databases || !rest.compaction.is_idle() {
            return;
        }
        let mut idle = Vec::new();
        for (id, partition) in rest.partitions.iter() {
            for (incarnation, queue) in &partition.queues {
                let may_go = queue.is_open && !queue.is_evicting && queue.is_idle();
                if may_go && *incarnation != Incarnation::ENGINE {
                    idle.push((queue.used_at, *id, *incarnation, queue.is_clean()));
                }
            }
        }
        idle.sort_unstable();
        let (mut is_sync_due, mut n_evicted) = (false, 0);
        for (_, id, incarnation, is_clean) in idle.into_iter().take(n_open - rest.open_databases) {
            if !is_clean {
                is_sync_due = true;
                continue;
            }
            let partition = rest.partitions.get_mut(&id).expect("partitions stay");
            let queue = partition.queues.get_mut(&incarnation).expect("queues stay");
            queue.is_evicting = true;
            queue.is_open = false;
            partition.n_open -= 1;
            n_evicted += 1;
            step.out.push(Effect::Evict { database: DatabaseId { partition: id, incarnation } });
        }
        if is_sync_due && rest.compaction.is_idle() {
            rest.compaction.start(&mut step, rest.partitions);
        }
        self.n_evictions += n_evicted;
    }

    /// Whoever began to lead takes up what waits for a leader.
    fn look_who_leads(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let is_as_before =
            |(id, it): (&PartitionId, &Partition)| it.leads() == self.leading.contains(id);
        if self.partitions.iter().all(is_as_before) && self.parked.is_empty() {
            return;
        }
        let leading = self.partitions.iter().filter(|(_, it)| it.leads());
        let leading: BTreeSet<_> = leading.map(|(id, _)| *id).collect();
        let is_system_new =
            leading.contains(&PartitionId::SYSTEM) && !self.leading.contains(&PartitionId::SYSTEM);
        self.leading = leading;
        let (mut step, rest) = self.parts(now, out);
        if is_system_new && let Some(system) = rest.partitions.get_mut(&PartitionId::SYSTEM) {
            rest.namespaces.take_up(&mut step, system);
            rest.unready.insert(PartitionId::SYSTEM);
        }
        let mut kept = VecDeque::new();
        for it in std::mem::take(rest.parked) {
            let partition = it.what.partition();
            match rest.partitions.get_mut(&partition) {
                Some(leader) if leader.leads() => {
                    rest.unready.insert(partition);
                    ask(&mut step, leader, rest.namespaces, it.token, it.what);
                }
                _ => kept.push_back(it),
            }
        }
        *rest.parked = kept;
    }

    /// What a step may use, and the parts of the shard it works on.
    fn parts<'a>(&'a mut self, now: Instant, out: &'a mut Vec<Effect>) -> (Step<'a>, Rest<'a>) {
        let (read, at) = self.wall;
        let passed = i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
        let step = Step {
            now,
            wall: Timestamp(read.0.saturating_add(passed)),
            room: self.room,
            limits: &self.limits,
            dice: &mut self.dice,
            ticket: &mut self.ticket,
            out,
        };
        let rest = Rest {
            partitions: &mut self.partitions,
            namespaces: &mut self.namespaces,
            compaction: &mut self.compaction,
            parked: &mut self.parked,
            unready: &mut self.unready,
            open_databases: self.open_databases,
        };
        (step, rest)
    }
}

/// The shard without what [`Step`] borrows.
struct Rest<'a> {
    partitions: &'a mut BTreeMap<PartitionId, Partition>,
    namespaces: &'a mut Namespaces,
    compaction: &'a mut Compaction,
    parked: &'a mut VecDeque<Parked>,
    unready: &'a mut BTreeSet<PartitionId>,
    open_databases: usize,
}

/// Ask a partition that leads.
fn ask(
    step: &mut Step<'_>,
    leader: &mut Partition,
    namespaces: &mut Namespaces,
    token: Token,
    what: What,
) {
    let result = match what {
        What::Write(database, draft) => leader.propose(step, database.incarnation, draft, token),
        What::Read(database, draft) => {
            leader.read(step, token, database.incarnation, draft);
            Ok(())
        }
        What::CreateNamespace(namespace) => {
            namespaces.want(step, leader, token, namespace);
            Ok(())
        }
        What::CreateDatabase(database, namespace) => {
            let draft = Draft::lifecycle(Kind::Create, namespace.as_str());
            leader.propose(step, database.incarnation, draft, token)
        }
    };
    if let Err(error) = result {
        step.reply(token, Err(error));
    }
}
