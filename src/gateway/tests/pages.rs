//! Pages that anybody may read.

use super::*;

/// Replace what depends on the clock.
fn timeless(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).trim_end().to_owned();
    for key in ["\"uptime\":", "\"response_time\":", "\"last_updated\":"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(key).map(|it| from + it + key.len()) {
            let end = at + text[at..].find([',', '}']).unwrap();
            let kind = if text[at..].starts_with('"') { "text" } else { "number" };
            text.replace_range(at..end, kind);
            from = at;
        }
    }
    text
}

#[test]
fn pages_about_the_node() {
    let status = Status {
        database_bytes: 4096,
        n_partitions: 17,
        n_leading: 17,
        n_namespaces: 2,
        ..Status::default()
    };
    for (path, answer, want) in [
        (
            "/health",
            Ok(Reply::Status(status)),
            expect![[
                r#"{"client":{"status":"healthy","checks":{"connection":"ok","database":"ok"},"last_updated":text,"response_time":number},"reasons":[],"server":{"started_at":"2025-10-24T10:00:00Z","status":"ok","uptime":text},"status":"ok"}"#
            ]],
        ),
        (
            "/v1/health",
            Err(SubmitError::Overloaded),
            expect![[
                r#"{"client":{"status":"unhealthy","checks":{"connection":"disconnected","database":"unknown"},"last_updated":text,"response_time":number},"reasons":[{"code":"no_answer","message":"the node does not answer in time"}],"server":{"started_at":"2025-10-24T10:00:00Z","status":"ok","uptime":text},"status":"degraded"}"#
            ]],
        ),
        (
            "/v1/status",
            Ok(Reply::Status(status)),
            expect![[
                r#"{"network":{"node_id":"12D3Koo","connected":true,"peer_count":0,"database_size":4096,"uptime":number},"server":{"started_at":"2025-10-24T10:00:00Z","uptime":text}}"#
            ]],
        ),
        (
            "/v1/version",
            Err(SubmitError::NoLeader),
            expect![[
                r#"{"build_time":"","commit":"abc","started_at":"2025-10-24T10:00:00Z","uptime":text,"version":"1.0"}"#
            ]],
        ),
    ] {
        let (reply, _) = on_executor(ask(&options(), answer, &format!("GET {path}")));
        assert_eq!(reply.status(), 200);
        want.assert_eq(&timeless(reply.body()));
    }
}

/// What the two pages about health say of a node that answers like this: `status`, `client.status`, the status
/// code of readiness, and the codes of the reasons of each.
fn health(answer: &Result<Reply, SubmitError>) -> String {
    let page = |path: &str| on_executor(ask(&options(), answer.clone(), &format!("GET {path}"))).0;
    let (health, ready) = (page("/v1/health"), page("/v1/health/ready"));
    assert_eq!(health.status(), 200, "somebody answers");
    let body = |reply: &Response<Bytes>| -> serde_json::Value {
        serde_json::from_slice(reply.body()).unwrap()
    };
    let codes = |body: &serde_json::Value| {
        let reasons = body["reasons"].as_array().unwrap().iter();
        reasons.map(|it| it["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let (health, code, ready) = (body(&health), ready.status().as_u16(), body(&ready));
    assert_eq!(ready["ready"], serde_json::Value::Bool(code == 200));
    let (status, client) = (health["status"].as_str(), health["client"]["status"].as_str());
    let (status, client) = (status.unwrap(), client.unwrap());
    format!("{status}/{client} [{}] {code} [{}]", codes(&health), codes(&ready))
}

#[test]
fn health_and_readiness_say_what_is_wrong() {
    let well = Status { n_partitions: 17, n_leading: 17, ..Status::default() };
    for (answer, want) in [
        (Ok(well), "ok/healthy [] 200 []"),
        (Ok(Status { n_fenced: 1, ..well }), "degraded/degraded [fenced] 200 []"),
        (Ok(Status { is_disk_low: true, ..well }), "degraded/degraded [disk_reserve] 200 []"),
        (Ok(Status { is_log_stuck: true, ..well }), "degraded/degraded [log_stuck] 200 []"),
        (Ok(Status { n_leading: 3, ..well }), "ok/healthy [] 200 []"),
        (Ok(Status { n_leaderless: 1, ..well }), "degraded/degraded [no_leader] 503 [no_leader]"),
        (Ok(Status::default()), "degraded/degraded [no_leader] 503 [no_leader]"),
        (Ok(Status { is_stopping: true, ..well }), "ok/healthy [] 503 [stopping]"),
        (
            Ok(Status { n_fenced: 2, n_leaderless: 17, is_stopping: true, ..well }),
            "degraded/degraded [no_leader fenced] 503 [stopping no_leader]",
        ),
        (Err(SubmitError::ShuttingDown), "degraded/unhealthy [stopping] 503 [stopping]"),
        (Err(SubmitError::Overloaded), "degraded/unhealthy [no_answer] 503 [no_answer]"),
    ] {
        assert_eq!(health(&answer.map(Reply::Status)), want);
    }
}
