//! Connections end up at the core of their namespace, within a bound on crowds.

use serde_json::json;

use crate::client::Client;
use crate::metrics::Page;
use crate::process::Node;

/// More than the requests after which a connection moves.
const WARM_UP: usize = 8;
const REQUESTS: usize = 10;

/// A node of two shards, each of which has the database of one of these keys; none on a machine without.
fn node_of_two() -> Option<Node> {
    // With sixteen partitions, `default` lives in partition 15 and `other` in partition 6.
    let has_two = std::thread::available_parallelism().is_ok_and(|it| it.get() >= 2);
    let node = has_two.then(|| Node::start(2))?;
    for key in ["k1", "k2"] {
        node.client().with_key(key).exec("CREATE TABLE t (n INTEGER)", &json!([]));
    }
    Some(node)
}

fn connect(node: &Node, key: &'static str, n: usize) -> Vec<Client> {
    (0..n).map(|_| node.client().with_key(key)).collect()
}

/// Each asks so often, one after the other.
fn ask(clients: &[Client], n: usize) {
    for _ in 0..n {
        for client in clients {
            assert_eq!(client.rows("SELECT count(*) FROM t"), json!([[0]]));
        }
    }
}

#[test]
fn connections_of_two_namespaces_stop_crossing() {
    let Some(node) = node_of_two() else { return };
    let mut clients = connect(&node, "k1", 16);
    clients.extend(connect(&node, "k2", 16));
    ask(&clients, WARM_UP);
    let before = Page::read_anew(&node);
    ask(&clients, REQUESTS);
    let after = Page::read_anew(&node);
    let difference = |name| after.sum(name, &[]) - before.sum(name, &[]);
    assert!(before.sum("connections_moved_total", &[]) > 0.0, "nothing has moved");
    assert!(difference("requests_crossed_total") < 1.0, "some still cross");
    assert!(difference("connections_moved_total") < 1.0, "some wander");
    assert!(after.sum("connections_turned_away_total", &[]) < 1.0);
}

#[test]
fn one_busy_namespace_leaves_the_other_core_its_share_of_connections() {
    let Some(node) = node_of_two() else { return };
    let clients = connect(&node, "k1", 96);
    ask(&clients, WARM_UP + REQUESTS);
    let page = Page::read_anew(&node);
    let open = |shard| page.sum("connections", &[shard]);
    let (idle, busy) = (open("shard=\"0\""), open("shard=\"1\""));
    // Half as many again as the average of two and eight, and an eighth that cores may not know of.
    let bound = (idle + busy) * 0.75 + 8.0;
    assert!(busy <= bound * 1.125, "{busy} of {}, the bound is {bound}", idle + busy);
    assert!(busy > idle && idle > 0.0, "{busy} where they are served, {idle} elsewhere");
}

#[test]
fn a_connection_that_uses_two_namespaces_does_not_wander() {
    let Some(node) = node_of_two() else { return };
    let mut client = node.client();
    for round in 0..60 {
        for key in ["k1", "k2"] {
            client = client.with_key(key);
            ask(std::slice::from_ref(&client), 1 + round % 12);
        }
    }
    let moved = Page::read_anew(&node).sum("connections_moved_total", &[]);
    assert!(moved <= 3.0, "it moved {moved} times");
}
