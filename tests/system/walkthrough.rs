//! The README, as a stranger follows it: its own commands, pasted into a shell, against the executable.

use std::process::Command;

use serde_json::Value;
use serde_json::json;

use crate::process::Node;
use crate::process::run;

/// The commands between the walkthrough marks of the README, one for each comment.
fn commands() -> Vec<(String, String)> {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("<!-- walkthrough -->").expect("a walkthrough");
    let (block, _) = rest.split_once("<!-- /walkthrough -->").expect("its end");
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines().filter(|it| !it.starts_with("```")) {
        match (line.strip_prefix("# "), commands.last_mut()) {
            (Some(title), _) => commands.push((title.to_owned(), String::new())),
            (None, Some((_, command))) => {
                command.push_str(line);
                command.push('\n');
            }
            (None, None) => {}
        }
    }
    commands
}

fn paste(command: &str, node: &Node, key: &str) -> Value {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(command);
    shell.env("GATEWAY", format!("http://127.0.0.1:{}", node.port)).env("KEY", key);
    let (code, stdout, stderr) = run(&mut shell);
    assert_eq!(code, Some(0), "{command}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{command} gave {stdout:?}"))
}

#[test]
fn walkthrough_of_the_readme() {
    let mut node = Node::start(2);
    let key = std::fs::read_to_string(node.data_dir().join("api.key")).expect("a key was made");
    let key = key.trim();
    assert!(key.starts_with("ak_") && key.ends_with(":default"), "{key}");
    let commands = commands();
    let titles: Vec<_> = commands.iter().map(|(title, _)| &**title).collect();
    assert_eq!(titles.len(), 11, "{titles:?}");
    for (at, (title, command)) in commands.iter().enumerate() {
        if at == 9 {
            // Before the table is dropped: everything is there after a restart, too.
            assert!(node.stop().success());
            node.restart();
            let rows = node.client().rows("SELECT id, body FROM notes ORDER BY id");
            assert_eq!(rows, json!([[1, "first"], [2, "second"]]));
        }
        let got = paste(command, &node, key);
        match at {
            0 | 9 => assert_eq!(got, json!({ "status": "ok" }), "{title}"),
            1 => {
                assert_eq!(got["rows_affected"], json!(1), "{title}");
                assert_eq!(got["last_insert_id"], json!(1), "{title}");
            }
            2 => {
                assert_eq!(got["items"], json!([{ "id": 1, "body": "first" }]), "{title}");
                assert_eq!(got["rows"], json!([[1, "first"]]), "{title}");
                assert_eq!(got["columns"], json!(["id", "body"]), "{title}");
                assert_eq!(got["count"], json!(1), "{title}");
            }
            3 => assert_eq!(got["items"], json!([{ "id": 1, "text": "first" }]), "{title}"),
            4 => assert_eq!(got, json!({ "count": 1 }), "{title}"),
            5 => assert_eq!(got["size"], json!(7), "{title}"),
            6 => assert_eq!(got, json!("hello"), "{title}"),
            7 => assert_eq!(got["results"][1], json!([{ "id": 2, "notes": 2 }]), "{title}"),
            8 => assert_eq!(got["tables"][0]["name"], json!("notes"), "{title}"),
            _ => assert_eq!(got["network"]["connected"], json!(true), "{title}"),
        }
    }
    let schema = node.client().get("/v1/rqlite/schema").expect("an answer").json();
    assert_eq!(schema["objects"], json!([]));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
