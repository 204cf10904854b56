//! Several replicas of a service: what they share, and what only one of them tells.

use crate::Outcome;
use e2e::{
    Backend, Era, PATIENCE, Stack, mcp,
    raw::Raw,
    scrape::Scrape,
    stack::{MCP_SERVER, REST_API},
    wait_at_most, wait_for,
};
use http::Method;
use serde_json::json;
use std::time::Duration;

/// The stack that replicas need: a database and a Redis that several processes can share.
async fn shared(services: &[&'static str]) -> anyhow::Result<Option<Stack>> {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(None);
    }
    let builder = Stack::builder(Backend::Postgres).services(services);
    let limited = builder
        // So slow that none is given back while a test runs.
        .set(MCP_SERVER, "RATE_LIMIT__PER_SECOND", "0.001")
        .set(MCP_SERVER, "RATE_LIMIT__BURST", "10");
    limited.start().await.map(Some)
}

#[tokio::test]
async fn shared_gauges_come_from_exactly_one_replica() -> Outcome {
    let Some(mut stack) = shared(&[REST_API]).await? else {
        return Ok(());
    };
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    for i in 0..3 {
        rest.post("/api/v1/contexts", &json!({"name": format!("{i}")}))
            .await?
            .expect(201)?;
    }
    let (_second, second_url) = stack.replica(REST_API).await?;
    let first_url = stack.http(REST_API);
    let exported = async |url: &str| -> Option<Vec<f64>> {
        let scrape = Scrape::of(url).await.ok()?;
        Some(
            scrape
                .all("mcp_contexts_active", &[])
                .map(|sample| sample.value)
                .collect(),
        )
    };
    wait_for("the first one to count", async || {
        (exported(&first_url).await? == [3.0]).then_some(())
    })
    .await?;
    for _ in 0..20 {
        // The first one may be too busy to hold its lease: what counts is that it exports before and after.
        let (before, second, after) = (
            exported(&first_url).await,
            exported(&second_url).await,
            exported(&first_url).await,
        );
        let first = [before, after].map(|values| values.unwrap_or_default());
        if first == [[3.0], [3.0]] {
            assert_eq!(second, Some(vec![]), "both export the gauge");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.process(REST_API).signal("-TERM")?;
    stack.process_mut(REST_API).ended(PATIENCE).await?;
    wait_for("the second one to take over", async || {
        (exported(&second_url).await? == [3.0]).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_key_revoked_on_one_replica_stops_on_the_other() -> Outcome {
    let Some(stack) = shared(&[REST_API]).await? else {
        return Ok(());
    };
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let (_second, second_url) = stack.replica(REST_API).await?;
    let made = rest
        .post("/api/v1/keys", &json!({"name": "k", "scopes": ["contexts:read"]}))
        .await?
        .expect(201)?;
    let secret = made["secret"].as_str().unwrap_or_default();
    let elsewhere = e2e::rest::Rest::new(&second_url, Some(secret));
    elsewhere.get("/api/v1/contexts").await?.expect(200)?;
    let path = format!("/api/v1/keys/{}", made["id"].as_str().unwrap_or_default());
    rest.send(Method::DELETE, &path, &[], None).await?.expect(200)?;
    wait_at_most(
        Duration::from_secs(1),
        "the other replica to refuse",
        async || (elsewhere.get("/api/v1/contexts").await.ok()?.status == 401).then_some(()),
    )
    .await
}

#[tokio::test]
async fn a_legacy_session_is_taken_up_by_another_replica_and_ends_on_all() -> Outcome {
    let Some(stack) = shared(&[REST_API, MCP_SERVER]).await? else {
        return Ok(());
    };
    let key = stack.tenant("acme", "all").await?;
    let (_second, second_url) = stack.replica(MCP_SERVER).await?;
    let (here, there) = (
        stack.raw(&key),
        Raw::new(&format!("{second_url}/mcp"), Some(&key)),
    );
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": Era::Legacy.version(), "capabilities": {}, "clientInfo": {"name": "e2e", "version": "0"},
    }});
    let answer = here.post().json(&initialize).send().await?;
    let session = answer.headers()["mcp-session-id"].to_str()?.to_owned();
    answer.text().await?;
    let within = |raw: &Raw, message: &serde_json::Value| {
        let request = raw.post().header("mcp-session-id", &session);
        request
            .header("mcp-protocol-version", Era::Legacy.version())
            .json(message)
            .send()
    };
    within(
        &here,
        &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    )
    .await?;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = e2e::rest::Answer::read(within(&there, &list).await?).await?;
    assert!(
        e2e::raw::response(&answer)?["result"]["tools"].is_array(),
        "{answer:?}"
    );

    // Nobody else's key opens it.
    let rival = stack.tenant("rival", "all").await?;
    let stranger = Raw::new(&format!("{second_url}/mcp"), Some(&rival));
    assert_eq!(
        within(&stranger, &list).await?.status(),
        404,
        "another tenant is in the session"
    );

    let end = e2e::http_client()
        .delete(stack.mcp_url())
        .bearer_auth(&key)
        .header("mcp-session-id", &session);
    assert!(end.send().await?.status().is_success());
    let third = stack.replica(MCP_SERVER).await?;
    let third = Raw::new(&format!("{}/mcp", third.1), Some(&key));
    assert_eq!(
        within(&third, &list).await?.status(),
        404,
        "an ended session was taken up"
    );
    Ok(())
}

#[tokio::test]
async fn a_key_s_quota_is_one_for_all_replicas() -> Outcome {
    let Some(stack) = shared(&[REST_API, MCP_SERVER]).await? else {
        return Ok(());
    };
    let key = stack.tenant("acme", "all").await?;
    let (_second, second_url) = stack.replica(MCP_SERVER).await?;
    let (here, there) = (
        stack.raw(&key),
        Raw::new(&format!("{second_url}/mcp"), Some(&key)),
    );
    let mut allowed = 0;
    for i in 0..16 {
        let raw = if i % 2 == 0 { &here } else { &there };
        allowed += u32::from(raw.call("tools/list", json!({})).await?.status == 200);
    }
    assert_eq!(allowed, 10);
    // Another key has its own.
    let other = stack.key("acme", "contexts:read").await?;
    assert!(mcp::connect(&stack.mcp_url(), &other, Era::Modern).await.is_ok());
    Ok(())
}
