//! Sessions of protocol versions before 2026-07-28, by hand.

use crate::support::{House, LEGACY, replica};
use domain::TenantId;
use reqwest::Method;
use serde_json::{Value, json};

fn legacy(
    house: &House,
    method: Method,
    key: &str,
    session: Option<&str>,
    body: &Value,
) -> reqwest::RequestBuilder {
    let mut request = house
        .http
        .request(method, &house.url)
        .header("x-api-key", key)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .body(body.to_string());
    if let Some(session) = session {
        request = request
            .header("mcp-session-id", session)
            .header("mcp-protocol-version", LEGACY);
    }
    request
}

async fn open(house: &House) -> String {
    let params =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = legacy(house, Method::POST, &house.key, None, &body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let answer = legacy(house, Method::POST, &house.key, Some(&session), &body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    session
}

fn list() -> Value {
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
}

#[tokio::test]
async fn a_session_is_its_tenants_alone() {
    let house = House::start().await;
    let session = open(&house).await;
    let other = house.rest.key(TenantId::new(), crate::support::ALL);
    for (method, body) in [(Method::POST, list()), (Method::GET, json!({}))] {
        let answer = legacy(&house, method, &other, Some(&session), &body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "session_not_found");
    }
    // It cannot be ended by another tenant either.
    legacy(&house, Method::DELETE, &other, Some(&session), &json!({}))
        .send()
        .await
        .unwrap();
    let answer = legacy(&house, Method::POST, &house.key, Some(&session), &list())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("context_get"));

    assert!(house.metrics().contains("mcp_sessions_active"));
    let ended = legacy(&house, Method::DELETE, &house.key, Some(&session), &json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(ended.status(), 202);
    let answer = legacy(&house, Method::POST, &house.key, Some(&session), &list())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn a_displaced_session_is_taken_up_again_where_its_beginning_is_known() {
    let mut house = House::with(|settings| settings.sessions.max_per_tenant = 1).await;
    let first = open(&house).await;
    let second = open(&house).await;
    assert_ne!(first, second);
    let answer = legacy(&house, Method::POST, &house.key, Some(&first), &list())
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.status(),
        200,
        "restored from the stored initialize parameters"
    );

    // Without Redis another replica knows nothing of it, and says so in a way that makes clients begin anew.
    let other = replica(house.rest_address, |_| ()).await;
    house.url = format!("http://{}/mcp", other.http);
    let answer = legacy(&house, Method::POST, &house.key, Some(&first), &list())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn a_session_that_says_it_is_ready_again_and_again_is_told_of_a_change_once() {
    let house = House::start().await;
    let session = open(&house).await;
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    for _ in 0..20 {
        let answer = legacy(&house, Method::POST, &house.key, Some(&session), &ready);
        assert_eq!(answer.send().await.unwrap().status(), 202);
    }
    let stream = legacy(&house, Method::GET, &house.key, Some(&session), &json!({}));
    let mut stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    house.rest.register(house.tenant, "deploy");
    let mut told = String::new();
    const NEWS: &str = "notifications/tools/list_changed";
    let first = async {
        while !told.contains(NEWS) {
            let chunk = stream.chunk().await.unwrap().expect("the stream stays open");
            told.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, first)
        .await
        .expect("the change is told");
    // And no second time.
    let quiet = std::time::Duration::from_secs(1);
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(quiet, stream.chunk()).await {
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(told.matches(NEWS).count(), 1, "{told}");
}

#[tokio::test]
async fn a_full_server_says_when_to_come_again() {
    let house = House::with(|settings| settings.sessions.max = 1).await;
    open(&house).await;
    let other = house.rest.key(TenantId::new(), crate::support::ALL);
    let params =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = legacy(&house, Method::POST, &other, None, &body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "too_many_sessions");
}

#[tokio::test]
async fn the_stream_of_a_revoked_key_ends() {
    let house = House::start().await;
    let session = open(&house).await;
    let stream = legacy(&house, Method::GET, &house.key, Some(&session), &json!({}));
    let mut stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    house.rest.revoke(&house.key);
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(crate::support::PATIENCE, ended)
        .await
        .expect("the stream ends");
}
