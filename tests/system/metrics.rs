//! The page of metrics: its form, and that what happens is on it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::json;

use crate::client::Client;
use crate::process::Node;
use crate::process::wait_until;

/// Which share of the cores' turns may take so long, in seconds of processor time, whatever clients do.
const SHORT_TURNS: [(&str, f64); 2] = [("0.004096", 0.99), ("0.016384", 0.999)];

/// A page that has passed every rule of the format that it could break.
pub(crate) struct Page {
    /// By name and labels, as they stand there.
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    pub(crate) fn read(node: &Node) -> Self {
        let client = Client::try_connect(node.metrics_port).expect("the port is open").with_key("");
        let reply = client.get("/metrics").expect("a page");
        assert_eq!(reply.status, 200, "{reply:?}");
        let kind = reply.header("content-type").expect("a type");
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(&reply.body)
    }

    /// A page that was begun after this call: one is kept for a second.
    pub(crate) fn read_anew(node: &Node) -> Self {
        let cpu = |it: &Self| it.sum("process_cpu_seconds_total", &[]);
        let kept = cpu(&Self::read(node));
        wait_until("the page is written anew", || {
            Some(Self::read(node)).filter(|it| cpu(it) > kept)
        })
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Self { series: BTreeMap::new(), types: BTreeMap::new() };
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(helped.insert(name.to_owned()), "{name} is explained twice");
                assert!(help.ends_with('.'), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(helped.contains(name), "{name} is not explained");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(page.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
                name.clone_into(&mut family);
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                check_labels(series);
                let name = series.split('{').next().expect("a name");
                let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line}"));
                let is_histogram = page.types[&family] == "histogram";
                let known = if is_histogram { &["_bucket", "_sum", "_count"][..] } else { &[""] };
                assert!(known.contains(&suffix), "{line} stands under {family}");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(value >= 0.0, "{line}");
                let before = page.series.insert(series.to_owned(), value);
                assert!(before.is_none(), "{series} stands there twice");
            }
        }
        page.check_histograms(text);
        page
    }

    /// Buckets rise, and end with all.
    fn check_histograms(&self, text: &str) {
        let mut last = 0.0;
        for line in text.lines().filter(|it| it.contains("_bucket{")) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            let (labels, end) = series.split_once("le=\"").expect("an end");
            let name = labels.trim_end_matches([',', '{']);
            assert!(value >= last, "{line} is less than the bucket before");
            last = value;
            if end == "+Inf\"}" {
                let count = name.replacen("_bucket", "_count", 1);
                let count = if count.contains('{') { format!("{count}}}") } else { count };
                assert!((self.series[&count] - value).abs() < 0.5, "{line} is not all of {count}");
                last = 0.0;
            }
        }
    }

    /// Nobody on a core waited long for others there. In processor time: what else the machine does, does not count.
    pub(crate) fn assert_short_turns(&self) {
        let turns = self.sum("turn_cpu_seconds_count", &[]);
        for (end, share) in SHORT_TURNS {
            let within = self.sum("turn_cpu_seconds_bucket", &[&format!("le=\"{end}\"")]);
            println!("turns of at most {end} s: {within} of {turns}");
            assert!(within >= turns * share, "{within} of {turns} turns took at most {end} s");
        }
    }

    /// The sum of all series of a name whose labels contain all of `with`.
    pub(crate) fn sum(&self, name: &str, with: &[&str]) -> f64 {
        let is_it = |series: &str| {
            let rest = series.strip_prefix("debros_").and_then(|it| it.strip_prefix(name));
            rest.is_some_and(|it| it.is_empty() || it.starts_with('{'))
                && with.iter().all(|label| series.contains(label))
        };
        let found: Vec<_> = self.series.iter().filter(|(it, _)| is_it(it)).collect();
        assert!(!found.is_empty(), "no series of {name} with {with:?}");
        found.into_iter().map(|(_, value)| value).sum()
    }
}

/// Names of labels are words, values are quoted and escaped.
fn check_labels(series: &str) {
    let Some((_, labels)) = series.split_once('{') else { return };
    let mut rest = labels.strip_suffix('}').unwrap_or_else(|| panic!("{series}"));
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{series}"));
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{series}");
        assert!(names.insert(name.to_owned()), "{series}");
        let mut is_escaped = false;
        let end = value.find(|it| {
            let ends = it == '"' && !is_escaped;
            is_escaped = it == '\\' && !is_escaped;
            ends
        });
        rest = &value[end.unwrap_or_else(|| panic!("{series}")) + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[test]
fn what_happens_is_on_the_page() {
    let node = Node::start(2);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    let before = Page::read(&node);
    for n in 0..50 {
        client.exec("INSERT INTO t VALUES (?, 'x')", &json!([n]));
    }
    for n in 0..20 {
        let rows = client.rows(&format!("SELECT v FROM t WHERE id = {n}"));
        assert_eq!(rows, json!([["x"]]));
    }
    client.exec("INSERT INTO t VALUES (100, zeroblob(100000))", &json!([]));
    let wrong = json!({ "sql": "SELECT nothing FROM nowhere" });
    assert_eq!(client.refused("/v1/rqlite/query", &wrong).0, 400);
    let large = json!({ "sql": "SELECT zeroblob(9000000)" });
    assert_eq!(client.refused("/v1/rqlite/query", &large).0, 400);
    assert_eq!(client.get("/no/such/path?with=query").expect("a reply").status, 404);
    let after = Page::read_anew(&node);

    for (name, value) in &before.series {
        let base = name.split('{').next().expect("a name");
        let base =
            base.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        if before.types[base] != "gauge" {
            assert!(after.series[name] >= *value, "{name} has fallen");
        }
    }
    for (name, with, rose) in [
        ("http_requests_total", &["route=\"/v1/rqlite/exec\"", "status=\"200\""][..], 51.0),
        ("http_requests_total", &["route=\"/v1/rqlite/query\"", "status=\"200\""], 20.0),
        ("http_request_seconds_count", &["route=\"/v1/rqlite/exec\""], 51.0),
        ("namespace_writes_total", &["namespace=\"default\""], 51.0),
        ("namespace_reads_total", &["namespace=\"default\""], 22.0),
        ("namespace_rows_written_total", &["namespace=\"default\""], 51.0),
        ("namespace_rows_read_total", &["namespace=\"default\""], 20.0),
        ("namespace_errors_total", &["namespace=\"default\""], 2.0),
        ("applies_total", &[], 51.0),
    ] {
        // What has not happened yet may have no series.
        let before = if before
            .series
            .keys()
            .any(|it| it.contains(name) && with.iter().all(|label| it.contains(label)))
        {
            before.sum(name, with)
        } else {
            0.0
        };
        assert!((after.sum(name, with) - before - rose).abs() < 0.5, "{name} {with:?}: {before}");
    }
    for (name, with, least) in [
        ("http_requests_total", &["route=\"/v1/rqlite/query\"", "status=\"400\""][..], 2.0),
        ("http_requests_total", &["route=\"other\"", "status=\"404\""], 1.0),
        ("limit_refusals_total", &["limit=\"value_bytes\""], 1.0),
        ("log_fsync_seconds_count", &[], 50.0),
        ("log_batch_records_count", &[], 50.0),
        ("log_written_bytes_total", &[], 50.0 * 4096.0),
        ("log_disk_bytes", &[], 4096.0),
        ("log_live_bytes", &[], 50.0 * 16.0),
        ("turn_seconds_count", &[], 50.0),
        ("turn_cpu_seconds_count", &[], 50.0),
        ("apply_seconds_total", &[], 0.000_1),
        ("reads_total", &["on=\"core\""], 20.0),
        ("connections_max", &[], 10_000.0),
        ("open_databases", &[], 1.0),
        ("raft_partitions_led", &[], 17.0),
        ("connections_accepted_total", &[], 2.0),
        ("connections", &[], 1.0),
        ("wal_max_bytes", &[], 4096.0),
        ("disk_free_bytes", &[], 1.0),
        ("disk_reserve_bytes", &[], 1.0),
        ("process_cpu_seconds_total", &[], 0.001),
        ("process_resident_memory_bytes", &[], 1e6),
        ("process_open_fds", &[], 10.0),
        ("process_start_time_seconds", &[], 1.6e9),
        ("build_info", &["version=\""], 1.0),
    ] {
        let got = after.sum(name, with);
        assert!(got >= least, "{name} {with:?} is {got}, at least {least} is wanted");
    }
    assert!(after.sum("connections_turned_away_total", &[]) < 0.5);
    let grown = after.sum("database_bytes", &[]) - before.sum("database_bytes", &[]);
    assert!(grown >= 24.0 * 4096.0, "sizes are those of the last commit: {grown}");
    assert!(!after.series.keys().any(|it| it.contains("/no/such")), "a path became a label");
}

#[test]
fn the_page_has_a_port_of_its_own_and_nothing_else_on_it() {
    let mut node = Node::start(1);
    let ask = |method: &str, path: &str| {
        let client = Client::try_connect(node.metrics_port).expect("the port is open");
        client.request(method, path, "").expect("a reply").status
    };
    assert_eq!(ask("GET", "/"), 404);
    assert_eq!(ask("GET", "/v1/status"), 404);
    assert_eq!(ask("POST", "/metrics"), 405);
    assert_eq!(node.client().get("/metrics").expect("a reply").status, 404);
    assert!(node.stop().success());
    wait_until("the port is closed", || {
        Client::try_connect(node.metrics_port).is_none().then_some(())
    });
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn a_page_is_kept_for_a_second_and_asking_is_nobodys_request() {
    let node = Node::start(2);
    let first = Page::read_anew(&node);
    wait_until("it is ready", || (page(&node, "/v1/health/ready").0 == 200).then_some(()));
    let cpu = |it: &Page| it.sum("process_cpu_seconds_total", &[]);
    let is_same = || cpu(&Page::read(&node)).to_bits() == cpu(&Page::read(&node)).to_bits();
    wait_until("the same page comes twice", || is_same().then_some(()));
    let last = Page::read_anew(&node);
    assert!(cpu(&last) > cpu(&first));
    assert!(last.sum("requests_crossed_total", &[]) < 0.5, "the other core was asked for us only");
}

/// Status code and body of a page of the gateway.
fn page(node: &Node, path: &str) -> (u16, serde_json::Value) {
    let reply = node.client().get(path).expect("a reply");
    (reply.status, reply.json())
}

#[test]
fn a_damaged_database_is_told_and_the_node_stays_ready() {
    let mut node = Node::start(2);
    node.client().exec("CREATE TABLE t (v TEXT)", &json!([]));
    wait_until("it is ready", || (page(&node, "/v1/health/ready").0 == 200).then_some(()));
    let (status, health) = page(&node, "/v1/health");
    assert_eq!((status, &health["status"], &health["reasons"]), (200, &json!("ok"), &json!([])));
    assert!((Page::read(&node).sum("fenced_databases", &[])).abs() < 0.5);
    assert!(node.stop().success());
    let files = crate::fence::databases(&node);
    std::fs::write(&files[0], vec![0x5a; 4096 * 4]).expect("it can be damaged");
    let _ = std::fs::remove_file(files[0].with_extension("db-wal"));
    node.restart();
    wait_until("it is ready again", || (page(&node, "/v1/health/ready").0 == 200).then_some(()));
    let write = json!({ "sql": "INSERT INTO t VALUES ('new')" });
    assert!(node.client().refused("/v1/rqlite/exec", &write).0 >= 409);
    for path in ["/health", "/v1/health"] {
        let (status, health) = page(&node, path);
        assert_eq!((status, &health["status"]), (200, &json!("degraded")), "{health}");
        assert_eq!(health["reasons"][0]["code"], "fenced", "{health}");
        assert_eq!(health["client"]["status"], "degraded", "{health}");
    }
    let (status, ready) = page(&node, "/v1/health/ready");
    assert_eq!((status, ready), (200, json!({ "ready": true, "reasons": [] })));
    assert!((Page::read(&node).sum("fenced_databases", &[]) - 1.0).abs() < 0.5);
}

#[test]
fn a_node_that_stops_is_not_ready() {
    let mut node = Node::start(2);
    wait_until("its partitions are led", || {
        let reply = node.client().get("/v1/health/ready").ok()?;
        (reply.status == 200).then_some(())
    });
    let head = "HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    // A request that has begun is finished, and told.
    let client = node.client();
    client.send(&format!("POST /v1/health/ready {head}")).expect("it is sent");
    assert_eq!(client.read().expect("it is read").status, 100);
    node.signal("TERM");
    wait_until("the door is closed", || Client::try_connect(node.port).is_none().then_some(()));
    client.send("x").expect("it is sent");
    let reply = client.read().expect("a reply");
    let stopping = json!([{ "code": "stopping", "message": "the node is stopping" }]);
    assert_eq!((reply.status, &reply.json()["reasons"]), (503, &stopping));
    assert!(node.wait().success());
}

#[test]
fn heads_of_pages_have_no_body() {
    let node = Node::start(1);
    wait_until("it is ready", || (page(&node, "/v1/health/ready").0 == 200).then_some(()));
    for (port, path) in [
        (node.port, "/health"),
        (node.port, "/v1/health"),
        (node.port, "/v1/health/ready"),
        (node.metrics_port, "/metrics"),
    ] {
        let client = Client::try_connect(port).expect("the port is open");
        client
            .send(&format!("HEAD {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
            .expect("it is sent");
        let reply = client.read_to_end().expect("a reply");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{path}: {reply}");
        assert!(reply.ends_with("\r\n\r\n"), "{path}: {reply}");
    }
}

#[test]
fn a_slow_statement_is_logged_by_its_shape() {
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "logging:\n  slow_statement_ms: 5\n").expect("it takes the text");
    let path = config.path().to_str().expect("UTF-8");
    let mut node = Node::start_with(2, &["--config", path]);
    let client = node.client();
    client.exec("CREATE TABLE t (v TEXT)", &json!([]));
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700000)";
    let read = format!("{many} SELECT count(*), 'my secret' FROM n WHERE i <> ?");
    let body = json!({ "sql": read, "args": ["a hidden argument"] });
    assert_eq!(client.post("/v1/rqlite/query", &body).expect("a reply").status, 200);
    let write = format!("INSERT INTO t {many} SELECT 'my secret' FROM n WHERE i % 100000 = ?");
    client.exec(&write, &json!([7]));
    let lines = wait_until("both are logged", || {
        let log = node.log();
        let lines: Vec<_> = log.lines().filter(|it| it.contains("slow statement")).collect();
        let has = |it: &str| lines.iter().any(|line| line.contains(it));
        (has("INSERT INTO t") && has("SELECT count")).then(|| lines.join("\n"))
    });
    assert!(lines.contains("WHERE i < ?)") && lines.contains("i % ? = ?"), "{lines}");
    assert!(lines.contains("namespace=\"default\"") && lines.contains("on=\"thread\""), "{lines}");
    assert!(
        lines.contains("rows=1 ") && lines.contains("rows=7 ") && lines.contains(" ms="),
        "{lines}"
    );
    assert!(node.stop().success());
    let log = node.log();
    for secret in ["secret", "hidden", "700000", "100000"] {
        assert!(!log.contains(secret), "{log}");
    }
}
