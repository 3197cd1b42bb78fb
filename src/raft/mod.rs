//! One replica of one partition: elections, replication and commit, over raft-rs.
//!
//! The only folder that names the `raft` crate. Deterministic: no clock, no files, no randomness of its
//! own: raft-rs never elects by itself (R9), the owner calls [`Replica::campaign`] from seeded timers.
//! raft-rs' protobuf parser never sees foreign bytes: messages are built from our own codec's fields.
//!
//! Invariants
//! - Messages a leader sends come out before the entries they carry are persisted (Raft thesis 10.2.1);
//!   what anyone else says comes out only after [`Replica::on_persisted`] covers it.
//! - Entries are handed out in log order, once, only when committed and on this replica's disk.
//!
//! Start reading at [`Replica::drain`].

mod store;

use std::collections::VecDeque;

use ::raft::Config;
use ::raft::INVALID_ID;
use ::raft::NO_LIMIT;
use ::raft::RaftState;
use ::raft::RawNode;
use ::raft::StateRole;
use ::raft::eraftpb;
use bytes::Bytes;

use crate::raft::store::Store;
use crate::types::HardState;
use crate::types::LogIndex;
use crate::types::ReplicaId;
use crate::types::Term;

/// Ticks of leader silence after which votes are granted and a leader without a quorum steps down.
pub const ELECTION_TICKS: usize = 10;
/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Far beyond any life: raft-rs' own election timer, which draws from the thread's randomness, is off.
const NEVER_TICKS: usize = 1 << 40;
/// Bytes of entries in one message.
const MESSAGE_SIZE_MAX: u64 = 1 << 20;
/// Messages on their way to one follower.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// Who takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Those who vote.
    pub voters: Vec<ReplicaId>,
    /// Those who only follow.
    pub learners: Vec<ReplicaId>,
    /// Voters of the configuration that is being left.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Outgoing voters that become learners.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command, or nothing (a new leader's first entry).
    Command,
    /// A change of who takes part, in raft-rs' form.
    Change,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// A command, or nothing.
    pub payload: Bytes,
}

impl Entry {
    fn from_raft(entry: &eraftpb::Entry) -> Self {
        let kind = match entry.entry_type {
            eraftpb::EntryType::EntryNormal => EntryKind::Command,
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
                EntryKind::Change
            }
        };
        Self {
            index: LogIndex(entry.index),
            term: Term(entry.term),
            kind,
            payload: entry.data.clone(),
        }
    }

    fn into_raft(self) -> eraftpb::Entry {
        eraftpb::Entry {
            entry_type: match self.kind {
                EntryKind::Command => eraftpb::EntryType::EntryNormal,
                EntryKind::Change => eraftpb::EntryType::EntryConfChangeV2,
            },
            term: self.term.0,
            index: self.index.0,
            data: self.payload,
            ..Default::default()
        }
    }
}

/// What one replica says to another. Opaque: only a replica reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(eraftpb::Message);

impl Message {
    /// Who said it.
    pub fn from(&self) -> ReplicaId {
        ReplicaId(self.0.from)
    }

    /// Whom it is for.
    pub fn to(&self) -> ReplicaId {
        ReplicaId(self.0.to)
    }

    /// What another says that leads in `term`.
    #[cfg(test)]
    pub(crate) fn of_leader(from: ReplicaId, to: ReplicaId, term: Term) -> Self {
        Self(eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgHeartbeat,
            from: from.0,
            to: to.0,
            term: term.0,
            ..Default::default()
        })
    }
}

/// What the replica wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Say it to another replica.
    Send(Message),
    /// Append and sync, then call [`Replica::on_persisted`] with the number.
    Persist {
        /// Rises with each.
        number: u64,
        /// Term or vote changed.
        hard_state: Option<HardState>,
        /// May be none, when only the hard state changed. Overwrites what stood there.
        entries: Vec<Entry>,
    },
    /// The entry is committed and on this replica's disk.
    Committed(Entry),
}

/// What a replica starts from: a fresh one, or what its log kept.
#[derive(Debug)]
pub struct Recovered {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// Who takes part.
    pub conf_state: ConfState,
    /// Index and term of the entry before the first that is kept.
    pub compacted: (LogIndex, Term),
    /// Those that are kept, without a hole.
    pub entries: Vec<Entry>,
}

/// Why a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the leader")]
pub struct NotLeader;

/// What a replica is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or has no leader to follow.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Decides.
    Leader,
}

/// One node's copy of a partition, as Raft sees it.
pub struct Replica {
    node: RawNode<Store>,
    /// Readies that are not on disk yet, oldest first.
    unpersisted: VecDeque<Unpersisted>,
    handed_out: LogIndex,
    /// The hard state as the log has it, or will once what was given out is persisted.
    logged: HardState,
}

/// A ready on its way to the disk.
struct Unpersisted {
    number: u64,
    must_sync: bool,
    /// What may be said once it is there.
    messages: Vec<eraftpb::Message>,
}

impl Replica {
    /// A replica with the log that its disk kept. Everything committed in it is handed out again (R7).
    pub fn new(id: ReplicaId, recovered: Recovered) -> Self {
        assert_ne!(id.0, INVALID_ID, "a replica has an id");
        let Recovered { hard_state, conf_state, compacted: (first, first_term), entries } =
            recovered;
        let commit = hard_state.commit.max(first);
        let last = entries.last().map_or(first, |it| it.index);
        assert!(commit <= last, "the log ends before what is committed");
        let state = RaftState {
            hard_state: eraftpb::HardState {
                term: hard_state.term.0.max(first_term.0),
                vote: hard_state.vote.0,
                commit: commit.0,
                ..Default::default()
            },
            conf_state: conf_state_into_raft(&conf_state),
        };
        let entries = entries.into_iter().map(Entry::into_raft).collect();
        let store = Store::new(state, (first.0, first_term.0), entries);
        let config = Config {
            id: id.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: NEVER_TICKS,
            max_election_tick: NEVER_TICKS + 1,
            applied: first.0,
            max_size_per_msg: MESSAGE_SIZE_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: NO_LIMIT,
            max_committed_size_per_ready: NO_LIMIT,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store, &logger).expect("the configuration is constant");
        Self { node, unpersisted: VecDeque::new(), handed_out: first, logged: hard_state }
    }

    /// Append a command to the log, if this replica leads. Returns where it stands.
    pub fn propose(&mut self, payload: Bytes) -> Result<(LogIndex, Term), NotLeader> {
        if self.role() != Role::Leader {
            return Err(NotLeader);
        }
        let entry = eraftpb::Entry { data: payload, ..Default::default() };
        let message = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgPropose,
            from: self.node.raft.id,
            entries: vec![entry].into(),
            ..Default::default()
        };
        // Refused while leadership is being transferred.
        self.node.step(message).map_err(|_| NotLeader)?;
        Ok((self.last(), self.term()))
    }

    /// Hear what another replica said. Whether it was its leader saying that it is alive.
    pub fn step(&mut self, message: Message) -> bool {
        use eraftpb::MessageType::{MsgAppend, MsgHeartbeat, MsgPropose, MsgSnapshot};
        let kind = message.0.msg_type;
        // A forwarded proposal could run twice; requests are forwarded a layer above.
        if kind == MsgPropose || message.0.to != self.node.raft.id {
            return false;
        }
        let leads = matches!(kind, MsgAppend | MsgHeartbeat | MsgSnapshot);
        let heard = leads && message.0.term >= self.node.raft.term;
        // An error means that the message makes no sense to us any more, which the sender will learn.
        let _ = self.node.step(message.0);
        heard
    }

    /// One tick of the logical clock: heartbeats, and how long the leader has been silent.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// Ask for votes. May do nothing (a configuration change is not applied yet): look at [`Self::role`]
    /// afterwards and call again (R9).
    pub fn campaign(&mut self) {
        // What raft-rs refuses, the timer repeats.
        let _ = self.node.campaign();
    }

    /// Everything that the replica wants done now, appended to `out`.
    pub fn drain(&mut self, out: &mut Vec<Output>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let number = ready.number();
            out.extend(ready.take_messages().into_iter().map(|it| Output::Send(Message(it))));
            let committed = ready.take_committed_entries();
            let entries = ready.take_entries();
            self.node.mut_store().append(&entries);
            let must_sync = ready.must_sync();
            let messages = ready.take_persisted_messages();
            self.node.advance_append_async(ready);
            // A commit index alone is not worth a sync: it goes along with what is.
            if must_sync {
                let hard_state = self.hard_state_to_log();
                let entries = entries.iter().map(Entry::from_raft).collect();
                out.push(Output::Persist { number, hard_state, entries });
            }
            self.unpersisted.push_back(Unpersisted { number, must_sync, messages });
            self.say_what_awaits_no_sync(out);
            self.hand_out(committed, out);
        }
    }

    /// The output with `number`, and all before it, is on disk. [`Self::drain`] afterwards.
    pub fn on_persisted(&mut self, number: u64, out: &mut Vec<Output>) {
        for it in &mut self.unpersisted {
            it.must_sync &= it.number > number;
        }
        self.say_what_awaits_no_sync(out);
    }

    /// Readies are persisted in order: one that needs no sync waits for those before it.
    fn say_what_awaits_no_sync(&mut self, out: &mut Vec<Output>) {
        while let Some(it) = self.unpersisted.pop_front_if(|it| !it.must_sync) {
            self.node.on_persist_ready(it.number);
            out.extend(it.messages.into_iter().map(|it| Output::Send(Message(it))));
        }
    }

    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>, out: &mut Vec<Output>) {
        for entry in committed {
            assert_eq!(entry.index, self.handed_out.next().0, "entries are handed out in order");
            self.handed_out = LogIndex(entry.index);
            // The slowest database must not hold it back (R10).
            self.node.advance_apply_to(entry.index);
            out.push(Output::Committed(Entry::from_raft(&entry)));
        }
    }

    /// The hard state, if the log does not have it yet.
    fn hard_state_to_log(&mut self) -> Option<HardState> {
        let now = self.node.raft.hard_state();
        let now = HardState {
            term: Term(now.term),
            vote: ReplicaId(now.vote),
            commit: LogIndex(now.commit),
        };
        let changed = now != self.logged;
        self.logged = now;
        changed.then_some(now)
    }

    /// What it is to its group.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower,
        }
    }

    /// Whether it knows who leads, itself or another.
    pub fn knows_leader(&self) -> bool {
        self.node.raft.leader_id != INVALID_ID
    }

    /// The term it is in.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// Its last entry, persisted or not.
    pub fn last(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// The first entry that is not compacted.
    pub fn first(&self) -> LogIndex {
        LogIndex(self.node.store().first())
    }

    /// How far it knows the log to be committed.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last entry handed out.
    pub fn handed_out(&self) -> LogIndex {
        self.handed_out
    }

    /// Whether nothing waits for the disk.
    pub fn is_persisted(&self) -> bool {
        self.unpersisted.is_empty()
    }

    /// Whether it is the only voter: nobody to wait for, no heartbeats, no votes to lose.
    pub fn is_alone(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.node.raft.id)
    }

    /// Whether a leader has committed an entry of its own term: only then is all before it known.
    pub fn has_committed_in_term(&self) -> bool {
        self.node.raft.commit_to_current_term()
    }

    /// A kept entry.
    pub fn entry(&self, index: LogIndex) -> Option<Entry> {
        self.node.store().get(index.0).map(Entry::from_raft)
    }

    /// Bytes of memory that kept entries use.
    pub fn bytes(&self) -> usize {
        self.node.store().bytes()
    }

    /// The lowest position up to which every other member is known to have the log; our own last if we
    /// are alone. Means something on a leader only.
    pub fn matched_by_all(&self) -> LogIndex {
        let own = self.node.raft.id;
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != own);
        others.map(|(_, it)| LogIndex(it.matched)).min().unwrap_or_else(|| self.last())
    }

    /// Forget the entries up to `index`, which every database has on disk. Returns the term there.
    pub fn compact(&mut self, index: LogIndex) -> Term {
        assert!(index <= self.handed_out, "compacted what was not handed out");
        Term(self.node.mut_store().compact(index.0))
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.node.raft.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("committed", &self.committed())
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

fn conf_state_into_raft(state: &ConfState) -> eraftpb::ConfState {
    let ids = |it: &[ReplicaId]| it.iter().map(|it| it.0).collect::<Vec<_>>();
    eraftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> Replica {
        let conf_state = ConfState { voters: vec![ReplicaId(1)], ..Default::default() };
        let hard_state = HardState { term: Term(1), vote: ReplicaId(0), commit: LogIndex(1) };
        let compacted = (LogIndex(1), Term(1));
        Replica::new(
            ReplicaId(1),
            Recovered { hard_state, conf_state, compacted, entries: Vec::new() },
        )
    }

    /// Persist whatever it asks for; what it hands out.
    fn settle(replica: &mut Replica) -> Vec<LogIndex> {
        let mut handed_out = Vec::new();
        loop {
            let mut out = Vec::new();
            replica.drain(&mut out);
            if out.is_empty() {
                return handed_out;
            }
            for it in out {
                match it {
                    Output::Persist { number, .. } => {
                        replica.on_persisted(number, &mut Vec::new());
                    }
                    Output::Committed(entry) => handed_out.push(entry.index),
                    Output::Send(message) => panic!("nobody to tell {message:?}"),
                }
            }
        }
    }

    #[test]
    fn the_only_voter_leads_and_commits_what_it_persisted() {
        let mut replica = alone();
        assert_eq!(replica.propose(Bytes::from_static(b"x")), Err(NotLeader));
        assert!(!replica.knows_leader());
        replica.campaign();
        assert_eq!(settle(&mut replica), [LogIndex(2)]);
        assert!(replica.knows_leader());
        assert!(replica.has_committed_in_term());
        let (index, term) = replica.propose(Bytes::from_static(b"x")).unwrap();
        assert_eq!((index, term), (LogIndex(3), Term(2)));
        let mut out = Vec::new();
        replica.drain(&mut out);
        assert!(matches!(out[..], [Output::Persist { .. }]), "{out:?}");
        assert_eq!(replica.committed(), LogIndex(2));
        assert_eq!(settle(&mut replica), [], "nothing is committed before it is persisted");
        replica.on_persisted(u64::MAX, &mut out);
        assert_eq!(settle(&mut replica), [LogIndex(3)]);
    }

    #[test]
    fn committed_entries_are_handed_out_again_after_a_restart() {
        let entry = |index| Entry {
            index: LogIndex(index),
            term: Term(2),
            kind: EntryKind::Command,
            payload: Bytes::from_static(b"x"),
        };
        let recovered = Recovered {
            hard_state: HardState { term: Term(2), vote: ReplicaId(1), commit: LogIndex(3) },
            conf_state: ConfState { voters: vec![ReplicaId(1)], ..Default::default() },
            compacted: (LogIndex(1), Term(1)),
            entries: vec![entry(2), entry(3), entry(4)],
        };
        let mut replica = Replica::new(ReplicaId(1), recovered);
        assert_eq!(settle(&mut replica), [LogIndex(2), LogIndex(3)]);
        replica.campaign();
        assert_eq!(settle(&mut replica), [LogIndex(4), LogIndex(5)]);
        replica.compact(LogIndex(3));
        assert_eq!((replica.first(), replica.entry(LogIndex(3))), (LogIndex(4), None));
    }
}
