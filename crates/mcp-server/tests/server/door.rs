//! Who comes in and who does not; what is refused, and how it is told.

use crate::support::{ALL, House, eventually};
use domain::TenantId;
use futures_util::{StreamExt, future::join_all};
use serde_json::{Value, json};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

#[tokio::test]
async fn bad_keys_are_refused_with_a_challenge_and_counted() {
    let house = House::start().await;
    let unknown = domain::api_key::Secret::generate().expose().to_owned();
    for (key, code, result) in [
        ("nonsense", "malformed_key", "malformed"),
        (&*unknown, "invalid_key", "invalid"),
    ] {
        let answer = house
            .post(&house.url, key, "tools/list", json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 401);
        assert!(
            answer.headers()["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer")
        );
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (&body["code"], &body["error"]["data"]["code"]),
            (&json!(code), &json!(code))
        );
        let counted = format!(r#"method="bearer",result="{result}""#);
        assert!(house.metrics().contains(&counted), "{counted}");
    }
    let answer = house.http.post(&house.url).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.json::<Value>().await.unwrap()["code"],
        "missing_credentials"
    );
    // Whoever looks for OAuth must hear that there is none.
    let other = house.url.replace("/mcp", "/.well-known/oauth-protected-resource");
    assert_eq!(house.http.get(other).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn requests_at_once_ask_once_and_a_revoked_key_ends_within_a_second() {
    let house = House::start().await;
    let begun = Instant::now();
    let answers = join_all((0..20).map(|_| house.modern(&house.key, "tools/list", json!({})))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    // A verdict is good for a second, in which a busy machine may not answer all of them.
    let most = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(house.rest.asked_who.load(Ordering::SeqCst) <= most);
    house.rest.revoke(&house.key);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let (status, body) = house.modern(&house.key, "tools/list", json!({})).await;
    assert_eq!((status, &body["code"]), (401, &json!("invalid_key")));
}

#[tokio::test]
async fn without_rest_api_keys_cannot_be_verified_and_the_answer_says_so() {
    let house = House::start().await;
    house.rest.stop(house.rest_address).await;
    // A connection that is told to close still takes calls for a moment.
    let answer = loop {
        let fresh = house.rest.key(house.tenant, ALL);
        let call = house.post(&house.url, &fresh, "tools/list", json!({}));
        let answer = call.send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
    };
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    eventually("readiness tells", || {
        !house.mcp.host.readiness.dependency("rest-api").is_up()
    })
    .await;
    house.rest.serve(house.rest_address).await;
    let key = house.rest.key(house.tenant, ALL);
    assert_eq!(house.modern(&key, "tools/list", json!({})).await.0, 200);
    eventually("readiness tells", || {
        house.mcp.host.readiness.dependency("rest-api").is_up()
    })
    .await;
}

#[tokio::test]
async fn scopes_decide_what_is_listed_and_what_runs() {
    let house = House::start().await;
    house.rest.register(house.tenant, "echo");
    house.until_tools(8).await;
    let names = async |key: &str| -> Vec<String> {
        let (_, list) = house.modern(key, "tools/list", json!({})).await;
        list["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let reader = house.rest.key(house.tenant, "contexts:read");
    assert_eq!(
        names(&reader).await,
        ["context_get", "context_list", "context_search"]
    );
    let runner = house.rest.key(house.tenant, "tools:execute");
    assert_eq!(names(&runner).await, ["echo"]);
    let stranger = house.rest.key(TenantId::new(), ALL);
    assert!(!names(&stranger).await.contains(&"echo".to_owned()));

    for (key, tool) in [
        (&reader, "context_create"),
        (&reader, "echo"),
        (&runner, "context_get"),
    ] {
        let answer = house.call(key, tool, json!({"name": "x"})).await;
        let error = &answer["result"]["structuredContent"]["error"];
        assert_eq!(error["code"], "missing_scope", "{answer}");
        assert!(error["required_scope"].is_string());
    }
    let writer = house.rest.key(house.tenant, "contexts:write");
    let (_, denied) = house.modern(&writer, "resources/list", json!({})).await;
    assert_eq!(denied["error"]["data"]["code"], "missing_scope");
}

#[tokio::test]
async fn errors_are_clear_and_keep_what_is_internal() {
    let house = House::start().await;
    let unknown = house.call(&house.key, "nope", json!({})).await;
    assert_eq!(
        (&unknown["error"]["code"], &unknown["error"]["data"]["code"]),
        (&json!(-32602), &json!("unknown_tool"))
    );

    let code = |answer: &Value| answer["result"]["structuredContent"]["error"]["code"].clone();
    let misfit = house
        .call(&house.key, "context_search", json!({"query": 5, "other": 1}))
        .await;
    assert_eq!(code(&misfit), "invalid_arguments");
    let text = misfit["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("/query") && text.contains("other"), "{text}");

    let large = house
        .call(
            &house.key,
            "context_append",
            json!({"id": "x", "items": [{"role": "a", "content": "b"}]}),
        )
        .await;
    assert_eq!(code(&large), "too_large");
    let broken = house.call(&house.key, "context_update", json!({"id": "x"})).await;
    assert_eq!(code(&broken), "internal");
    assert!(!broken.to_string().contains("secret of the database"), "{broken}");

    let stranger = house.rest.key(TenantId::new(), ALL);
    let made = house
        .call(&house.key, "context_create", json!({"name": "ours"}))
        .await;
    let id = made["result"]["structuredContent"]["context"]["id"].clone();
    assert_eq!(
        code(&house.call(&stranger, "context_get", json!({"id": id})).await),
        "not_found"
    );
    let uri = format!("context://{}", id.as_str().unwrap());
    let (_, read) = house
        .modern(&stranger, "resources/read", json!({"uri": uri}))
        .await;
    assert_eq!(
        (&read["error"]["code"], &read["error"]["data"]["code"]),
        (&json!(-32602), &json!("not_found"))
    );
    let (status, method) = house.modern(&house.key, "no/such/method", json!({})).await;
    assert_eq!((status, &method["error"]["code"]), (404, &json!(-32601)));
}

#[tokio::test]
async fn what_is_no_mcp_is_told_in_json() {
    let house = House::start().await;
    let post = |body: String| {
        house
            .http
            .post(&house.url)
            .bearer_auth(&house.key)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body)
    };
    for (body, status, code) in [
        ("{".to_owned(), 400, "parse_error"),
        ("[1]".to_owned(), 400, "invalid_request"),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string(),
            400,
            "bad_request",
        ),
        (format!("\"{}\"", "x".repeat(3 << 20)), 413, "payload_too_large"),
    ] {
        let answer = post(body).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), code), (status, code));
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code);
    }
    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 64 << 10])).take(100);
    let answer = post(String::new())
        .body(reqwest::Body::wrap_stream(endless))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);

    for (method, header) in [("tools/list", "1999-01-01"), ("tools/list", "2025-11-25")] {
        let mut request = house
            .post(&house.url, &house.key, method, json!({}))
            .build()
            .unwrap();
        request
            .headers_mut()
            .insert("mcp-protocol-version", header.parse().unwrap());
        let answer = house.http.execute(request).await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                &answer.json::<Value>().await.unwrap()["error"]["code"]
            ),
            (400, &json!(-32020))
        );
    }
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "1999-01-01", "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
    let answer = post(body.to_string())
        .header("mcp-protocol-version", "1999-01-01")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.json::<Value>().await.unwrap()["error"]["code"]
        ),
        (400, &json!(-32022))
    );
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let house =
        House::with(|settings| settings.allowed_origins = vec!["https://app.example.com:443".into()]).await;
    let ask = async |name: &'static str, value: &'static str| {
        let request = house
            .post(&house.url, &house.key, "tools/list", json!({}))
            .header(name, value);
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap()["code"].clone(),
        )
    };
    assert_eq!(
        ask("host", "evil.example.com").await,
        (403, json!("forbidden_host"))
    );
    assert_eq!(
        ask("origin", "https://evil.example.com").await,
        (403, json!("forbidden_origin"))
    );
    assert_eq!(ask("origin", "https://app.example.com").await.0, 200);

    let open = House::with(|settings| settings.allowed_hosts = vec!["*".into()]).await;
    let request = open
        .post(&open.url, &open.key, "tools/list", json!({}))
        .header("host", "mcp-server:8080");
    assert_eq!(request.send().await.unwrap().status(), 200);

    // Pages of the same machine are its user's own, where nothing else is served.
    let local = House::with(|_| {}).await;
    for (house, origin, status) in [
        (&local, "http://localhost:6274", 200),
        (&local, "http://localhost.evil.example", 403),
        (&open, "http://localhost:6274", 403),
    ] {
        let request = house.post(&house.url, &house.key, "tools/list", json!({}));
        let answer = request.header("origin", origin).send().await.unwrap();
        assert_eq!(answer.status(), status, "{origin}");
    }
}

#[tokio::test]
async fn a_key_has_its_rate() {
    let house = House::with(|settings| {
        settings.rate_limit.per_second = 0.5;
        settings.rate_limit.burst = 2;
    })
    .await;
    for expected in [200, 200, 429] {
        let answer = house
            .post(&house.url, &house.key, "tools/list", json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected);
        if expected == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            let body: Value = answer.json().await.unwrap();
            assert!(
                body["retry_after_ms"].as_u64().unwrap() > 0
                    && body["error"]["data"]["code"] == "rate_limited"
            );
        }
    }
    let other = house.rest.key(house.tenant, ALL);
    assert_eq!(house.modern(&other, "tools/list", json!({})).await.0, 200);
}
