//! Requests that are none: cut, oversized, ambiguous, of the wrong types. Each is answered with what its file in
//! `tests/data/http` says, or its connection is closed; nothing that hides in one is taken for a request; others are
//! served meanwhile, and nothing is left over.
//!
//! A file is a sentence, the line `want:`, and bytes in a notation: ends of lines mean nothing, `\r`, `\n`, `\t`,
//! `\0`, `\xNN` and `\\` are those bytes, `{host}`, `{key}` and `{smuggled}` are a field, another, and a request that
//! would be done if it were taken for one, `<<n|text>>` is n times the text, with `{n}` counted. What is wanted are the
//! statuses, `400|431` for either and `200*9` for nine of them, and then `open` if the connection goes on, `closed` if
//! it does not, `waits` if the request has no end, and `any` if it does not matter.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::client::Client;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::status_kb;
use crate::process::wait_until;

/// How long a case may take, one way of sending it: less than any deadline of the node, by which it would close at
/// last what it has forgotten.
const CASE_MAX: Duration = PATIENCE;
/// The deadline that would be the first.
const CONFIG: &str = "gateway:\n  header_timeout: 60s\n";
/// How long another client may wait, by the clock: loosely, for the machines that run tests are shared.
pub(crate) const OTHERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Cases up to here are sent byte by byte, and cut in many places.
const SMALL_SIZE: usize = 4 << 10;
/// Places where a small case is cut, and where a large one is.
const CUTS: [usize; 2] = [16, 3];
/// Memory that a second round may leave resident beyond the first.
const GROWTH_KB_MAX: u64 = 16 << 10;
/// Files that connections which only read may have: some for each of two namespaces.
const READER_FILES_MAX: usize = 24;
/// What a request that hides in another would do.
const SMUGGLED: &str = r#"{"sql":"INSERT INTO smuggled VALUES (1)"}"#;

/// How a case leaves its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    Waits,
    Any,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Statuses that may come, reply for reply.
    want: Vec<Vec<u16>>,
    end: End,
}

/// All of them: those in files of their own, and the table of bodies.
fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http");
    let mut cases = Vec::new();
    for folder in names(&root).into_iter().filter(|it| root.join(it).is_dir()) {
        for name in names(&root.join(&folder)) {
            let name = format!("{folder}/{name}");
            let text = fs::read_to_string(root.join(&name)).expect("a file of text");
            cases.push(case_of(name, &text));
        }
    }
    let table = fs::read_to_string(root.join("bodies.txt")).expect("a file of text");
    for line in table.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (status, method, path) = (word(), word(), word());
        let body = bytes_of(word());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: k1\r\n");
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        let status = status.parse().expect("a status");
        cases.push(Case {
            name: line.chars().take(120).collect(),
            bytes: [head.into_bytes(), body].concat(),
            want: vec![vec![status]],
            end: End::Open,
        });
    }
    cases
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |it: std::io::Result<fs::DirEntry>| it.expect("an entry").file_name().into_string();
    let mut names: Vec<_> = entries.map(|it| name(it).expect("UTF-8")).collect();
    names.sort();
    names
}

fn case_of(name: String, text: &str) -> Case {
    let text = text.trim_start_matches(|it| it != '\n').trim_start();
    let (first, rest) = text.split_once('\n').expect("what is wanted, and bytes");
    let want = first.strip_prefix("want: ").unwrap_or_else(|| panic!("{name}: what is wanted?"));
    let mut words: Vec<_> = want.split(' ').collect();
    let end = match words.pop() {
        Some("open") => End::Open,
        Some("closed") => End::Closed,
        Some("waits") => End::Waits,
        Some("any") => End::Any,
        other => panic!("{name}: no end: {other:?}"),
    };
    let statuses = |word: &str| {
        let (word, times) = word.split_once('*').unwrap_or((word, "1"));
        let status = |it: &str| it.parse().unwrap_or(0);
        vec![word.split('|').map(status).collect(); times.parse().expect("a number")]
    };
    let want = words.into_iter().flat_map(statuses).collect();
    Case { name, bytes: bytes_of(&rest.replace('\n', "")), want, end }
}

fn bytes_of(text: &str) -> Vec<u8> {
    let length = SMUGGLED.len();
    let smuggled = format!(
        "POST /v1/rqlite/exec HTTP/1.1\\r\\n{{host}}{{key}}Content-Length: {length}\\r\\n\\r\\n{SMUGGLED}"
    );
    let n_smuggled = unescaped(&filled(&smuggled)).len();
    let text = text
        .replace("{smuggled}", &smuggled)
        .replace("{smuggled_length}", &n_smuggled.to_string())
        .replace("{smuggled_hex}", &format!("{n_smuggled:x}"));
    let text = filled(&text);
    let (mut bytes, mut rest) = (Vec::new(), &*text);
    while let Some((before, repeated)) = rest.split_once("<<") {
        bytes.extend(unescaped(before));
        let (times, repeated) = repeated.split_once('|').expect("a number of times");
        let (repeated, after) = repeated.split_once(">>").expect("an end");
        let times: usize = times.parse().expect("a number");
        if repeated.contains("{n}") {
            (0..times).for_each(|n| {
                bytes.extend(unescaped(&repeated.replace("{n}", &n.to_string())));
            });
        } else {
            bytes.extend(unescaped(repeated).repeat(times));
        }
        rest = after;
    }
    bytes.extend(unescaped(rest));
    bytes
}

fn filled(text: &str) -> String {
    text.replace("{host}", "Host: t\\r\\n").replace("{key}", "X-API-Key: k1\\r\\n")
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something behind a backslash");
        rest = after;
        bytes.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = str::from_utf8(digits).expect("digits");
                u8::from_str_radix(digits, 16).expect("hexadecimal digits")
            }
            kind => panic!("no escape: \\{}", char::from(kind)),
        });
    }
    bytes
}

/// A good request, the last of its connection.
const GOOD: &[u8] = b"GET /v1/version HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

/// What one way of sending came to.
struct Heard {
    statuses: Vec<u16>,
    text: String,
}

/// Send pieces, and say that nothing more comes, if nothing more comes; hear all until the node closes.
fn converse(port: u16, pieces: &[&[u8]], closes: bool) -> Result<Heard, String> {
    let began = Instant::now();
    let connected = TcpStream::connect(("127.0.0.1", port));
    let stream = connected.map_err(|it| format!("connect: {it}"))?;
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(CASE_MAX)).expect("a socket");
    stream.set_write_timeout(Some(CASE_MAX)).expect("a socket");
    // The node may answer and close before it has heard all, so both at once.
    let sending = stream.try_clone().expect("a socket");
    let text = std::thread::scope(|scope| {
        let hearing = scope.spawn(|| {
            let mut text = Vec::new();
            let ended = (&stream).read_to_end(&mut text);
            let is_closed = match ended {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            };
            (text, is_closed)
        });
        for piece in pieces {
            if (&sending).write_all(piece).is_err() {
                break;
            }
        }
        if closes {
            // It may be closed already.
            let _ = sending.shutdown(Shutdown::Write);
        }
        hearing.join().expect("it hears")
    });
    let took = began.elapsed();
    let (text, is_closed) = text;
    let shown = || String::from_utf8_lossy(&text[..text.len().min(400)]).into_owned();
    if !is_closed || took > CASE_MAX {
        return Err(format!("not closed after {took:?}: {}", shown()));
    }
    let statuses = statuses_of(&text).ok_or_else(|| format!("no replies: {}", shown()))?;
    Ok(Heard { statuses, text: shown() })
}

/// The statuses of whole replies, one behind the other, without those that ask for more; each that is an error says
/// which in JSON.
fn statuses_of(mut text: &[u8]) -> Option<Vec<u16>> {
    let mut statuses = Vec::new();
    while !text.is_empty() {
        let end = text.windows(4).position(|it| it == b"\r\n\r\n")?;
        let head = str::from_utf8(&text[..end]).ok()?.to_ascii_lowercase();
        let status: u16 = head.strip_prefix("http/1.")?.get(2..5)?.parse().ok()?;
        let field =
            |name: &str| head.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(": "));
        let length = field("content-length").map_or(Some(0), |it| it.parse().ok())?;
        let body = text.get(end + 4..end + 4 + length)?;
        text = &text[end + 4 + length..];
        if status == 100 {
            continue;
        }
        let is_json = field("content-type") == Some("application/json");
        if (400..600).contains(&status) && (is_json || status != 404) {
            let body: serde_json::Value = serde_json::from_slice(body).ok()?;
            body["error"].as_str().filter(|it| !it.is_empty())?;
        }
        statuses.push(status);
    }
    Some(statuses)
}

impl Case {
    /// Whether these are the replies to it, sent so many times.
    fn wants(&self, times: usize, got: &[u16]) -> bool {
        // A status of nothing at all.
        let may_be_silent = self.want.iter().any(|it| it.contains(&0));
        let want: Vec<_> = (0..times).flat_map(|_| &self.want).collect();
        (may_be_silent && got.is_empty())
            || (want.len() == got.len()
                && want.iter().zip(got).all(|(want, got)| want.contains(got)))
    }

    /// Whether these may come when only a part of it was sent.
    fn may_begin(&self, got: &[u16]) -> bool {
        let is_refusal = |it: &u16| (400..500).contains(it);
        got.len() <= self.want.len().max(1)
            && got.iter().enumerate().all(|(nth, status)| {
                is_refusal(status) || self.want.get(nth).is_some_and(|it| it.contains(status))
            })
    }

    /// Send it in every way; what is wrong with how it is taken.
    fn play(&self, port: u16, dice: &mut Dice) -> Vec<String> {
        let mut wrong = Vec::new();
        let bytes = &*self.bytes;
        let mut check = |way: &str, pieces: &[&[u8]], closes, is_right: &dyn Fn(&[u16]) -> bool| {
            match converse(port, pieces, closes) {
                Ok(heard) if is_right(&heard.statuses) => {}
                Ok(Heard { statuses, text }) => {
                    wrong.push(format!("{}, {way}: {statuses:?}\n{text}", self.name));
                }
                Err(error) => wrong.push(format!("{}, {way}: {error}", self.name)),
            }
        };
        let whole = |got: &[u16]| self.wants(1, got);
        check("whole", &[bytes], true, &whole);
        let is_small = bytes.len() <= SMALL_SIZE;
        if is_small {
            let pieces: Vec<_> = bytes.chunks(1).collect();
            check("byte by byte", &pieces, true, &whole);
        } else {
            let (first, rest) = bytes.split_at(dice.below(bytes.len()));
            let (second, third) = rest.split_at(dice.below(rest.len()));
            check("in three", &[first, second, third], true, &whole);
        }
        match self.end {
            End::Open => {
                let twice = |got: &[u16]| self.wants(2, got);
                check("twice", &[bytes, bytes], true, &twice);
                let with_good = |got: &[u16]| {
                    got.split_last().is_some_and(|(last, it)| *last == 200 && self.wants(1, it))
                };
                check("with a good one behind", &[bytes, GOOD], false, &with_good);
            }
            End::Closed => {
                check("twice", &[bytes, bytes], true, &whole);
                check("with a good one behind", &[bytes, GOOD], false, &whole);
                check("closed by the node", &[bytes], false, &whole);
            }
            End::Waits | End::Any => {}
        }
        for _ in 0..CUTS[usize::from(!is_small)] {
            let at = dice.below(bytes.len());
            let begins = |got: &[u16]| self.may_begin(got);
            check(&format!("cut at {at}"), &[&bytes[..at]], true, &begins);
            // And somebody who goes away in the middle, without a look at the answer.
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
            // The node may close first.
            let _ = (&stream).write_all(&bytes[..at]);
        }
        wrong
    }
}

/// Where to cut: the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % n
    }
}

/// Ask as others do, until told to stop; how long each answer took.
pub(crate) fn be_another(port: u16, stop: &AtomicBool) -> Vec<Duration> {
    let client = Client::try_connect(port).expect("it listens").with_key("k2");
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        assert_eq!(client.rows("SELECT 1"), json!([[1]]));
        took.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    took
}

/// Files that a process has open: sockets, and others.
pub(crate) fn n_files(pid: u32) -> [usize; 2] {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let links = entries.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
    let (sockets, others): (Vec<_>, Vec<_>) =
        links.partition(|it| it.to_string_lossy().starts_with("socket:"));
    [sockets.len(), others.len()]
}

/// Wait until a process has no more files open than it had: databases have a few more, for reading.
pub(crate) fn wait_for_files(pid: u32, before: [usize; 2]) {
    wait_until("the sockets are closed", || (n_files(pid)[0] <= before[0]).then_some(()));
    let after = n_files(pid);
    println!("sockets and other files: {before:?}, then {after:?}");
    assert!(after[1] <= before[1] + READER_FILES_MAX, "{before:?} became {after:?}");
}

#[test]
fn requests_that_are_none_are_refused_and_nothing_is_left_of_them() {
    let config = tempfile::NamedTempFile::new().expect("a file");
    fs::write(config.path(), CONFIG).expect("it takes the text");
    let node = Node::start_with(2, &["--config", config.path().to_str().expect("UTF-8")]);
    let client = node.client();
    client.exec("CREATE TABLE good(a)", &json!([]));
    client.exec("CREATE TABLE smuggled(a)", &json!([]));
    node.client().with_key("k2").exec("CREATE TABLE mine(a)", &json!([]));
    drop(client);
    let all = cases();
    assert!(all.len() >= 400, "{} cases", all.len());
    let files = n_files(node.pid());
    let stop = AtomicBool::new(false);
    let mut dice = Dice(1);
    let (wrong, memory, mut took) = std::thread::scope(|scope| {
        let another = scope.spawn(|| be_another(node.port, &stop));
        let mut wrong = Vec::new();
        let memory = [0, 1].map(|_| {
            let began = Instant::now();
            for case in &all {
                wrong.extend(case.play(node.port, &mut dice));
            }
            println!("{} cases in {:?}", all.len(), began.elapsed());
            status_kb(node.pid(), "VmRSS")
        });
        stop.store(true, Ordering::Relaxed);
        (wrong, memory, another.join().expect("others are served"))
    });
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!("another client: median {:?}, p99 {:?}, longest {:?}", at(50), at(99), at(100));
    println!(
        "resident after each round: {memory:?} kB, at most {} kB",
        status_kb(node.pid(), "VmHWM")
    );
    assert!(at(99) < OTHERS_WAIT_MAX, "another client waited {:?}", at(99));
    Page::read_anew(&node).assert_short_turns();
    assert!(memory[1] < memory[0] + GROWTH_KB_MAX, "{memory:?} kB");
    let client = node.client();
    assert_eq!(client.rows("SELECT count(*) FROM smuggled"), json!([[0]]));
    drop(client);
    wait_for_files(node.pid(), files);
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
