//! What each tool over one HTTP source must endure: that the source is away, slow, or says too much, and that its
//! caller leaves.

use super::testing::{self, Fake};
use crate::{outcome::Code, sources::Kind, tools::built_in::BuiltIn};
use serde_json::Value;

/// Proves it of a tool that asks `path` first.
pub(crate) async fn endures<B: BuiltIn>(kind: Kind, path: &str, arguments: Value) {
    let code = async |url: &str| {
        let sources = testing::sources([("main", kind, url)]);
        let failed = testing::call::<B>(&sources, arguments.clone()).await;
        failed.expect_err("this cannot succeed").code
    };
    // Nothing listens where a listener was.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(code(&format!("http://{gone}")).await, Code::SourceUnavailable);

    let broken = Fake::start().await;
    broken.on_status(path, 503, "no healthy upstream");
    assert_eq!(code(&broken.url).await, Code::SourceUnavailable);
    broken.on_status(path, 200, "<html>");
    assert_eq!(code(&broken.url).await, Code::SourceError);
    broken.on_status(path, 200, r#"{"unknown": "object"}"#);
    assert_eq!(code(&broken.url).await, Code::SourceError);

    let endless = Fake::start().await;
    endless.on_status(path, 200, format!("[\"{}\"]", "x".repeat(2 << 20)));
    assert_eq!(code(&endless.url).await, Code::ResponseTooLarge);

    let slow = Fake::start().await;
    slow.hang(path);
    assert_eq!(code(&slow.url).await, Code::Timeout);

    let left = Fake::start().await;
    left.hang(path);
    let sources = testing::sources([("main", kind, &left.url)]);
    tokio::select! {
        answered = testing::call::<B>(&sources, arguments.clone()) => panic!("{answered:?}"),
        () = left.is_asked() => {}
    }
    left.is_left().await;
}
