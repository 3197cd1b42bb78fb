//! A gateway in its server: over a socket, and what it says to it.

use super::*;

#[test]
fn over_a_socket() {
    on_executor(async {
        let node = Fake { answer: Ok(Reply::Results(vec![counts(1, 2)])), asked: Rc::default() };
        let options = options();
        let gateway = Gateway::new(&options, info(), node).unwrap();
        let server = Running::start(options.http, gateway);
        let mut client = server.connect().await;
        let body = r#"{"sql":"INSERT"}"#;
        let exec = |key: &str| {
            format!(
                "POST /v1/rqlite/exec HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        client.send(exec("ak_1") + &exec("ak_2")).await;
        let want = r#"200 {"execution_state":"ok","last_insert_id":2,"rows_affected":1}"#;
        assert_eq!(client.brief().await, want);
        assert_eq!(client.brief().await, r#"401 {"error":"invalid API key"}"#);
        client.send("HEAD /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
        assert!(client.reply().await.is_none(), "a head without a body, then the end");
        // None of these bodies ever comes: who may not send one is told so at once.
        let promise = "Host: t\r\nContent-Length: 99000000\r\n";
        for (head, want) in [
            (format!("POST / HTTP/1.1\r\nX-API-Key: ak_1\r\n{promise}"), 413),
            (format!("POST /v1/rqlite/exec HTTP/1.1\r\n{promise}"), 401),
            (format!("POST /v1/rqlite/exec HTTP/1.1\r\nX-API-Key: ak_2\r\n{promise}"), 401),
            (format!("POST /health HTTP/1.1\r\n{promise}"), 413),
            (format!("OPTIONS / HTTP/1.1\r\n{promise}"), 413),
            ("GET /health HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n".to_owned(), 413),
        ] {
            let mut client = server.connect().await;
            client.send(format!("{head}\r\n")).await;
            let (status, reply, _) = client.reply().await.expect("a reply");
            assert_eq!(status, want, "{head}");
            assert!(reply.contains("access-control-allow-origin: *"), "{reply}");
            assert!(reply.contains("connection: close"), "{reply}");
        }
    });
}

#[test]
fn what_the_server_refuses_is_answered_in_kind() {
    let node = Fake { answer: Err(SubmitError::NoLeader), asked: Rc::default() };
    let gateway = Gateway::new(&options(), info(), node).unwrap();
    let head = |method, path| {
        let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
        request.into_parts().0
    };
    let reply = gateway.refuse(&head("POST", "/v1/rqlite/exec"), Refusal::BodyTooLarge);
    assert_eq!(reply.status(), 413);
    assert_eq!(reply.headers()["access-control-allow-origin"], "*");
    let body = b"{\"code\":\"body_bytes\",\"error\":\"request body is too large\"}\n";
    assert_eq!(&reply.body()[..], body);
    let reply = gateway.refuse(&head("GET", "/"), Refusal::HeadBroken);
    assert_eq!(reply.status(), 400);
    let want = b"{\"code\":\"malformed_head\",\"error\":\"malformed request head\"}\n";
    assert_eq!(&reply.body()[..], want);
    // It counts for the route that was asked for.
    for (method, path) in [("POST", "/v1/rqlite/exec"), ("PUT", "/nowhere"), ("OPTIONS", "/")] {
        gateway.refuse(&head(method, path), Refusal::BodyTimeout);
    }
    let snapshot = gateway.stats().borrow().snapshot();
    let got: Vec<_> = snapshot.routes.iter().map(|it| (it.route, &*it.statuses)).collect();
    let want = [
        ("/v1/rqlite/exec", &[(413, 1), (408, 1)][..]),
        ("other", &[(400, 1), (408, 1)]),
        ("preflight", &[(408, 1)]),
    ];
    assert_eq!(got, want);
    let limits: Vec<_> = snapshot.refusals.iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(limits, [&("body_bytes", 1)]);
}

/// Connections move to the core that serves them, also those of clients whose requests fail.
#[test]
fn a_reply_says_who_served_it_also_if_it_is_an_error() {
    let mut options = options();
    options.keys.push(("ak_far".to_owned(), Namespace::new("far").unwrap()));
    let query = "POST /v1/rqlite/query X-API-Key: ak_far\n{\"sql\":\"x\"}";
    let here = query.replace("ak_far", "ak_1");
    let done = Ok(Reply::Results(vec![two_rows()]));
    let missing = Err(StatementError::new("no such table: t").into());
    let too_many = Err(SubmitError::TooMany(TooMany { wait: Duration::from_secs(1) }));
    let far = Some(ServedBy::Core(ShardId(3)));
    let nobody = Some(ServedBy::Nobody);
    for (answer, request, want) in [
        (done.clone(), query, far),
        (missing.clone(), query, far),
        (done.clone(), "POST /v1/rqlite/query X-API-Key: ak_far\n{", far),
        (done.clone(), &here, None),
        (missing, &here, None),
        (too_many, query, nobody),
        (done.clone(), "POST /v1/rqlite/query\n{}", nobody),
        (done.clone(), "GET /v1/rqlite/query X-API-Key: ak_far", nobody),
        (done, "GET /nothing X-API-Key: ak_far", nobody),
    ] {
        let (reply, _) = on_executor(ask(&options, answer, request));
        assert_eq!(reply.extensions().get(), want.as_ref(), "{request}");
    }
}

#[test]
fn each_core_has_its_own_names() {
    let options = options();
    let node = Fake { answer: Err(SubmitError::NoLeader), asked: Rc::default() };
    let gateway = Gateway::new(&options, info(), node).unwrap();
    let own = gateway.policy.client_namespace.as_ref().unwrap();
    assert_eq!(own, &options.client_namespace);
    assert_ne!(own.as_str().as_ptr(), options.client_namespace.as_str().as_ptr());
}
