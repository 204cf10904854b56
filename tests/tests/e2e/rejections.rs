//! What is refused: clearly, with a stable code, and counted.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Stack, Target, mcp,
    raw::Raw,
    rest::{Answer, Rest},
    stack::{MCP_SERVER, REST_API, WORKER},
};
use http::Method;
use rmcp::service::ServiceError;
use serde_json::json;

/// A well-formed key that nobody has.
fn stranger() -> String {
    domain::api_key::Secret::generate().expose().to_owned()
}

#[tokio::test]
async fn bad_keys() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend)
            .services(&[REST_API, MCP_SERVER])
            .start()
            .await?;
        let reader = stack.tenant("acme", "contexts:read").await?;
        let cases = [
            (None, "missing_credentials", "missing"),
            (Some("dmcp_typo".to_owned()), "malformed_key", "malformed"),
            (Some(stranger()), "invalid_key", "invalid"),
        ];
        for (key, code, result) in cases {
            let method = if key.is_some() { "bearer" } else { "none" };
            let rest = Rest::new(&stack.http(REST_API), key.as_deref())
                .get("/api/v1/contexts")
                .await?;
            rest.problem(401, code)?;
            assert!(rest.header("www-authenticate").starts_with("Bearer"), "{rest:?}");
            let mcp = Raw::new(&stack.mcp_url(), key.as_deref())
                .call("tools/list", json!({}))
                .await?;
            mcp.problem(401, code)?;
            assert!(mcp.header("www-authenticate").starts_with("Bearer"), "{mcp:?}");
            for service in [REST_API, MCP_SERVER] {
                let labels = [("method", method), ("result", result)];
                stack
                    .wait_metric(service, "mcp_auth_attempts_total", &labels, |n| n == 1.0)
                    .await?;
            }
        }
        // Both eras' real clients are told so as well.
        for era in Era::ALL {
            assert!(
                mcp::connect(&stack.mcp_url(), &stranger(), era).await.is_err(),
                "{era:?}"
            );
        }

        // A key without the scope.
        let rest = stack.rest(&reader);
        for (method, path, scope) in [
            (Method::POST, "/api/v1/contexts", "contexts:write"),
            (Method::GET, "/api/v1/tools", "tools:read"),
            (Method::GET, "/api/v1/executions", "tools:read"),
            (Method::GET, "/api/v1/keys", "keys:manage"),
        ] {
            let body = (method == Method::POST).then(|| json!({"name": "x"}));
            let problem = rest
                .send(method, path, &[], body.as_ref())
                .await?
                .problem(403, "missing_scope")?;
            assert_eq!(problem["required_scope"], scope, "{path}");
        }
        let labels = [("path", "/api/v1/tools"), ("status", "403"), ("method", "GET")];
        stack
            .wait_metric(REST_API, "http_requests_total", &labels, |n| n == 1.0)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn another_tenant_s_things_do_not_exist() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend)
            .services(&[REST_API, MCP_SERVER])
            .start()
            .await?;
        let ours = stack.rest(&stack.tenant("acme", "all").await?);
        let their_key = stack.tenant("rival", "all").await?;
        let theirs = stack.rest(&their_key);
        let items = json!([{"role": "user", "content": "topsecret"}]);
        let context = ours
            .post("/api/v1/contexts", &json!({"name": "ours", "items": items}))
            .await?
            .expect(201)?;
        let key = ours
            .post(
                "/api/v1/keys",
                &json!({"name": "ours", "scopes": ["contexts:read"]}),
            )
            .await?
            .expect(201)?;
        let tool = json!({"name": "ours", "description": "d", "url": "https://example.com/"});
        ours.post("/api/v1/tools", &tool).await?.expect(201)?;
        let context_path = format!("/api/v1/contexts/{}", text(&context, "id"));
        let key_path = format!("/api/v1/keys/{}", text(&key, "id"));
        let more = json!({"items": items});
        let attempts = [
            (Method::GET, context_path.clone(), None),
            (
                Method::PATCH,
                context_path.clone(),
                Some(json!({"name": "theirs"})),
            ),
            (Method::DELETE, context_path.clone(), None),
            (Method::GET, format!("{context_path}/items"), None),
            (Method::POST, format!("{context_path}/items"), Some(more)),
            (Method::GET, key_path.clone(), None),
            (Method::DELETE, key_path.clone(), None),
            (Method::POST, format!("{key_path}/rotate"), Some(json!({}))),
            (Method::GET, "/api/v1/tools/ours".to_owned(), None),
            (Method::DELETE, "/api/v1/tools/ours".to_owned(), None),
            (
                Method::POST,
                "/api/v1/tools/ours/execute".to_owned(),
                Some(json!({})),
            ),
        ];
        for (method, path, body) in attempts {
            let what = format!("{backend:?}: {method} {path}");
            let answer = theirs.send(method, &path, &[], body.as_ref()).await?;
            answer.problem(404, "not_found").map_err(|e| e.context(what))?;
        }
        for listing in [
            "/api/v1/contexts",
            "/api/v1/contexts/search?q=topsecret",
            "/api/v1/tools",
        ] {
            assert_eq!(
                theirs.get(listing).await?.expect(200)?["items"],
                json!([]),
                "{backend:?}: {listing}"
            );
        }
        for era in Era::ALL {
            let client = stack.mcp(&their_key, era).await?;
            let read = client.call("context_get", &json!({"id": context["id"]})).await?;
            assert_eq!(
                read.structured_content.unwrap_or_default()["error"]["code"],
                "not_found"
            );
            assert_eq!(
                client
                    .structured("context_search", &json!({"query": "topsecret"}))
                    .await?["hits"],
                json!([])
            );
        }
        assert_eq!(ours.get(&context_path).await?.expect(200)?["name"], "ours");
    }
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_json() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, MCP_SERVER])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let (rest, raw) = (stack.rest(&key), stack.raw(&key));

    let item = |bytes: usize| json!({"name": "x", "items": [{"role": "user", "content": "y".repeat(bytes)}]});
    rest.post("/api/v1/contexts", &item(1 << 20)).await?.expect(201)?;
    let problem = rest
        .post("/api/v1/contexts", &item((1 << 20) + 1))
        .await?
        .problem(413, "too_large")?;
    assert_eq!(problem["limit_bytes"], json!(1 << 20));
    let problem = rest
        .post("/api/v1/contexts", &item(3 << 20))
        .await?
        .problem(413, "payload_too_large")?;
    assert!(problem["limit_bytes"].is_number(), "{problem}");
    let labels = [("path", "/api/v1/contexts"), ("status", "413")];
    stack
        .wait_metric(REST_API, "http_requests_total", &labels, |n| n == 2.0)
        .await?;

    let oversize = json!({"name": "context_create", "arguments": item(5 << 20)});
    let answer = raw.call("tools/call", oversize).await?;
    answer.problem(413, "payload_too_large")?;
    stack
        .wait_metric(
            MCP_SERVER,
            "http_requests_total",
            &[("path", "/mcp"), ("status", "413")],
            |n| n == 1.0,
        )
        .await?;

    for (body, code) in [
        ("{\"name\": ", "invalid_json"),
        ("[1, 2]", "invalid_body"),
        ("{\"name\": 7}", "invalid_body"),
        ("{\"name\": \"x\", \"tenant_id\": \"y\"}", "invalid_body"),
        ("\u{0}", "invalid_json"),
    ] {
        let request = rest
            .request(Method::POST, "/api/v1/contexts")
            .header("content-type", "application/json");
        let answer = Answer::read(request.body(body).send().await?).await?;
        answer
            .problem(400, code)
            .or_else(|_| answer.problem(422, code))
            .map_err(|e| e.context(body))?;
    }
    let form = rest.request(Method::POST, "/api/v1/contexts").body("name=x");
    Answer::read(form.send().await?)
        .await?
        .problem(415, "unsupported_media_type")?;
    rest.send(Method::PUT, "/api/v1/contexts", &[], None)
        .await?
        .problem(405, "method_not_allowed")?;
    rest.get("/api/v1/nothing").await?.problem(404, "not_found")?;
    rest.get("/api/v1/contexts/not-a-uuid")
        .await?
        .problem(400, "invalid_path")?;
    let nul = json!({"name": "x", "items": [{"role": "user", "content": "a\u{0}b"}]});
    rest.post("/api/v1/contexts", &nul)
        .await?
        .problem(400, "invalid_argument")?;
    stack
        .wait_metric(
            REST_API,
            "http_requests_total",
            &[("path", "unmatched"), ("status", "404")],
            |n| n == 1.0,
        )
        .await?;

    let version = Era::Modern.version();
    let post = raw
        .post()
        .header("mcp-protocol-version", version)
        .header("mcp-method", "tools/list");
    Answer::read(post.body("{\"jsonrpc\": ").send().await?)
        .await?
        .problem(400, "parse_error")?;
    stack
        .wait_metric(
            MCP_SERVER,
            "http_requests_total",
            &[("path", "/mcp"), ("status", "400")],
            |n| n >= 1.0,
        )
        .await?;
    Ok(())
}

#[tokio::test]
async fn unknown_tools_and_ill_fitting_arguments() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite).start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    rest.post("/api/v1/tools/nope/execute", &json!({}))
        .await?
        .problem(404, "not_found")?;
    for era in Era::ALL {
        let client = stack.mcp(&key, era).await?;
        let Err(ServiceError::McpError(error)) = client.call("nope", &json!({})).await else {
            anyhow::bail!("{era:?}: an unknown tool was not refused");
        };
        assert_eq!(error.code.0, -32602, "{era:?}: {error}");
        let refused = client.call("context_create", &json!({"title": "x"})).await?;
        assert_eq!(refused.is_error, Some(true));
        let error = refused.structured_content.clone().unwrap_or_default();
        assert_eq!(error["error"]["code"], "invalid_arguments", "{era:?}");
        assert!(
            mcp::text(&refused).contains("name"),
            "{era:?}: {}",
            mcp::text(&refused)
        );
    }
    let metric = "mcp_server_operation_duration_seconds_count";
    stack
        .wait_metric(
            MCP_SERVER,
            metric,
            &[("tool", "other"), ("error_type", "-32602")],
            |n| n == 2.0,
        )
        .await?;
    let labels = [("tool", "context_create"), ("error_type", "tool_error")];
    stack
        .wait_metric(MCP_SERVER, metric, &labels, |n| n == 2.0)
        .await?;

    // Tools that cannot be registered.
    let tool = |change: Json| {
        let mut tool = json!({"name": "t", "description": "d", "url": "https://example.com/"});
        if let (Some(tool), Json::Object(change)) = (tool.as_object_mut(), change) {
            tool.extend(change);
        }
        tool
    };
    for bad in [
        json!({"input_schema": {"type": "array"}}),
        json!({"input_schema": {"type": "object", "properties": {"a": {"type": "strin"}}}}),
        json!({"url": "file:///etc/passwd"}),
        json!({"url": "https://{host}/"}),
        json!({"name": "context_get"}),
        json!({"name": "has space"}),
        json!({"timeout_ms": 0}),
        json!({"headers": {"bad header": "x"}}),
    ] {
        let answer = rest.post("/api/v1/tools", &tool(bad.clone())).await?;
        answer
            .problem(400, "invalid_argument")
            .map_err(|e| e.context(bad.to_string()))?;
    }
    let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    rest.post("/api/v1/tools", &tool(json!({"input_schema": schema})))
        .await?
        .expect(201)?;
    let answer = rest
        .post("/api/v1/tools/t/execute", &json!({"arguments": {"n": "one"}}))
        .await?;
    let problem = answer.problem(400, "invalid_arguments")?;
    assert!(text(&problem, "detail").contains("/n"), "{problem}");
    let labels = [("path", "/api/v1/tools/{name}/execute"), ("status", "400")];
    stack
        .wait_metric(REST_API, "http_requests_total", &labels, |n| n == 1.0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn private_addresses_by_number_by_name_and_by_redirect() -> Outcome {
    let target = Target::start().await?;
    // 127.0.0.1 alone is open: from there it redirects to what is not.
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API, WORKER]);
    let stack = builder
        .set(WORKER, "OUTBOUND__ALLOW_PRIVATE", "127.0.0.1/32")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let port = target.port();
    let redirect = |to: &str| target.url(&format!("/redirect?to={to}"));
    let cases = [
        ("number", "http://127.0.0.2/".to_owned(), "loopback"),
        ("odd-number", "http://0x7f000002/".to_owned(), "loopback"),
        ("v6", format!("http://[::1]:{port}/"), "loopback"),
        ("private", "http://10.0.0.1/".to_owned(), "private"),
        (
            "metadata",
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "metadata",
        ),
        ("redirect", redirect("http://127.0.0.2/"), "loopback"),
        (
            "redirect-to-metadata",
            redirect("http://169.254.169.254/"),
            "metadata",
        ),
    ];
    for (name, url, reason) in cases {
        let before = stack
            .metrics(WORKER)
            .await?
            .sum("worker_guard_refusals_total", &[("reason", reason)]);
        rest.post(
            "/api/v1/tools",
            &json!({"name": name, "description": "d", "url": url}),
        )
        .await?
        .expect(201)?;
        let ran = rest
            .post(&format!("/api/v1/tools/{name}/execute"), &json!({}))
            .await?
            .expect(200)?;
        assert_eq!(
            (&ran["status"], &ran["error"]["code"]),
            (&json!("failed"), &json!("address_not_allowed")),
            "{name}: {ran}"
        );
        let after = stack
            .metrics(WORKER)
            .await?
            .sum("worker_guard_refusals_total", &[("reason", reason)]);
        assert_eq!(after - before, 1.0, "{name} is counted once");
        let labels = [("tool", name), ("status", "failed")];
        stack
            .wait_metric(REST_API, "mcp_tool_executions_total", &labels, |n| n == 1.0)
            .await?;
    }

    // By a name: with nothing open, localhost is refused when it is resolved.
    let closed = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, WORKER])
        .start()
        .await?;
    let rest = closed.rest(&closed.tenant("acme", "all").await?);
    let tool = json!({"name": "name", "description": "d", "url": format!("http://localhost:{port}/")});
    rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    let ran = rest
        .post("/api/v1/tools/name/execute", &json!({}))
        .await?
        .expect(200)?;
    assert_eq!(ran["error"]["code"], "address_not_allowed", "{ran}");
    closed
        .wait_metric(
            WORKER,
            "worker_guard_refusals_total",
            &[("reason", "loopback")],
            |n| n >= 1.0,
        )
        .await?;
    assert!(
        target.seen().iter().all(|seen| seen.uri.starts_with("/redirect")),
        "a guarded address was called"
    );
    Ok(())
}

#[tokio::test]
async fn too_many_requests_get_a_hint_when_to_come_again() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend)
            .services(&[REST_API, MCP_SERVER])
            // So slow that none is given back while the test runs.
            .set(MCP_SERVER, "RATE_LIMIT__PER_SECOND", "0.001")
            .set(MCP_SERVER, "RATE_LIMIT__BURST", "3")
            .start()
            .await?;
        let raw = stack.raw(&stack.tenant("acme", "all").await?);
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let answer = raw.call("tools/list", json!({})).await?;
            statuses.push(answer.status.as_u16());
            if answer.status == 429 {
                answer.problem(429, "rate_limited")?;
                let seconds = answer.header("retry-after").parse::<u32>()?;
                assert!((1..=1000).contains(&seconds), "{backend:?}: {seconds}");
            }
        }
        assert_eq!(statuses, [200, 200, 200, 429, 429], "{backend:?}");
        let labels = [("scope", "mcp"), ("decision", "limited")];
        stack
            .wait_metric(MCP_SERVER, "rate_limit_decisions_total", &labels, |n| n == 2.0)
            .await?;
    }
    Ok(())
}
