//! Tools from OpenAPI documents.

use crate::{Outcome, rest_api, text};
use axum::{Router, routing::get};
use e2e::{Backend, Json, Stack, Target, rest::Answer, rest::Rest};
use http::Method;
use serde_json::json;
use std::net::SocketAddr;

const IMPORT: &str = "/api/v1/tools/import";

/// A small API, called at `server`.
fn orders(server: &str) -> Json {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Orders", "version": "1"},
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
                "login": {"type": "oauth2", "flows": {}},
            },
            "schemas": {
                "Line": {"type": "object", "required": ["sku"], "properties": {
                    "sku": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}}}},
            },
        },
        "paths": {
            "/echo/users/{user-id}/orders": {
                "parameters": [
                    {"name": "user-id", "in": "path", "required": true, "schema": {"type": "string"}},
                    {"name": "X-Region", "in": "header", "schema": {"type": "string"}},
                ],
                "get": {
                    "operationId": "orders/list", "summary": "Lists orders.", "tags": ["orders"],
                    "parameters": [
                        {"name": "page[size]", "in": "query", "schema": {"type": "integer"}},
                        {"name": "state", "in": "query", "explode": false,
                            "schema": {"type": "array", "items": {"type": "string"}}},
                        {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                    ],
                },
                "post": {
                    "operationId": "orders/create", "tags": ["orders"], "security": [{"key": []}],
                    "parameters": [{"name": "dry_run", "in": "query", "schema": {"type": "boolean"}}],
                    "requestBody": {"required": true, "content": {"application/json": {"schema": {
                        "type": "object", "required": ["lines"], "properties": {
                            "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
                            "@note": {"type": "string"},
                        }}}}},
                },
            },
            "/echo/forms": {
                "post": {"operationId": "forms", "security": [{"login": ["write"]}],
                    "requestBody": {"required": true, "content": {"application/x-www-form-urlencoded": {"schema": {
                        "type": "object", "properties": {"a": {"type": "string"}, "m": {"type": "object"}}}}}}},
            },
            "/echo/files": {
                "put": {"operationId": "upload", "requestBody": {"required": true, "content": {"multipart/form-data": {}}}},
            },
            "/echo/elsewhere": {
                "get": {"operationId": "elsewhere", "servers": [{"url": "http://127.0.0.1:9"}]},
            },
        },
    })
}

/// All services, a tenant's caller, and an endpoint for tools.
async fn world() -> anyhow::Result<(Stack, Rest, Target)> {
    let target = Target::start().await?;
    let stack = Stack::builder(Backend::Sqlite).allow_private().start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    Ok((stack, rest, target))
}

async fn import(rest: &Rest, body: &Json) -> anyhow::Result<Answer> {
    rest.post(IMPORT, body).await
}

fn named<'a>(answer: &'a Json, name: &str) -> &'a Json {
    let tools = answer["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    tools
        .iter()
        .find(|tool| tool["name"] == name)
        .unwrap_or(&Json::Null)
}

async fn run(rest: &Rest, name: &str, arguments: &Json) -> Outcome {
    let path = format!("/api/v1/tools/{name}/execute");
    let ran = rest
        .post(&path, &json!({ "arguments": arguments }))
        .await?
        .expect(200)?;
    anyhow::ensure!(ran["status"] == "succeeded", "{ran}");
    Ok(())
}

#[tokio::test]
async fn a_document_is_previewed_imported_and_its_tools_run() -> Outcome {
    let (_stack, rest, target) = world().await?;
    let document = orders(&target.url(""));
    let credentials = json!({
        "token": {"type": "bearer", "token": "t0ken"}, "key": {"type": "header", "name": "X-Key", "value": "k3y"},
    });
    let ask = |preview: bool| {
        json!({
            "document": document, "preview": preview, "prefix": "shop_", "credentials": credentials,
        })
    };

    let preview = import(&rest, &ask(true)).await?.expect(200)?;
    assert_eq!(preview["title"], "Orders");
    assert_eq!(preview["counts"]["created"], 4, "{preview}");
    let list = named(&preview, "shop_orders_list");
    assert_eq!((text(list, "action"), text(list, "method")), ("created", "GET"));
    assert_eq!(list["simplified"][0]["code"], "cookie_parameter");
    assert_eq!(list["tool"]["input_schema"]["required"], json!(["user_id"]));
    assert_eq!(list["tool"]["read_only"], true);
    assert_eq!(
        named(&preview, "shop_orders_create")["simplified"][0]["code"],
        "recursion_open"
    );
    assert_eq!(preview["left_out"][0]["operation"], "upload");
    assert_eq!(preview["left_out"][0]["code"], "media_type");
    let wanted: Vec<_> = preview["credentials"].as_array().into_iter().flatten().collect();
    assert_eq!(wanted.len(), 3, "{preview}");
    assert!(
        wanted
            .iter()
            .any(|w| w["scheme"] == "login" && w["type"] == "bearer" && w["given"] == false)
    );
    assert!(!preview.to_string().contains("t0ken") && !preview.to_string().contains("k3y"));
    let none = rest.get("/api/v1/tools").await?.expect(200)?;
    assert_eq!(none["items"], json!([]), "a preview registers nothing");

    let made = import(&rest, &ask(false)).await?.expect(201)?;
    assert_eq!(made["counts"]["created"], 4);
    assert_eq!(named(&made, "shop_orders_list")["version"], 1);
    let elsewhere = named(&made, "shop_elsewhere");
    assert_eq!(
        elsewhere["has_credentials"], false,
        "another server is not shown the document's keys"
    );
    assert_eq!(elsewhere["simplified"][0]["code"], "credentials_withheld");

    let arguments = json!({"user_id": "a/b", "page_size": 5, "state": ["open", "sent"], "X-Region": "eu"});
    run(&rest, "shop_orders_list", &arguments).await?;
    let arguments = json!({"user_id": "7", "dry_run": true, "lines": [{"sku": "x"}], "note": "n"});
    run(&rest, "shop_orders_create", &arguments).await?;
    run(&rest, "shop_forms", &json!({"a": "b c", "m": {"k": "v"}})).await?;
    let [listed, created, form] = &target.seen()[..] else {
        anyhow::bail!("{:?}", target.seen())
    };
    let query = reqwest::Url::parse(&target.url(&listed.uri))?;
    assert_eq!(query.path(), "/echo/users/a%2Fb/orders");
    let pairs: Vec<(String, String)> = query.query_pairs().into_owned().collect();
    assert!(pairs.contains(&("page[size]".into(), "5".into())), "{pairs:?}");
    assert!(pairs.contains(&("state".into(), "open,sent".into())), "{pairs:?}");
    assert_eq!(pairs.len(), 2, "a header is no query: {pairs:?}");
    assert_eq!(
        (listed.header("x-region"), listed.header("authorization")),
        ("eu", "Bearer t0ken")
    );
    assert_eq!(created.uri, "/echo/users/7/orders?dry_run=true");
    assert_eq!(
        (created.header("x-key"), created.header("authorization")),
        ("k3y", "")
    );
    let body: Json = serde_json::from_str(&created.body)?;
    assert_eq!(body, json!({"lines": [{"sku": "x"}], "@note": "n"}));
    assert_eq!(form.header("content-type"), "application/x-www-form-urlencoded");
    let form = reqwest::Url::parse(&format!("http://h/?{}", form.body))?;
    let pairs: Vec<(String, String)> = form.query_pairs().into_owned().collect();
    assert_eq!(pairs, [("a".into(), "b c".into()), ("m[k]".into(), "v".into())]);
    Ok(())
}

#[tokio::test]
async fn names_that_are_taken_fail_are_skipped_or_replaced() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let ask = |server: &str, on_conflict: &str| json!({"document": orders(server), "methods": ["get"], "on_conflict": on_conflict});
        let [first, second] = ["https://one.example", "https://two.example"];
        import(&rest, &ask(first, "fail")).await?.expect(201)?;
        let again = import(&rest, &ask(first, "fail")).await?.expect(200)?;
        assert_eq!(again["counts"]["unchanged"], 2, "the same again is nothing new");
        let refused = import(&rest, &ask(second, "fail"))
            .await?
            .problem(409, "already_exists")?;
        assert_eq!(refused["tools"], json!(["orders_list"]), "{refused}");
        let skipped = import(&rest, &ask(second, "skip")).await?.expect(200)?;
        assert_eq!(
            (&skipped["counts"]["skipped"], &skipped["counts"]["unchanged"]),
            (&json!(1), &json!(1))
        );
        let replaced = import(&rest, &ask(second, "replace")).await?.expect(201)?;
        assert_eq!(replaced["counts"]["replaced"], 1);
        assert_eq!(named(&replaced, "orders_list")["version"], 2);
        let tool = rest.get("/api/v1/tools/orders_list").await?.expect(200)?;
        assert!(text(&tool, "url").starts_with(second), "{tool}");

        // YAML as the body itself, and a key that may not do it.
        let yaml = "openapi: 3.0.0\ninfo: {title: t}\nservers: [{url: https://h.example}]\npaths: {/a: {get: {tags: [x]}}}";
        let request = rest.request(Method::POST, &format!("{IMPORT}?tags=x,y&prefix=y_"));
        let request = request.header("content-type", "application/yaml").body(yaml);
        let made = Answer::read(request.send().await?).await?.expect(201)?;
        assert_eq!(named(&made, "y_get_a")["path"], "/a");
        let reader = json!({"name": "reader", "scopes": ["tools:read"]});
        let reader = rest.post("/api/v1/keys", &reader).await?.expect(201)?;
        let reader = rest.with_key(Some(text(&reader, "secret")));
        import(&reader, &ask(first, "skip"))
            .await?
            .problem(403, "missing_scope")?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_hostile_or_wrong_gets_a_clear_error() -> Outcome {
    let (_stack, rest) = rest_api(Backend::Sqlite).await?;
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    let deep = format!("{{\"openapi\": {}", "[".repeat(10_000));
    let many = json!({"openapi": "3.0.0", "servers": [{"url": "https://h"}],
        "paths": (0..501).map(|i| (format!("/p{i}"), json!({"get": {}}))).collect::<serde_json::Map<_, _>>()});
    let good = orders("https://h.example");
    for (body, status, code) in [
        (json!({"document": laughs}), 413, "document_too_large"),
        (json!({"document": deep}), 413, "document_too_large"),
        (json!({"document": "{]"}), 422, "document_syntax"),
        (json!({"document": "a: *b"}), 422, "document_syntax"),
        (json!({"document": {"hello": 1}}), 422, "not_openapi"),
        (
            json!({"document": {"swagger": "2.0", "paths": {}}}),
            422,
            "openapi_version",
        ),
        (json!({"document": many}), 422, "too_many_tools"),
        (json!({}), 400, "invalid_argument"),
        (
            json!({"document": good, "url": "https://h"}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "server": "javascript:alert(1)"}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "prefix": "a b"}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "timeout_ms": 0}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "retry": {"max_attempts": 99}}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "credentials": {"type": "bearer"}}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "credentials": {"none": {"type": "bearer", "token": "s3cret"}}}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "credentials": "s3cret"}),
            400,
            "invalid_argument",
        ),
        (
            json!({"document": good, "timeout_ms": "s3cret"}),
            422,
            "invalid_body",
        ),
        (json!({"url": "file:///etc/passwd"}), 400, "invalid_argument"),
        (json!({"document": good, "unknown": 1}), 422, "invalid_body"),
    ] {
        let answer = import(&rest, &body).await?;
        let problem = answer.problem(status, code)?;
        assert!(!problem.to_string().contains("s3cret"), "{problem}");
    }
    // One operation that cannot be leaves the others as they are.
    let mut mixed = good.clone();
    mixed["paths"]["/a/../../{b}"] = json!({"get": {"operationId": "climbs"}});
    mixed["paths"]["/js"] =
        json!({"get": {"operationId": "js", "servers": [{"url": "javascript:alert(1)"}]}});
    mixed["paths"]["/host"] = json!({"get": {"operationId": "host",
        "parameters": [{"name": "Host", "in": "header", "required": true, "schema": {"type": "string"}}]}});
    mixed["paths"]["/ref"] = json!({"$ref": "http://169.254.169.254/latest"});
    mixed["paths"]["/twice"] = json!({"get": {"operationId": "js"}, "post": {"operationId": "js"}});
    let answer = import(&rest, &json!({"document": mixed, "preview": true}))
        .await?
        .expect(200)?;
    let left: Vec<(&str, &str)> = answer["left_out"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|left| (text(left, "operation"), text(left, "code")))
        .collect();
    for expected in [
        ("climbs", "path"),
        ("js", "server_url"),
        ("host", "header_parameter"),
        ("/ref", "external_reference"),
    ] {
        assert!(left.contains(&expected), "{expected:?} in {left:?}");
    }
    assert_ne!(named(&answer, "js_2"), &Json::Null, "{answer}");

    // Larger than other bodies, but not larger than an import may be.
    let padded = |bytes: usize| {
        json!({"document": good, "preview": true, "prefix": "p", "server": "https://h", "paths": ["/none"], "operations": [" ".repeat(100)], "tags": [], "credentials": null, "methods": [], "url": null, "on_conflict": "skip", "timeout_ms": 1, "retry": null})
        .to_string()
        .replace("\"Orders\"", &format!("\"{}\"", "x".repeat(bytes)))
    };
    for (bytes, status) in [(4 << 20, 200), (17 << 20, 413)] {
        let request = rest
            .request(Method::POST, IMPORT)
            .header("content-type", "application/json");
        let answer = Answer::read(request.body(padded(bytes)).send().await?).await?;
        answer.expect(status)?;
    }
    Ok(())
}

/// Serves one document, wherever it is asked for.
async fn serve(document: String) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/openapi.yaml", get(async move || document.clone()))
        .route("/big", get(async || "x".repeat(17 << 20)))
        .route("/page", get(async || "<html></html>"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

#[tokio::test]
async fn a_document_is_fetched_by_a_worker_and_only_from_where_tools_may_go() -> Outcome {
    let mut document = orders("/v1");
    document["servers"] = json!([{"url": "../v1"}]);
    let address = serve(document.to_string()).await?;
    let (_stack, rest, _target) = world().await?;
    let ask = |path: &str| json!({"url": format!("http://{address}{path}"), "operations": ["orders/list"]});
    let made = import(&rest, &ask("/openapi.yaml")).await?.expect(201)?;
    assert_eq!(made["counts"]["created"], 1);
    let tool = rest.get("/api/v1/tools/orders_list").await?.expect(200)?;
    assert_eq!(
        tool["url"],
        format!("http://{address}/v1/echo/users/{{user_id}}/orders")
    );
    for (path, code) in [("/none", "http_status"), ("/page", "not_openapi")] {
        import(&rest, &ask(path)).await?.problem(422, code)?;
    }
    let big = import(&rest, &ask("/big")).await?;
    anyhow::ensure!(matches!(big.status.as_u16(), 413 | 422), "{big:?}");

    let guarded = Stack::builder(Backend::Sqlite).start().await?;
    let key = guarded.tenant("acme", "all").await?;
    import(&guarded.rest(&key), &ask("/openapi.yaml"))
        .await?
        .problem(422, "address_not_allowed")?;
    Ok(())
}

/// A document that names another server from one day to the next is not given what was meant for the first.
#[tokio::test]
async fn credentials_stay_behind_when_a_tool_moves_to_another_server() -> Outcome {
    let (_stack, rest, target) = world().await?;
    let (here, elsewhere) = (target.url(""), Target::start().await?);
    let secret = json!({"type": "bearer", "token": "for-here-only"});
    let ask =
        json!({"document": orders(&here), "operations": ["orders/list"], "credentials": {"token": secret}});
    import(&rest, &ask).await?.expect(201)?;
    let body = json!({"arguments": {"user_id": "u"}});
    let call = async |name: &str| rest.post(&format!("/api/v1/tools/{name}/execute"), &body).await;
    let name = "orders_list";
    call(name).await?.expect(200)?;
    assert_eq!(target.seen()[0].header("authorization"), "Bearer for-here-only");

    let moved = json!({"document": orders(&elsewhere.url("")), "operations": ["orders/list"], "on_conflict": "replace"});
    let answer = import(&rest, &moved).await?.expect(201)?;
    let tool = named(&answer, name);
    assert_eq!(tool["has_credentials"], false, "{answer}");
    assert!(
        tool["simplified"].to_string().contains("credentials_removed"),
        "{answer}"
    );
    call(name).await?.expect(200)?;
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
    Ok(())
}
