//! Endpoints that break the rules: each ends a run with a clear error, in bounded memory, and holds nothing up.

use crate::runs::{HERE, call, deaf, ended, runner, settings, tool};
use domain::{
    execution::{ExecutionStatus, Outcome},
    tool::ToolSpec,
};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use worker::runner::Runner;

/// The tenant has one slot, which the run before must have given back.
fn one_at_a_time() -> Runner {
    let mut settings = settings();
    settings.concurrency.per_tenant = 1;
    settings.outbound.max_response_bytes = 64 * 1024;
    runner(&settings)
}

/// Takes connections for ever, and does with each what `behave` says.
async fn endpoint<F, B>(behave: B) -> String
where
    F: Future<Output = ()> + Send + 'static,
    B: Fn(TcpStream) -> F + Send + 'static,
{
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                    return;
                }
            }
            tokio::spawn(behave(stream));
        }
    });
    url
}

/// Answers with exactly these bytes; then closes, or stays silent for ever.
async fn says(bytes: impl Into<Vec<u8>>, closes: bool) -> String {
    let bytes = bytes.into();
    endpoint(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            // Who has read enough closes while we write.
            let _ = stream.write_all(&bytes).await;
            if !closes {
                std::future::pending().await
            }
        }
    })
    .await
}

/// Says `opening` and then `again` without an end, as fast as it is taken or with a pause after each.
async fn goes_on(opening: &'static str, again: &'static str, pause: Option<Duration>) -> String {
    endpoint(move |mut stream| async move {
        let mut written = stream.write_all(opening.as_bytes()).await;
        while written.is_ok() {
            written = stream.write_all(again.as_bytes()).await;
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

async fn run(runner: &Runner, url: String, timeout_ms: u32) -> Outcome {
    let tool = ToolSpec {
        timeout_ms,
        read_only: true,
        ..tool("GET", url)
    };
    runner.run(call(tool, json!({})), &deaf()).await.outcome
}

fn head(rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{rest}\r\n")
}

async fn a_good_one_still_runs(runner: &Runner) {
    let good = says(head("content-length: 2\r\n") + "ok", false).await;
    let outcome = run(runner, good, 60_000).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Succeeded, ""));
}

#[tokio::test]
async fn what_is_not_http_is_a_lost_connection() {
    let runner = one_at_a_time();
    for (bytes, closes) in [
        ("\x16\x03\x01 this is not HTTP\r\n\r\n".to_owned(), false),
        (head("content-length: 2\r\ncontent-length: 3\r\n") + "ok", false),
        (head("content-length: many\r\n") + "ok", false),
        (head("content-length: 99\r\n") + "not that much", true),
        (head("transfer-encoding: chunked\r\n") + "zz\r\nok\r\n", false),
        (head("transfer-encoding: chunked\r\n") + "5\r\nhal", true),
        (
            head("transfer-encoding: chunked\r\n") + "ffffffffffffffffff\r\n",
            false,
        ),
        (head("no colon here\r\n"), false),
        (String::new(), true),
    ] {
        let outcome = run(&runner, says(bytes.clone(), closes).await, 60_000).await;
        assert_eq!(
            ended(&outcome),
            (ExecutionStatus::Failed, "connection_lost"),
            "{bytes:?}"
        );
        assert!(!outcome.error.unwrap().message.contains("not that much"));
    }
    a_good_one_still_runs(&runner).await;
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let runner = one_at_a_time();
    let large_header = format!("x-large: {}\r\n", "x".repeat(1 << 20));
    let many_headers: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let large_location = format!("HTTP/1.1 302 Found\r\nlocation: /{}\r\n\r\n", "x".repeat(1 << 20));
    for bytes in [head(&large_header), head(&many_headers), large_location] {
        let outcome = run(&runner, says(bytes, false).await, 60_000).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "response_too_large"));
    }
    let headers = goes_on(
        "HTTP/1.1 200 OK\r\n",
        "x-more: and more and more and more\r\n",
        None,
    )
    .await;
    let body = goes_on(
        "HTTP/1.1 200 OK\r\n\r\n",
        "more and more and more and more and more",
        None,
    )
    .await;
    for url in [headers, body] {
        let outcome = run(&runner, url, 60_000).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "response_too_large"));
    }
    a_good_one_still_runs(&runner).await;
}

#[tokio::test]
async fn what_never_ends_ends_with_its_time() {
    let runner = one_at_a_time();
    let pause = Some(Duration::from_millis(20));
    for url in [
        says("", false).await,
        says(head("content-length: 2\r\n"), false).await,
        goes_on("HTTP/1.1 200 OK\r\n\r\n", ".", pause).await,
        goes_on("HTTP/1.1 200 OK\r\n", "x: y\r\n", pause).await,
        goes_on("", "HTTP/1.1 103 Early Hints\r\n\r\n", pause).await,
        goes_on(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "1\r\n.\r\n",
            pause,
        )
        .await,
    ] {
        let outcome = run(&runner, url, 500).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "timeout"));
    }
    a_good_one_still_runs(&runner).await;
}

#[tokio::test]
async fn garbage_that_calls_itself_json_fails_and_is_shown() {
    let runner = one_at_a_time();
    let json = |body: &[u8]| {
        let head = head(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ));
        [head.as_bytes(), body].concat()
    };
    for (body, shown, encoding) in [
        (&b"<html>"[..], json!("<html>"), json!(null)),
        (b"{\"a\":1} trailing", json!("{\"a\":1} trailing"), json!(null)),
        (b"{\"a\":\"\xff\"}", json!("eyJhIjoi/yJ9"), json!("base64")),
    ] {
        let outcome = run(&runner, says(json(body), false).await, 60_000).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "invalid_response"));
        let result = outcome.result.unwrap();
        assert_eq!((&result["body"], &result["encoding"]), (&shown, &encoding));
    }
    let html = head("content-type: text/html\r\ncontent-length: 6\r\n") + "<html>";
    let outcome = run(&runner, says(html, false).await, 60_000).await;
    assert_eq!(outcome.result.unwrap()["body"], "<html>");
}

#[tokio::test]
async fn what_is_compressed_stays_so() {
    // "aaaaa…", 1000 of them.
    let zipped = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 76, 28, 5, 163, 96, 20, 12, 119, 0, 0, 3, 218, 56, 154, 232, 3,
        0, 0,
    ];
    let head = head(&format!(
        "content-type: text/plain\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n",
        zipped.len()
    ));
    let answer = [head.as_bytes(), &zipped].concat();
    let outcome = run(&one_at_a_time(), says(answer, false).await, 60_000).await;
    let result = outcome.result.unwrap();
    assert_eq!(
        (&result["encoding"], &result["headers"]["content-encoding"]),
        (&json!("base64"), &json!("gzip"))
    );
    assert!(result["body"].as_str().unwrap().len() < 50);
}
