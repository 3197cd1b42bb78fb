//! One thread of clients: sends what is due, reads what has come, notes when.
//!
//! A client is a connection and what it waits for. There is no task and no thread for each: the generator shares
//! its processors with what it measures, so a request costs two system calls and a part of a third.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::bench::bodies::Bodies;
use crate::bench::clock;
use crate::bench::connection::Connection;
use crate::bench::ledger::Ledger;
use crate::bench::pace::Pace;
use crate::bench::poller;
use crate::bench::poller::Poller;
use crate::bench::tally::Tally;
use crate::bench::tally::Window;
use crate::bench::target::Target;
use crate::bench::target::Tenant;
use crate::bench::workload::Group;
use crate::bench::workload::Sent;
use crate::bench::workload::Workload;

/// How long a client waits for a reply, and at the end of the load all of them: longer than a server may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before a client that could not connect tries again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a thread waits at most before it looks whether the load has ended.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// What happens over time is told in steps of this.
pub(super) const SLICE: Duration = Duration::from_millis(200);

/// What all threads of a load have in common.
#[derive(Debug)]
pub(super) struct Load<'a> {
    /// The server.
    pub target: &'a Target,
    /// Its namespaces.
    pub tenants: &'a [Tenant],
    /// Bodies of requests.
    pub bodies: &'a Bodies,
    /// Who asks what.
    pub groups: &'a [Group],
    /// Rows that can be read.
    pub n_rows: u64,
    /// Threads.
    pub n_threads: usize,
    /// Seed of all choices.
    pub seed: u64,
    /// Set to end it early.
    pub stop: &'a AtomicBool,
}

/// When a load begins, and what is measured of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The first request.
    pub origin: Instant,
    /// What is measured.
    pub window: Window,
}

/// A connection and what it waits for.
#[derive(Debug)]
struct Client {
    /// Its number among all clients, which its rows name.
    number: u64,
    group: usize,
    connection: Option<Connection>,
    waiting: Option<Waiting>,
    is_room_watched: bool,
}

#[derive(Debug)]
struct Waiting {
    sent: Sent,
    n_bytes: usize,
    /// When it should have been sent, and when it was.
    intended: Instant,
    since: Instant,
}

/// The part of a group that is on this thread.
#[derive(Debug)]
struct Part<'a> {
    workload: Workload<'a>,
    pace: Pace,
    /// Clients that wait for nothing.
    idle: Vec<usize>,
    tally: Tally,
}

/// One thread's clients, connected.
#[derive(Debug)]
pub(super) struct Clients<'a> {
    load: &'a Load<'a>,
    /// Which thread they are on.
    nth: usize,
    poller: Poller,
    all: Vec<Client>,
    ledgers: &'a mut [Ledger],
}

impl<'a> Clients<'a> {
    /// Connect the clients of the `nth` thread. Their rows go into `ledgers`, one per namespace.
    pub(super) fn connect(
        load: &'a Load<'a>,
        nth: usize,
        ledgers: &'a mut [Ledger],
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut all = Vec::new();
        let mut number = 0;
        for (at, group) in load.groups.iter().enumerate() {
            for _ in 0..group.n_clients {
                if number % load.n_threads == nth {
                    let connection = Connection::open(load.target.address)?;
                    poller.add(connection.stream(), all.len())?;
                    all.push(Client {
                        number: number as u64,
                        group: at,
                        connection: Some(connection),
                        waiting: None,
                        is_room_watched: false,
                    });
                }
                number += 1;
            }
        }
        Ok(Self { load, nth, poller, all, ledgers })
    }

    /// Load the server until the window ends or the load is stopped, then wait for the last replies. What was seen
    /// of each group.
    pub(super) fn run(self, times: Times) -> io::Result<Vec<Tally>> {
        let load = self.load;
        let parts = load.groups.iter().enumerate().map(|(at, group)| {
            let mine = |it: &(usize, &Client)| it.1.group == at;
            let idle: Vec<_> =
                self.all.iter().enumerate().filter(mine).map(|(place, _)| place).collect();
            // Without a client there is nobody to be late.
            let rate = group.rate.filter(|_| !idle.is_empty());
            let rate = rate.map(|it| it * ratio(idle.len(), group.n_clients));
            let seed = load.seed ^ ((at as u64) << 32) ^ self.nth as u64;
            Part {
                workload: Workload::new(group, load.tenants, load.bodies, load.n_rows, seed),
                pace: Pace::new(rate, times.origin),
                idle,
                tally: Tally::new(times.window, SLICE),
            }
        });
        let worker = Worker {
            load,
            parts: parts.collect(),
            poller: self.poller,
            clients: self.all,
            ledgers: self.ledgers,
            broken: Vec::new(),
        };
        worker.run(times.window.until)
    }
}

/// One thread's clients at work.
#[derive(Debug)]
struct Worker<'a> {
    load: &'a Load<'a>,
    poller: Poller,
    clients: Vec<Client>,
    parts: Vec<Part<'a>>,
    ledgers: &'a mut [Ledger],
    /// Clients without a connection, and when they try again.
    broken: Vec<(usize, Instant)>,
}

impl Worker<'_> {
    fn run(mut self, mut until: Instant) -> io::Result<Vec<Tally>> {
        poller::wake_precisely();
        let mut is_stopped = false;
        let mut sweep_at = clock::now() + Duration::from_secs(1);
        loop {
            let now = clock::now();
            if !is_stopped && self.load.stop.load(Ordering::Relaxed) {
                is_stopped = true;
                until = until.min(now);
                self.parts.iter_mut().for_each(|it| it.tally.close(now));
            }
            self.heal(now);
            for group in 0..self.parts.len() {
                self.send_due(group, now, until);
            }
            if now >= until {
                let is_busy = self.clients.iter().any(|it| it.waiting.is_some());
                let is_behind = self.parts.iter().any(|it| it.pace.next(until) < until);
                let is_over = !is_busy && (is_stopped || !is_behind);
                if is_over || now >= until + REPLY_TIMEOUT {
                    break;
                }
            }
            if now >= sweep_at {
                self.give_up_overdue(now);
                sweep_at = now + Duration::from_secs(1);
            }
            self.poller.wait(self.pause(now, until))?;
            for nth in 0..self.poller.n_ready() {
                self.on_ready(self.poller.ready(nth), until);
            }
        }
        Ok(self.finish(until, is_stopped))
    }

    fn pause(&self, now: Instant, until: Instant) -> Duration {
        let mut pause = WAIT_MAX;
        for part in self.parts.iter().filter(|it| !it.idle.is_empty()) {
            let due = part.pace.next(now);
            if due < until {
                pause = pause.min(due.saturating_duration_since(now));
            }
        }
        if now < until { pause.min(until - now) } else { pause }
    }

    /// Send what is due, as far as there are clients for it.
    fn send_due(&mut self, group: usize, now: Instant, until: Instant) {
        while let Some(&client) = self.parts[group].idle.last() {
            let Some(intended) = self.parts[group].pace.take(now, until) else { return };
            self.parts[group].idle.pop();
            self.send(client, intended, now);
        }
    }

    fn send(&mut self, number: usize, intended: Instant, now: Instant) {
        let client = &mut self.clients[number];
        let part = &mut self.parts[client.group];
        let connection = client.connection.as_mut().expect("an idle client is connected");
        let mut sent = Sent::Get;
        let request =
            connection.request(|out| sent = part.workload.next(client.number, self.ledgers, out));
        let n_bytes = request.len();
        client.waiting = Some(Waiting { sent, n_bytes, intended, since: now });
        if let Err(error) = self.flush(number) {
            self.fail(number, &describe(&error));
        }
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let client = &mut self.clients[number];
        let connection = client.connection.as_mut().expect("it was connected to send");
        let is_written = connection.flush()?;
        if client.is_room_watched == is_written {
            client.is_room_watched = !is_written;
            self.poller.watch_room(connection.stream(), number, !is_written)?;
        }
        Ok(())
    }

    fn on_ready(&mut self, number: usize, until: Instant) {
        let client = &mut self.clients[number];
        // A connection that was given up may have been in the list.
        let Some(connection) = client.connection.as_mut() else { return };
        if connection.is_writing()
            && let Err(error) = self.flush(number)
        {
            return self.fail(number, &describe(&error));
        }
        let client = &mut self.clients[number];
        let connection = client.connection.as_mut().expect("it was there above");
        let reply = match connection.receive() {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(error) => return self.fail(number, &describe(&error)),
        };
        let Some(waiting) = client.waiting.take() else {
            return self.fail(number, "a reply that nobody asked for");
        };
        let now = clock::now();
        let part = &mut self.parts[client.group];
        part.tally.on_bytes(waiting.n_bytes, reply.size, now);
        match self.load.bodies.failure(&reply) {
            Some(kind) => part.tally.on_error(&kind, waiting.intended),
            None if !waiting.sent.is_answered_by(&reply) => {
                part.tally.on_error("wrong row", waiting.intended);
            }
            None => {
                part.tally.on_done(waiting.intended, now);
                if let Sent::Rows { tenant, rows } = waiting.sent {
                    self.ledgers[tenant].acknowledge(rows);
                }
            }
        }
        let group = client.group;
        if reply.closes {
            client.connection = None;
            self.broken.push((number, now));
            self.heal(now);
        } else {
            part.idle.push(number);
        }
        self.send_due(group, now, until);
    }

    /// A client's connection is gone, and nobody knows what became of its request.
    fn fail(&mut self, number: usize, kind: &str) {
        let client = &mut self.clients[number];
        let now = clock::now();
        client.connection = None;
        if let Some(waiting) = client.waiting.take() {
            self.parts[client.group].tally.on_error(kind, waiting.intended);
        }
        self.parts[client.group].idle.retain(|it| *it != number);
        self.broken.push((number, now));
    }

    /// Connect again those whose time has come.
    fn heal(&mut self, now: Instant) {
        for (number, at) in std::mem::take(&mut self.broken) {
            if at > now || self.reconnect(number).is_err() {
                self.broken.push((number, at.max(now + RETRY)));
            }
        }
    }

    fn reconnect(&mut self, number: usize) -> io::Result<()> {
        let connection = Connection::open(self.load.target.address)?;
        self.poller.add(connection.stream(), number)?;
        let client = &mut self.clients[number];
        client.connection = Some(connection);
        client.is_room_watched = false;
        self.parts[client.group].idle.push(number);
        Ok(())
    }

    fn give_up_overdue(&mut self, now: Instant) {
        for number in 0..self.clients.len() {
            let waiting = self.clients[number].waiting.as_ref();
            if waiting.is_some_and(|it| it.since + REPLY_TIMEOUT <= now) {
                self.fail(number, "no reply");
            }
        }
    }

    fn finish(mut self, until: Instant, is_stopped: bool) -> Vec<Tally> {
        for number in 0..self.clients.len() {
            if self.clients[number].waiting.is_some() {
                self.fail(number, "no reply");
            }
        }
        for part in &mut self.parts {
            let n_missed = if is_stopped { 0 } else { part.pace.n_missed(until) };
            if n_missed > 0 {
                part.tally.add_errors("not sent in time", n_missed);
            }
        }
        self.parts.into_iter().map(|it| it.tally).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 clients")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What went wrong with a connection, as a kind of failure.
fn describe(error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
        io::ErrorKind::ConnectionReset => "reset by the server".to_owned(),
        io::ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        _ => error.to_string(),
    };
    format!("connection: {what}")
}

#[cfg(test)]
mod tests;
