//! A worker against servers that answer as told.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::bench::target::Api;
use crate::bench::workload::Mix;

/// How long the server of these tests stops answering, once.
const STALL: Duration = Duration::from_millis(200);

/// Answer all requests of so many connections, but at the 50th request of all hold everything up; every 100th
/// request is refused, and every 70th ends its connection.
fn serve(listener: TcpListener, is_over: &AtomicBool) {
    let poller = &mut Poller::new().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (mut open, mut n) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        while let Ok((stream, _)) = listener.accept() {
            poller.add(&stream, open.len()).unwrap();
            open.push(Some(stream));
        }
        poller.wait(Duration::from_millis(1)).unwrap();
        for nth in 0..poller.n_ready() {
            let place = poller.ready(nth);
            let mut stream = open[place].as_ref().unwrap();
            if !matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                open[place] = None;
                continue;
            }
            n += 1;
            if n == 50 {
                thread::park_timeout(STALL);
            }
            let (status, body) = if n % 100 == 0 {
                ("503 Busy", r#"{"error":"x","code":"overloaded"}"#)
            } else {
                ("200 OK", "{}")
            };
            let close = if n % 70 == 0 { "Connection: close\r\n" } else { "" };
            let length = body.len();
            let reply =
                format!("HTTP/1.1 {status}\r\n{close}Content-Length: {length}\r\n\r\n{body}");
            stream.write_all(reply.as_bytes()).unwrap();
            if n % 70 == 0 {
                open[place] = None;
            }
        }
    }
}

fn load(rate: Option<f64>) -> (Tally, Ledger) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = Target::parse(&url, Api::Debros).unwrap();
    let bodies = Bodies::new(Api::Debros, "t");
    let mix = Mix::Rows { reads: 0.0 };
    let groups = [Group { name: "x", mix, n_clients: 4, rate, tenants: 0..1, zipf: 0.0 }];
    let tenants = [target.tenant(None)];
    let stop = AtomicBool::new(false);
    let load = Load {
        target: &target,
        tenants: &tenants,
        bodies: &bodies,
        groups: &groups,
        n_rows: 0,
        n_threads: 1,
        seed: 7,
        stop: &stop,
    };
    let mut ledgers = [Ledger::new(1, 1)];
    let over = AtomicBool::new(false);
    let tally = thread::scope(|scope| {
        let is_over = &over;
        scope.spawn(move || serve(listener, is_over));
        let clients = Clients::connect(&load, 0, &mut ledgers).unwrap();
        let origin = clock::now();
        let window = Window { from: origin, until: origin + Duration::from_millis(600) };
        let tally = clients.run(Times { origin, window }).unwrap().remove(0);
        is_over.store(true, Ordering::Relaxed);
        tally
    });
    let [ledger] = ledgers;
    (tally, ledger)
}

fn n_slow(tally: &Tally) -> u64 {
    let half = u64::try_from(STALL.as_nanos() / 2).unwrap();
    tally.latency.count_between(half, u64::MAX)
}

#[test]
fn an_open_loop_charges_a_stall_to_all_that_was_due_and_a_closed_one_to_those_under_way() {
    let (open, ledger) = load(Some(1_000.0));
    // Due in the first half of the stall: a hundred.
    assert!(n_slow(&open) >= 80, "{} slow", n_slow(&open));
    let n_failed: u64 = open.errors.values().sum();
    assert_eq!(open.latency.len() + n_failed, 600, "{:?}", open.errors);
    assert_eq!(open.errors.get("503 overloaded"), Some(&6), "{:?}", open.errors);
    let n_acknowledged = ledger.within(1..1_000).filter(|it| it.1).count() as u64;
    assert_eq!(n_acknowledged, open.latency.len());
    let (closed, _) = load(None);
    assert!((1..=20).contains(&n_slow(&closed)), "{} slow", n_slow(&closed));
}
