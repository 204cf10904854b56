//! The log level, changed while a service runs.

use crate::{Outcome, text};
use e2e::{
    Backend, Stack,
    rest::{Answer, Rest},
    stack::{ADMIN_TOKEN, REST_API},
    wait_for,
};
use http::Method;
use serde_json::json;

#[tokio::test]
async fn the_log_level_is_changed_as_the_guide_says() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let admin = Rest::new(&stack.http(REST_API), Some(ADMIN_TOKEN));
    let put = async |body: &'static str| {
        // As `curl -d` sends it.
        let request = admin
            .request(Method::PUT, "/admin/log-level")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        Answer::read(request.send().await?).await
    };
    assert_eq!(put(r#"{"level": "debug"}"#).await?.expect(200)?["level"], "debug");
    let parts = put(r#"{"level": "sqlx=debug,mcp_server=trace", "ttl": "1s"}"#)
        .await?
        .expect(200)?;
    assert_eq!(
        (&parts["level"], &parts["reverts_to"]),
        (&json!("debug,sqlx=debug,mcp_server=trace"), &json!("debug"))
    );
    wait_for("the change to expire", async || {
        let level = admin.get("/admin/log-level").await.ok()?.json();
        (level["level"] == "debug").then_some(())
    })
    .await?;
    assert_eq!(put(r#"{"level": "info"}"#).await?.expect(200)?["level"], "info");
    assert_eq!(
        put(r#"{"level": "sqlx=debug"}"#).await?.expect(200)?["level"],
        "info,sqlx=debug"
    );
    // The rest is still logged.
    let headers = [("x-request-id", "still-logged")];
    let rest = stack.rest(&key);
    rest.send(Method::GET, "/api/v1/contexts", &headers, None)
        .await?
        .expect(200)?;
    stack
        .wait_log(REST_API, |line| {
            line["request_id"] == "still-logged" && line["level"] == "INFO"
        })
        .await?;
    for bad in [
        r#"{"level": "loud"}"#,
        r#"{"level": "sqlx=loud"}"#,
        r#"{"level": "=debug"}"#,
        "debug",
        "{}",
    ] {
        let problem = put(bad).await?.problem(400, "invalid_log_level")?;
        assert!(
            text(&problem, "allowed").contains("off, error, warn, info, debug or trace"),
            "{problem}"
        );
    }
    let changes = stack.metrics(REST_API).await?;
    let of = |cause| changes.sum("log_level_changes_total", &[("cause", cause)]);
    assert_eq!((of("request"), of("expiry")), (4.0, 1.0));
    Ok(())
}
