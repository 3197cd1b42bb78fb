//! What whole nodes live in: virtual time, a network, log disks, databases, crashes. Every choice comes from
//! the seed.
//!
//! A node here is the product's own core, log and SQL; the world does what the driver and the disk do. A
//! killed process loses its memory; when the power goes, its disks also lose what was not synced, or part of
//! it: the log's segments, and the databases, which lie in [`crate::vfs`]. The network delays, reorders, duplicates and drops. Faults stop at
//! [`FAULTS_END`], and then everything must settle.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::collections::btree_map;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use debros::catalog;
use debros::catalog::Catalog;
use debros::raft;
use debros::shard::Shard;
use debros::shard::ShardBoot;
use debros::shard::event::Answer;
use debros::shard::event::Effect;
use debros::shard::event::Event;
use debros::shard::event::Ticket;
use debros::shard::event::Token;
use debros::shard::partition::PartitionBoot;
use debros::shard::request::SubmitError;
use debros::sql::Checkpointer;
use debros::sql::Database;
use debros::sql::Entry;
use debros::sql::Fault;
use debros::sql::OpenError;
use debros::sql::Rest;
use debros::sql::Role;
use debros::sql::Share;
use debros::sql::Vfs;
use debros::sql::sync_wal;
use debros::types::DatabaseId;
use debros::types::Dice;
use debros::types::Floor;
use debros::types::HardState;
use debros::types::Incarnation;
use debros::types::Instant;
use debros::types::LogIndex;
use debros::types::Namespace;
use debros::types::PartitionId;
use debros::types::ReplicaId;
use debros::types::ShardId;
use debros::types::Term;
use debros::types::Timestamp;
use debros::wal::log::Log;
use debros::wal::log::LogIo;
use debros::wal::log::Options;
use debros::wal::record;
use debros::wal::record::EntryId;
use debros::wal::record::Generation;
use debros::wal::record::Lsn;
use debros::wal::record::Record;
use debros::wal::record::SegmentId;
use debros::wal::recovery::recover;
use debros::wire::command::CommandLimits;
use debros::wire::command::Mode;
use debros::wire::command::RequestKey;
use debros::wire::command::Results;
use debros::wire::command::Stamp;
use debros::wire::command::Value;
use debros::wire::command::draft::Draft;
use debros::wire::rows::StatementResult;

use crate::disk::Disk;
use crate::vfs;
use crate::vfs::Lasts;
use crate::vfs::Sickness;

/// Faults happen before this; afterwards everything must settle.
pub(crate) const FAULTS_END: Duration = Duration::from_secs(6);
/// Virtual time at which a run must have settled.
const SETTLED_BY: Duration = Duration::from_mins(1);
/// How far apart the events of one turn may be.
const TURN_MAX: Duration = Duration::from_millis(2);
/// How wrong a clock may be, in milliseconds.
const SKEW_MAX_MS: u64 = 5_000;
const STEPS_MAX: usize = 2_000_000;
const N_PARTITIONS: u16 = 2;
const LIMITS: CommandLimits = CommandLimits {
    steps: 1 << 40,
    temp_bytes: 1 << 30,
    database_bytes: 1 << 40,
    result_bytes: 1 << 30,
    result_rows: 1 << 30,
    value_bytes: 1 << 20,
};

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) n_nodes: usize,
    pub(crate) n_crashes: u64,
    pub(crate) n_writes: u64,
    /// Bytes of kept log at which it is compacted.
    pub(crate) log_bytes: usize,
    /// Databases a node may have open.
    pub(crate) open_databases: usize,
    /// Once in how many effects on databases the power goes in the middle; zero is never.
    pub(crate) cut_once_in: u64,
}

enum Happening {
    Step(Event),
    /// What the log wrote is on the medium.
    LogDone,
    Prepared(SegmentId, u64),
    /// The shell looks at its clock.
    Clock,
    /// A client sends its next request.
    Client(u64),
    Crash,
    Restart,
    /// From now on nothing goes wrong any more.
    FaultsEnd,
}

/// What a request wants.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Namespace,
    /// A row of this number, which is the token of the first request for it.
    Row(u64),
}

/// Requests that are sent again, under the same key: what is decided by a seed of its own.
struct Resending {
    once_in: u64,
    dice: Dice,
    /// Rows that were asked for.
    rows: Vec<(DatabaseId, u64)>,
    /// What the requests for a row were told.
    told: BTreeMap<u64, Vec<StatementResult>>,
    /// Rows for which one was told so without having to be reminded.
    done: BTreeSet<u64>,
}

/// A request, and which life of which node has to answer it.
struct Asked {
    wish: Wish,
    node: usize,
    life: u32,
}

/// What the log's disk is syncing.
#[derive(Clone, Copy, Debug)]
enum Syncing {
    Names,
    Segment(SegmentId),
}

/// One node: alive, or only its disks.
struct Node {
    shard: Option<Shard>,
    log: Option<Log>,
    is_log_busy: bool,
    syncing: Option<Syncing>,
    disk: Disk,
    dir: PathBuf,
    databases: BTreeMap<DatabaseId, Database>,
    manifests: BTreeMap<PartitionId, BTreeMap<Incarnation, Floor>>,
    /// Being written.
    manifests_ahead: BTreeMap<PartitionId, BTreeMap<Incarnation, Floor>>,
    /// Milliseconds that its clock is ahead of the world's, or behind.
    skew: i64,
    unpersisted: VecDeque<(Lsn, Ticket)>,
    catalog: Catalog,
    /// What the log still has to begin with.
    births: Vec<Record>,
    life: u32,
    timeout: Option<Instant>,
}

/// How each request ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Done,
    NotExecuted,
    Unknown,
}

pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    /// Decides where the power goes, and nothing else.
    cut_dice: Dice,
    now: Instant,
    agenda: BTreeMap<(Instant, u64), (usize, u32, Happening)>,
    planned: u64,
    nodes: Vec<Node>,
    wishes: BTreeMap<Token, Asked>,
    pub(crate) ends: BTreeMap<Token, End>,
    /// Creations under way between partitions: token, node and life, namespace.
    asks: BTreeMap<Token, (usize, u32, Namespace)>,
    next_token: u64,
    n_written: u64,
    leaders: BTreeMap<(PartitionId, Term), ReplicaId>,
    pub(crate) trace: String,
    pub(crate) n_compacted: u64,
    pub(crate) n_crashed: u64,
    /// Requests that were told what an earlier one had been told.
    pub(crate) n_replayed: u64,
    resending: Option<Resending>,
    /// Times the power went in the middle of something.
    pub(crate) n_cut: u64,
    vfs: Vfs,
}

/// Tokens of asks between partitions, above those of clients.
const ASK: u64 = 1 << 32;
const NAMESPACES: [&str; 3] = ["a", "b", "c"];

impl World {
    /// Run one cluster to its end.
    pub(crate) fn run(seed: u64, plan: Plan) -> Self {
        Self::run_with(seed, plan, None)
    }

    /// The same, and every request for a row has a key; one in `once_in` is an earlier one, sent again.
    pub(crate) fn run_resending(seed: u64, plan: Plan, once_in: u64) -> Self {
        let resending = Resending {
            once_in,
            dice: Dice::new(seed ^ 0x1de3),
            rows: Vec::new(),
            told: BTreeMap::new(),
            done: BTreeSet::new(),
        };
        Self::run_with(seed, plan, Some(resending))
    }

    fn run_with(seed: u64, plan: Plan, resending: Option<Resending>) -> Self {
        vfs::reset();
        let nodes = (0..plan.n_nodes).map(|at| Node {
            shard: None,
            log: None,
            is_log_busy: false,
            syncing: None,
            disk: Disk::default(),
            dir: PathBuf::from(format!("/node{at}")),
            databases: BTreeMap::new(),
            manifests: BTreeMap::new(),
            manifests_ahead: BTreeMap::new(),
            skew: 0,
            unpersisted: VecDeque::new(),
            catalog: Catalog::default(),
            births: Vec::new(),
            life: 0,
            timeout: None,
        });
        let mut world = Self {
            plan,
            dice: Dice::new(seed),
            cut_dice: Dice::new(seed ^ 0xcafe),
            now: Instant::START,
            agenda: BTreeMap::new(),
            planned: 0,
            nodes: nodes.collect(),
            wishes: BTreeMap::new(),
            ends: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_token: 1,
            n_written: 0,
            leaders: BTreeMap::new(),
            trace: String::new(),
            n_compacted: 0,
            n_crashed: 0,
            n_replayed: 0,
            resending,
            n_cut: 0,
            vfs: vfs::vfs(),
        };
        for node in 0..plan.n_nodes {
            world.start(node);
        }
        for client in 0..4 {
            let at = world.after(Duration::from_millis(10 * client));
            world.plan(at, 0, Happening::Client(client));
        }
        for _ in 0..plan.n_crashes {
            let node = world.below(plan.n_nodes);
            let delay = world.roll_below(FAULTS_END);
            let at = world.after(Duration::from_micros(delay));
            world.plan(at, node, Happening::Crash);
        }
        world.plan(Instant::from_start(FAULTS_END), 0, Happening::FaultsEnd);
        for _ in 0..STEPS_MAX {
            if world.is_settled() {
                world.check();
                return world;
            }
            assert!(world.now < Instant::from_start(SETTLED_BY), "not settled: {}", world.tail());
            world.turn();
        }
        panic!("too many steps: {}", world.tail());
    }

    fn tail(&self) -> String {
        let lines: Vec<_> = self.trace.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn roll_below(&mut self, limit: Duration) -> u64 {
        self.dice.below(u64::try_from(limit.as_micros()).expect("a short time"))
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.dice.below(n as u64)).expect("smaller than a usize")
    }

    fn micros(&mut self, from: u64, to: u64) -> Instant {
        let delay = from + self.dice.below(to - from);
        self.after(Duration::from_micros(delay))
    }

    fn after(&self, delay: Duration) -> Instant {
        self.now.after(delay)
    }

    fn plan(&mut self, at: Instant, node: usize, happening: Happening) {
        self.planned += 1;
        let life = self.nodes[node].life;
        self.agenda.insert((at, self.planned), (node, life, happening));
    }

    fn note(&mut self, what: &str) {
        let at = self.now.since(Instant::START).as_micros();
        writeln!(self.trace, "{at} {what}").expect("a String takes all");
    }

    /// Let the next thing happen.
    fn turn(&mut self) {
        let timeouts = self.nodes.iter().enumerate().filter_map(|(id, it)| Some((it.timeout?, id)));
        let timeout = timeouts.min();
        let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
        match (timeout, planned) {
            (None, None) => panic!("nothing will ever happen: {}", self.tail()),
            (Some((at, node)), planned) if planned.is_none_or(|it| at < it) => {
                self.now = self.now.max(at);
                self.step_log(node);
                self.step(node, Event::Timeout);
            }
            _ => {
                let ((at, _), (node, life, happening)) = self.agenda.pop_first().expect("planned");
                self.now = self.now.max(at);
                self.happen(node, life, happening);
            }
        }
    }

    fn happen(&mut self, id: usize, life: u32, happening: Happening) {
        let is_same_life = self.nodes[id].life == life && self.nodes[id].shard.is_some();
        match happening {
            Happening::Client(client) => self.client(client),
            Happening::Crash if self.nodes[id].shard.is_some() => self.crash(id),
            Happening::Restart => self.start(id),
            Happening::Crash | Happening::FaultsEnd => {}
            _ if !is_same_life => {} // nobody is left to hear it
            Happening::Step(event) => {
                let mut events = vec![event];
                if self.dice.below(4) == 0 {
                    let n = 1 + self.below(3);
                    events.extend(self.pull(id, life, n));
                }
                self.step_all(id, events);
            }
            Happening::Clock => self.look_at_clock(id),
            Happening::LogDone => self.on_log_done(id),
            Happening::Prepared(segment, size) => {
                let node = &mut self.nodes[id];
                node.disk.sync_names();
                node.log.as_mut().expect("it is alive").on_prepared(segment, size);
                self.step_log(id);
            }
        }
    }

    /// Take up to `n` events of a node that are about to happen: they come in the same turn of its loop.
    fn pull(&mut self, id: usize, life: u32, n: usize) -> Vec<Event> {
        let until = (self.after(TURN_MAX), u64::MAX);
        let soon = self
            .agenda
            .range(..until)
            .filter(|(_, it)| (it.0, it.1) == (id, life) && matches!(it.2, Happening::Step(_)));
        let keys: Vec<_> = soon.map(|(key, _)| *key).take(n).collect();
        let pulled = keys.iter().map(|key| match self.agenda.remove(key) {
            Some((_, _, Happening::Step(event))) => event,
            _ => unreachable!("it was just seen"),
        });
        pulled.collect()
    }

    /// Now and then somebody has set the clock meanwhile, forwards or backwards.
    fn look_at_clock(&mut self, id: usize) {
        if self.dice.below(2) == 0 {
            self.nodes[id].skew = self.roll_skew();
        }
        let wall = self.wall(id);
        self.step(id, Event::Clock { wall });
        self.plan_clock(id);
    }

    fn plan_clock(&mut self, id: usize) {
        let at = self.micros(50_000, 500_000);
        self.plan(at, id, Happening::Clock);
    }

    fn roll_skew(&mut self) -> i64 {
        i64::try_from(self.dice.below(2 * SKEW_MAX_MS)).expect("small") - SKEW_MAX_MS.cast_signed()
    }

    /// What a node's clock says.
    fn wall(&self, id: usize) -> Timestamp {
        let since = self.now.since(Instant::START).as_millis();
        let since = i64::try_from(since).expect("a short time");
        Timestamp(1_700_000_000_000 + since + self.nodes[id].skew)
    }

    // --- clients ------------------------------------------------------------------------------------

    /// Send a request to some node, and come back later.
    fn client(&mut self, client: u64) {
        if self.n_written >= self.plan.n_writes {
            return;
        }
        let at = self.micros(200, 40_000);
        self.plan(at, 0, Happening::Client(client));
        let name = NAMESPACES[self.below(NAMESPACES.len())];
        let namespace = Namespace::new(name).expect("a name");
        let node = self.below(self.plan.n_nodes);
        let row = self.nodes[node].catalog.get(&namespace).cloned();
        let is_live = row.as_ref().is_some_and(|it| it.state == catalog::State::Live);
        let to_leader = match &row {
            Some(row) if is_live => self.leader(row.partition).unwrap_or(node),
            _ => self.leader(PartitionId::SYSTEM).unwrap_or(node),
        };
        if self.nodes[to_leader].shard.is_none() {
            return;
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        let life = self.nodes[to_leader].life;
        let mut ask = |wish| self.wishes.insert(token, Asked { wish, node: to_leader, life });
        let event = match row {
            Some(row) if is_live => {
                let database =
                    DatabaseId { partition: row.partition, incarnation: row.incarnation };
                let resending = self.resending.as_mut();
                let row = resending.map_or(token.0, |it| it.choose(database, token.0));
                ask(Wish::Row(row));
                self.n_written += 1;
                let mut draft = insert(row);
                if self.resending.is_some() {
                    let key = format!("row {row}");
                    let key = RequestKey::new(key.as_bytes(), [7; 16]).expect("it is printable");
                    draft.key(key).expect("it fits");
                }
                Event::Write { token, database, draft }
            }
            _ => {
                ask(Wish::Namespace);
                Event::CreateNamespace { token, namespace }
            }
        };
        self.step(to_leader, event);
    }

    /// Who leads a partition, as a client would find out.
    fn leader(&self, partition: PartitionId) -> Option<usize> {
        (0..self.plan.n_nodes).find(|at| {
            let shard = self.nodes[*at].shard.as_ref();
            let replica = shard.and_then(|it| it.replica(partition));
            replica.is_some_and(|it| it.role() == raft::Role::Leader)
        })
    }

    fn on_reply(&mut self, token: Token, result: Result<Answer, SubmitError>) {
        if let Some((node, life, namespace)) = self.asks.remove(&token) {
            if self.nodes[node].life == life && self.nodes[node].shard.is_some() {
                let at = self.micros(10, 500);
                self.plan(at, node, Happening::Step(Event::Answered { namespace, result }));
            }
            return;
        }
        if token.0 >= ASK {
            return; // whoever asked has crashed since
        }
        let end = match result {
            Ok(answer) => {
                self.on_answer(token, answer);
                End::Done
            }
            Err(SubmitError::OutcomeUnknown) => End::Unknown,
            Err(SubmitError::NoLeader | SubmitError::Overloaded) => End::NotExecuted,
            Err(error) => panic!("{token:?} got {error}"),
        };
        assert!(self.wishes.contains_key(&token), "{token:?} was never asked");
        let before = self.ends.insert(token, end);
        assert_eq!(before, None, "{token:?} was answered twice");
    }

    /// All requests for a row are told the same, and one of them at most without a look at what was kept.
    fn on_answer(&mut self, token: Token, answer: Answer) {
        let asked = self.wishes.get(&token).map(|it| &it.wish);
        let (Some(Wish::Row(row)), Some(resending)) = (asked, &mut self.resending) else { return };
        let results = match answer {
            Answer::Results(results) => {
                assert!(resending.done.insert(*row), "row {row} was done twice");
                results
            }
            Answer::Replayed(results) => {
                self.n_replayed += 1;
                results
            }
            Answer::Namespace(_) => panic!("a row is no namespace"),
        };
        let told = resending.told.entry(*row).or_insert_with(|| results.clone());
        assert_eq!(*told, results, "row {row}: told differently");
    }

    // --- nodes --------------------------------------------------------------------------------------

    fn start(&mut self, id: usize) {
        let seed = self.dice.roll();
        self.nodes[id].skew = self.roll_skew();
        let wall = self.wall(id);
        let (n_nodes, now, vfs) = (self.plan.n_nodes, self.now, self.vfs);
        let node = &mut self.nodes[id];
        assert!(node.shard.is_none(), "it is alive");
        node.life += 1;
        let found = recover(&mut node.disk, ShardId(0), 1).expect("the log is whole");
        let mut kept = found.partitions;
        node.births.clear();
        let mut partitions = Vec::new();
        node.catalog = Catalog::default();
        for partition in (0..=N_PARTITIONS).map(PartitionId) {
            let kept = kept.remove(&partition);
            if kept.is_none() {
                node.births.extend(birth(partition, id, n_nodes));
            }
            let floors = node.manifests.get(&partition).cloned().unwrap_or_default();
            let engine_id = DatabaseId { partition, incarnation: Incarnation::ENGINE };
            let engine = node.open(vfs, engine_id, catalog::ENGINE_SCHEMA);
            let incarnations =
                catalog::incarnations_of(&select(engine, catalog::SELECT_INCARNATIONS));
            if partition == PartitionId::SYSTEM {
                for row in catalog::rows_of(&select(engine, catalog::SELECT_NAMESPACES)) {
                    node.catalog.fold(row);
                }
            }
            partitions.push(PartitionBoot {
                id: partition,
                replica: replica(id),
                stamp: kept.as_ref().map_or(Timestamp(0), |it| it.last_stamp),
                recovered: kept.map_or_else(|| newborn(n_nodes), recovered),
                incarnations,
                floors,
            });
        }
        let mut options = Options::new(ShardId(0), 1, seed);
        options.segment_size_first = 64 << 10;
        options.segment_size = 128 << 10;
        options.batch_size_max = 32 << 10;
        node.log = Some(Log::new(options, found.tail));
        node.is_log_busy = false;
        node.unpersisted.clear();
        node.shard = Some(Shard::new(ShardBoot {
            partitions,
            catalog: node.catalog.clone(),
            n_partitions: N_PARTITIONS,
            limits: LIMITS,
            log_bytes: self.plan.log_bytes,
            fence_log_bytes: usize::MAX,
            open_databases: self.plan.open_databases,
            seed,
            now,
            wall,
        }));
        self.note(&format!("n{id} starts"));
        self.plan_clock(id);
        self.step_log(id);
    }

    fn crash(&mut self, id: usize) {
        let mut dice = Dice::new(self.dice.roll());
        let is_power_lost = dice.below(3) > 0;
        self.end(id, is_power_lost, dice);
    }

    /// The power goes in the middle of what a node does to its databases: the calls that are left fail.
    fn cut(&mut self, id: usize) {
        self.n_cut += 1;
        vfs::stop();
        let dice = Dice::new(self.cut_dice.roll());
        self.end(id, true, dice);
        vfs::heal();
    }

    /// Whether the power is to go in the middle of the next effect. Then it is set up to.
    fn plan_cut(&mut self) {
        let is_faulty = self.now < Instant::from_start(FAULTS_END);
        let once_in = self.plan.cut_once_in;
        if is_faulty && once_in > 0 && self.cut_dice.below(once_in) == 0 {
            let magnitude = 1 + self.cut_dice.below(8);
            let n = 1 + self.cut_dice.below(1 << magnitude);
            vfs::fail(Some((n, Sickness::Io, Lasts::FromThenOn)));
        }
    }

    /// After an effect: whether it all went well. If not, the node is gone.
    fn is_whole(&mut self, id: usize, is_well: bool) -> bool {
        let has_failed = vfs::failed().is_some();
        assert!(is_well || has_failed, "the machine is well");
        vfs::fail(None);
        if has_failed {
            self.cut(id);
        }
        !has_failed
    }

    fn end(&mut self, id: usize, is_power_lost: bool, mut dice: Dice) {
        self.n_crashed += 1;
        let node = &mut self.nodes[id];
        node.shard = None;
        node.log = None;
        node.timeout = None;
        node.databases.clear();
        // Each is replaced as a whole: the old one is found, or the new one.
        for (partition, floors) in std::mem::take(&mut node.manifests_ahead) {
            if dice.below(2) == 0 {
                node.manifests.insert(partition, floors);
            }
        }
        if is_power_lost {
            node.disk.crash(&mut dice);
            vfs::crash_under(&node.dir, &mut dice);
        }
        self.note(&format!("n{id} crashes, power lost: {is_power_lost}"));
        // Whoever waits there waits in vain.
        let life = self.nodes[id].life;
        let lost: Vec<_> =
            self.asks.iter().filter(|(_, it)| it.0 == id && it.1 == life).map(|it| *it.0).collect();
        for token in lost {
            self.asks.remove(&token);
        }
        let at = self.micros(1_000, 900_000);
        self.plan(at, id, Happening::Restart);
    }

    /// The driver's loop turn: step, then hand over all effects in order.
    fn step(&mut self, id: usize, event: Event) {
        self.step_all(id, vec![event]);
    }

    /// The same with all the events that are at hand.
    fn step_all(&mut self, id: usize, events: Vec<Event>) {
        let now = self.now;
        let node = &mut self.nodes[id];
        let Some(shard) = node.shard.as_mut() else { return };
        let what = events.iter().map(brief).collect::<Vec<_>>().join(" ");
        let mut out = Vec::new();
        for event in events {
            if matches!(event, Event::ManifestsWritten) {
                node.manifests.append(&mut node.manifests_ahead);
            }
            shard.step(now, event, &mut out);
        }
        shard.step(now, Event::TurnEnd, &mut out);
        node.timeout = shard.next_timeout();
        self.note(&format!("n{id} {what} -> {}", out.len()));
        self.check_leaders(id);
        for effect in out {
            if self.nodes[id].shard.is_some() {
                self.perform(id, effect);
            }
        }
        self.step_log(id);
    }

    fn perform(&mut self, id: usize, effect: Effect) {
        match effect {
            Effect::Send { partition, message } => self.send(id, partition, message),
            Effect::Persist { ticket, records } => {
                let node = &mut self.nodes[id];
                let log = node.log.as_mut().expect("it is alive");
                self.n_compacted +=
                    records.iter().filter(|it| matches!(it, Record::Compacted { .. })).count()
                        as u64;
                let lsn = log.stage(&records);
                node.unpersisted.push_back((lsn, ticket));
            }
            Effect::Apply { database, commands } => self.apply(id, database, commands),
            Effect::Read { .. } => unreachable!("the clients of this world only write"),
            Effect::Reply { token, result } => self.on_reply(token, result),
            Effect::Ask { namespace, database } => self.ask(id, namespace, database),
            Effect::CatalogChanged { row } => self.nodes[id].catalog.fold(row),
            Effect::Sync { databases } => {
                // At once: what is committed until the end is reported is not covered.
                self.plan_cut();
                let mut paths = databases.iter().map(|it| self.nodes[id].path(*it));
                let is_well = paths.all(|it| sync_wal(&it, self.vfs).is_ok());
                if !self.is_whole(id, is_well) {
                    return;
                }
                let at = self.micros(100, 20_000);
                self.plan(at, id, Happening::Step(Event::Synced));
            }
            Effect::WriteManifests { floors } => {
                let floors = floors.into_iter().map(|(id, it)| (id, it.into_iter().collect()));
                let node = &mut self.nodes[id];
                assert!(node.manifests_ahead.is_empty(), "manifests are written one at a time");
                node.manifests_ahead = floors.collect();
                let at = self.micros(100, 20_000);
                self.plan(at, id, Happening::Step(Event::ManifestsWritten));
            }
            Effect::Checkpoint { database } => {
                let path = self.nodes[id].path(database);
                let checkpointer = Checkpointer::open(&path, self.vfs);
                let mut checkpointer = checkpointer.expect("the machine is well");
                checkpointer.checkpoint().expect("the machine is well");
            }
            Effect::Evict { database } => {
                let path = self.nodes[id].path(database);
                self.plan_cut();
                let checkpointer = Checkpointer::open(&path, self.vfs).ok();
                let done = checkpointer.map(|mut it| it.checkpoint().and_then(|_| it.touch()));
                self.nodes[id].databases.remove(&database);
                if !self.is_whole(id, matches!(done, Some(Ok(_)))) {
                    return;
                }
                let at = self.micros(100, 5_000);
                self.plan(at, id, Happening::Step(Event::Evicted { database }));
            }
            Effect::LetGo { .. } => panic!("nothing is fenced here"),
            Effect::Stop { reason } => panic!("n{id} stops: {reason}"),
        }
    }

    fn send(&mut self, from: usize, partition: PartitionId, message: raft::Message) {
        let to = usize::try_from(message.to().0 - 1).expect("a small number");
        let is_faulty = self.now < Instant::from_start(FAULTS_END);
        let copies = match self.dice.below(100) {
            0..10 if is_faulty => 0,
            10..15 if is_faulty => 2,
            _ => 1,
        };
        assert_ne!(from, to, "a replica talks to itself");
        for _ in 0..copies {
            let at = self.micros(50, if is_faulty { 20_000 } else { 1_000 });
            let event = Event::Message { partition, message: message.clone() };
            self.plan(at, to, Happening::Step(event));
        }
    }

    /// Apply on the core what it lets run, then the rest on a thread; each part is told by itself.
    fn apply(&mut self, id: usize, database: DatabaseId, commands: Vec<(LogIndex, Bytes)>) {
        let vfs = self.vfs;
        let mut dice = Dice::new(self.dice.roll());
        let is_impatient = dice.below(3) == 0;
        let entries: Vec<_> =
            commands.into_iter().map(|(index, command)| Entry { index, command }).collect();
        let mut enough = |_| is_impatient && dice.below(8) == 0;
        self.plan_cut();
        let open = self.nodes[id].try_open(vfs, database, "");
        let ran = open.and_then(|open| {
            let here = open.apply_within(&entries, Share::Inline, &mut enough)?;
            let there = open.apply(&entries[here.applied.len()..])?;
            Ok([here, there])
        });
        if !self.is_whole(id, ran.is_ok()) {
            assert!(is_stop(&ran), "{ran:?}");
            return;
        }
        let [here, there] = ran.expect("the machine is well");
        assert_eq!(there.rest, Rest::None, "nobody else has the database");
        let mut at = self.now;
        for batch in [here, there].into_iter().filter(|it| !it.applied.is_empty()) {
            let event = Event::Applied { database, applied: batch.applied, size: batch.size };
            at = at.max(self.micros(5, 3_000));
            self.plan(at, id, Happening::Step(event));
        }
    }

    /// Have the leader of the hosting partition create a database, wherever it is.
    fn ask(&mut self, id: usize, namespace: Namespace, database: DatabaseId) {
        let Some(to) = self.leader(database.partition) else {
            let result = Err(SubmitError::NoLeader);
            let at = self.micros(100, 1_000);
            let event = Event::Answered { namespace, result };
            return self.plan(at, id, Happening::Step(event));
        };
        self.next_token += 1;
        let token = Token(ASK + self.next_token);
        self.asks.insert(token, (id, self.nodes[id].life, namespace.clone()));
        let at = self.micros(100, 5_000);
        let event = Event::CreateDatabase { token, database, namespace };
        self.plan(at, to, Happening::Step(event));
    }

    // --- the log's disk -----------------------------------------------------------------------------

    /// Give the log's disk what there is to do, one write at a time.
    fn step_log(&mut self, id: usize) {
        let now = self.now;
        let mut prepared = Vec::new();
        let mut is_started = false;
        let node = &mut self.nodes[id];
        let Some(log) = node.log.as_mut() else { return };
        while !node.is_log_busy {
            let Some(io) = log.next_io(now) else { break };
            match io {
                LogIo::SyncNames => {
                    node.syncing = Some(Syncing::Names);
                    node.is_log_busy = true;
                }
                LogIo::Sync { segment } => {
                    node.syncing = Some(Syncing::Segment(segment));
                    node.is_log_busy = true;
                }
                LogIo::Write { segment, offset, bytes, .. } => {
                    node.disk.write(segment, offset, bytes);
                    node.syncing = Some(Syncing::Segment(segment));
                    node.is_log_busy = true;
                }
                LogIo::Prepare { segment, size, recycled } => {
                    match recycled {
                        Some(old) => node.disk.move_to(old, segment),
                        None => node.disk.create(segment, size),
                    }
                    prepared.push((segment, size));
                }
                LogIo::Remove { segment } => node.disk.remove(segment),
            }
            is_started = node.is_log_busy;
        }
        if let Some(seal_at) = log.next_timeout() {
            node.timeout = Some(node.timeout.map_or(seal_at, |it| it.min(seal_at)));
        }
        if is_started {
            let at = self.micros(50, 3_000);
            self.plan(at, id, Happening::LogDone);
        }
        for (segment, size) in prepared {
            let at = self.micros(500, 5_000);
            self.plan(at, id, Happening::Prepared(segment, size));
        }
    }

    fn on_log_done(&mut self, id: usize) {
        let now = self.now;
        let node = &mut self.nodes[id];
        let log = node.log.as_mut().expect("it is alive");
        let was_ready = log.is_ready();
        match node.syncing.take().expect("something was written") {
            Syncing::Names => node.disk.sync_names(),
            Syncing::Segment(segment) => node.disk.sync(segment),
        }
        node.is_log_busy = false;
        let durable = log.on_io_done(now);
        if !was_ready && log.is_ready() {
            if !node.births.is_empty() {
                log.stage(&std::mem::take(&mut node.births));
            }
            self.step(id, Event::Start);
        }
        let mut last = None;
        let node = &mut self.nodes[id];
        while let Some((_, ticket)) = node.unpersisted.pop_front_if(|(lsn, _)| *lsn <= durable) {
            last = Some(ticket);
        }
        match last {
            Some(ticket) => self.step(id, Event::Persisted { ticket }),
            None => self.step_log(id),
        }
    }

    // --- checks -------------------------------------------------------------------------------------

    /// At most one replica leads in a term.
    fn check_leaders(&mut self, id: usize) {
        let Some(shard) = &self.nodes[id].shard else { return };
        for partition in (0..=N_PARTITIONS).map(PartitionId) {
            let seen = shard.replica(partition).expect("it has a replica of each");
            if seen.role() == raft::Role::Leader {
                let key = (partition, seen.term());
                let leader = *self.leaders.entry(key).or_insert_with(|| replica(id));
                assert_eq!(leader, replica(id), "two leaders of {key:?}");
            }
        }
    }

    /// Everybody is up, everything is answered, and all replicas have applied the same.
    fn is_settled(&self) -> bool {
        if self.now < Instant::from_start(FAULTS_END) || self.n_written < self.plan.n_writes {
            return false;
        }
        // A node that crashed has forgotten what it was asked; its client knows nothing.
        let is_answered = |(token, asked): (&Token, &Asked)| {
            self.ends.contains_key(token) || self.nodes[asked.node].life != asked.life
        };
        let shards: Option<Vec<_>> = self.nodes.iter().map(|it| it.shard.as_ref()).collect();
        let Some(shards) = shards else { return false };
        let agree = (0..=N_PARTITIONS).map(PartitionId).all(|partition| {
            let mut positions = shards.iter().map(|it| {
                let it = it.replica(partition).expect("it has a replica of each");
                (it.committed(), it.handed_out(), it.last())
            });
            let first = positions.next().expect("there is a node");
            first.0 == first.2 && first.1 == first.0 && positions.all(|it| it == first)
        });
        agree
            && self.wishes.iter().all(is_answered)
            && shards.iter().all(|it| it.is_quiet())
            // Who follows knows whom, and says that it is ready.
            && shards.iter().all(|it| it.status().n_leaderless == 0)
            && !self.agenda.values().any(|(_, _, it)| matches!(it, Happening::Step(_)))
    }

    fn check(&mut self) {
        let vfs = self.vfs;
        let ids: Vec<_> = self.nodes.iter().map(|it| it.files()).collect();
        for other in &ids[1..] {
            assert_eq!(ids[0], *other, "nodes have different databases");
        }
        for database in &ids[0] {
            let mut hashes = self.nodes.iter_mut().map(|it| {
                let open = it.open(vfs, *database, "");
                (open.content_hash().expect("it can be read"), open.applied())
            });
            let first = hashes.next().expect("there is a node");
            for hash in hashes {
                assert_eq!(first, hash, "{database:?} differs");
            }
        }
        self.check_rows();
    }

    /// Done is there, not executed is not, and nothing is there twice; time never went backwards.
    fn check_rows(&mut self) {
        let vfs = self.vfs;
        let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
        let names = NAMESPACES.map(|it| Namespace::new(it).expect("a name"));
        for name in &names {
            let Some(row) = self.nodes[0].catalog.get(name).cloned() else { continue };
            let id = DatabaseId { partition: row.partition, incarnation: row.incarnation };
            let open = self.nodes[0].open(vfs, id, "");
            let sql = "SELECT id, at FROM t ORDER BY rowid";
            let Ok(results) = try_select(open, sql) else { continue };
            let StatementResult::Rows(found) = &results[0] else { panic!("a query gives rows") };
            let values: Vec<_> = found.values().collect();
            let mut before = i64::MIN;
            for pair in values.chunks(2) {
                let [Value::Integer(id), Value::Integer(at)] = pair else {
                    panic!("not as written: {pair:?}")
                };
                assert!(before <= *at, "time went backwards in {name}");
                before = *at;
                *rows.entry(u64::try_from(*id).expect("positive")).or_default() += 1;
            }
        }
        let wanted = |token: &Token| match self.wishes[token].wish {
            Wish::Row(row) => Some(row),
            Wish::Namespace => None,
        };
        // By any of the requests for it.
        let is_possible = |token: &&Token| self.ends.get(token) != Some(&End::NotExecuted);
        let possible: BTreeSet<_> =
            self.wishes.keys().filter(is_possible).filter_map(wanted).collect();
        for (token, end) in &self.ends {
            let Some(row) = wanted(token) else { continue };
            let n = rows.get(&row).copied().unwrap_or(0);
            match end {
                End::Done => assert_eq!(n, 1, "{token:?} was acknowledged"),
                End::NotExecuted if possible.contains(&row) => {}
                End::NotExecuted => assert_eq!(n, 0, "{token:?} was said not to be executed"),
                End::Unknown => assert!(n <= 1, "{token:?} was applied {n} times"),
            }
        }
        assert!(rows.values().all(|it| *it == 1), "something was applied twice");
    }
}

impl Resending {
    /// The row that a request is for: one of its own, or one that was asked for before.
    fn choose(&mut self, database: DatabaseId, own: u64) -> u64 {
        let before: Vec<_> = self.rows.iter().filter(|(it, _)| *it == database).collect();
        if self.dice.below(self.once_in) == 0 && !before.is_empty() {
            let at = self.dice.below(u64::try_from(before.len()).expect("a count"));
            return before[usize::try_from(at).expect("a place")].1;
        }
        self.rows.push((database, own));
        own
    }
}

impl Node {
    /// Its connection to a database, which is created if the log says so.
    fn open(&mut self, vfs: Vfs, id: DatabaseId, schema: &str) -> &mut Database {
        self.try_open(vfs, id, schema).expect("it can be opened")
    }

    /// The same on a machine that may fail.
    fn try_open(
        &mut self,
        vfs: Vfs,
        id: DatabaseId,
        schema: &str,
    ) -> Result<&mut Database, OpenError> {
        let path = self.path(id);
        let floors = self.manifests.get(&id.partition);
        let floor =
            floors.and_then(|it| it.get(&id.incarnation)).copied().unwrap_or_default().index;
        let vacant = match self.databases.entry(id) {
            btree_map::Entry::Occupied(open) => return Ok(open.into_mut()),
            btree_map::Entry::Vacant(it) => it,
        };
        if !vfs::files_under(&path).contains(&path) {
            assert_eq!(floor, LogIndex(0), "{id:?} has been lost");
            Database::create(&path, vfs, schema)?;
        }
        let is_engine = id.incarnation == Incarnation::ENGINE;
        let role = if is_engine { Role::Engine } else { Role::Tenant };
        let open = Database::open(&path, vfs, role)?;
        assert!(open.applied() >= floor, "{id:?} is behind its floor");
        Ok(vacant.insert(open))
    }

    fn path(&self, id: DatabaseId) -> PathBuf {
        self.dir.join(id.partition.to_string()).join(format!("{}.db", id.incarnation))
    }

    /// All its databases.
    fn files(&self) -> Vec<DatabaseId> {
        let mut found = Vec::new();
        for partition in (0..=N_PARTITIONS).map(PartitionId) {
            for file in vfs::files_under(&self.dir.join(partition.to_string())) {
                let name = file.file_name().and_then(|it| it.to_str());
                let number = name.and_then(|it| it.strip_suffix(".db")?.parse().ok());
                let id = number.map(|it| DatabaseId { partition, incarnation: Incarnation(it) });
                found.extend(id);
            }
        }
        found.sort_unstable();
        found
    }
}

/// Whether what went wrong is the machine's fault, or nothing went wrong.
fn is_stop<T>(ran: &Result<T, OpenError>) -> bool {
    matches!(ran, Ok(_) | Err(OpenError::Fault(Fault::Stop(_))))
}

fn brief(event: &Event) -> String {
    let text = format!("{event:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

fn replica(node: usize) -> ReplicaId {
    ReplicaId(node as u64 + 1)
}

fn insert(row: u64) -> Draft {
    let mut draft = Draft::new(Results::Each, 0);
    let create = "CREATE TABLE IF NOT EXISTS t (id INTEGER, at INTEGER DEFAULT (unixepoch('subsec') * 1000), r INTEGER DEFAULT (random()))";
    draft.statement(Mode::Exec, create).expect("it fits");
    draft.statement(Mode::Exec, "INSERT INTO t (id) VALUES (?)").expect("it fits");
    draft.bind(Value::Integer(i64::try_from(row).expect("small"))).expect("it fits");
    draft
}

fn try_select(
    database: &mut Database,
    sql: &str,
) -> Result<Vec<StatementResult>, debros::wire::rows::StatementError> {
    let stamp = Stamp { incarnation: Incarnation(0), time: Timestamp(0), seed: 0, limits: LIMITS };
    let command = catalog::select(sql).seal(&stamp);
    let outcomes = database.read(&[command], &mut |_| false).expect("the machine is well");
    outcomes.into_iter().next().expect("one outcome")
}

fn select(database: &mut Database, sql: &str) -> Vec<StatementResult> {
    try_select(database, sql).expect("the engine's own statement")
}

/// Where every log of this world begins.
const BORN_AT: EntryId = EntryId { index: LogIndex(1), term: Term(1) };

fn birth(partition: PartitionId, node: usize, n_nodes: usize) -> Vec<Record> {
    let born = newborn(n_nodes);
    vec![
        Record::Generation { partition, generation: Generation(1), replica: replica(node) },
        Record::Restored { partition, entry: BORN_AT },
        Record::ConfState {
            partition,
            conf_state: record::ConfState {
                index: BORN_AT.index,
                voters: born.conf_state.voters,
                ..record::ConfState::default()
            },
        },
        Record::HardState {
            partition,
            hard_state: HardState { term: BORN_AT.term, vote: ReplicaId(0), commit: BORN_AT.index },
        },
    ]
}

fn newborn(n_nodes: usize) -> raft::Recovered {
    raft::Recovered {
        hard_state: HardState { term: BORN_AT.term, vote: ReplicaId(0), commit: BORN_AT.index },
        conf_state: raft::ConfState {
            voters: (0..n_nodes).map(replica).collect(),
            ..raft::ConfState::default()
        },
        compacted: (BORN_AT.index, BORN_AT.term),
        entries: Vec::new(),
    }
}

fn recovered(kept: debros::wal::recovery::RecoveredPartition) -> raft::Recovered {
    let entry = |it: record::Entry| raft::Entry {
        index: it.index,
        term: it.term,
        kind: raft::EntryKind::Command,
        payload: it.payload,
    };
    raft::Recovered {
        hard_state: kept.hard_state,
        conf_state: raft::ConfState { voters: kept.conf_state.voters, ..Default::default() },
        compacted: (kept.compacted.index, kept.compacted.term),
        entries: kept.entries.into_iter().map(entry).collect(),
    }
}
