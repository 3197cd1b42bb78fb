//! The sum of what replies hold.

use super::*;
use crate::gateway::held::Bounds;

#[test]
fn replies_that_nobody_takes_have_a_bound_and_what_was_written_is_answered_all_the_same() {
    on_executor(async {
        let text = "x".repeat(20_000);
        let large = StatementResult::Rows(rows(&["a"], &[Value::Text(&text)]));
        let asked = Rc::default();
        let answer = Ok(Reply::Results(vec![large]));
        let node = Fake { answer, asked: Rc::clone(&asked) };
        let mut gateway = Gateway::new(&options(), info(), node).unwrap();
        let bounds = Bounds {
            reads: 100_000,
            writes: 500_000,
            result: 200_000,
            keyed: 200_000,
            least: 100,
            ..Bounds::new(0)
        };
        gateway.held = Holdings::new(bounds);
        let ask = async |path: &str, sql: &str| {
            let builder = HttpRequest::builder().method("POST").uri(path);
            let (head, ()) = builder.header("X-API-Key", "ak_1").body(()).unwrap().into_parts();
            gateway.call(head, format!(r#"{{"sql":"{sql}"}}"#).into()).await
        };
        let read = || ask("/v1/rqlite/query", "SELECT a FROM t");
        let write = || ask("/v1/rqlite/exec", "DELETE FROM t RETURNING a");
        // The text has the value twice: one fits into the half that one namespace may have.
        let first = read().await;
        assert_eq!(first.status(), 200);
        let refused = read().await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        // Writes have a bound of their own, and know before they are proposed.
        let kept: Vec<_> = [write().await, write().await].into();
        assert!(kept.iter().all(|it| it.status() == 200));
        assert!(kept.iter().all(|it| it.body().size().is_some_and(|it| it > 40_000)));
        asked.take();
        let mut replies = kept;
        let refused = loop {
            let reply = write().await;
            if reply.status() != 200 {
                break reply;
            }
            replies.push(reply);
            assert!(replies.len() < 20, "there is a bound");
        };
        assert_eq!(refused.status(), 503);
        assert_eq!(asked.take().len(), replies.len() - 2, "what is refused was not proposed");
        // Taken or given up: there is room again.
        drop((first, replies));
        assert_eq!([read().await.status(), write().await.status()], [200, 200]);
        assert_eq!(ask("/v1/rqlite/exec", "DELETE FROM t").await.status(), 200);
    });
}
