use super::*;
use crate::{ServiceInfo, grpc, metrics::Registry, settings, traces::testing};
use axum::{Router, body::Body, extract::Request, middleware, response::Response, routing::get};
use opentelemetry::trace::SpanKind;
use serde_json::json;
use std::time::Duration;
use tower::{Service, ServiceExt};

const REMOTE_SPAN: &str = "00f067aa0ba902b7";

/// As a service has it: ids, authentication, span, routes.
fn stack(routes: Router) -> Router {
    async fn authenticate(request: Request, next: middleware::Next) -> Response {
        if let Some(key) = request.headers().get("authorization") {
            let may_debug = key == "operator";
            let caller = Caller {
                tenant: "acme".into(),
                key_id: "key-1".to_owned(),
                may_debug,
            };
            request
                .extensions()
                .get::<RequestScope>()
                .unwrap()
                .set_caller(caller);
        }
        next.run(request).await
    }
    routes
        .layer(SpanLayer::new())
        .layer(middleware::from_fn(authenticate))
        .layer(IdsLayer::new().exclude("/healthz"))
}

fn request(path: &str, trace_id: &str, flags: &str) -> http::request::Builder {
    Request::builder()
        .uri(path)
        .header("traceparent", format!("00-{trace_id}-{REMOTE_SPAN}-{flags}"))
}

fn measured<F: Future>(future: F) -> (F::Output, String) {
    testing::tracer();
    let info = ServiceInfo {
        name: "test",
        version: "0",
    };
    let declarations = [crate::metrics::own::DECLARATIONS];
    let registry = Registry::new(info.name, &declarations, &settings::Metrics::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let output = ::metrics::with_local_recorder(registry.recorder(), || runtime.block_on(future));
    (output, registry.render(None).1)
}

fn hello() -> Router {
    Router::new()
        .route("/items/{id}", get(async || "hello"))
        .route("/healthz", get(async || "ok"))
}

async fn send(app: Router, request: http::request::Builder) -> Response {
    app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[test]
fn one_trace_goes_from_the_client_through_http_and_grpc_to_the_query() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4711";
    let ((), _) = measured(async {
        let peer = grpc::tests::peer().await;
        let handler = async move || {
            let mut peer = peer.clone();
            let seen = grpc::tests::call(&mut peer, "0").await;
            crate::db::query("sqlite", "items.get", "SELECT 1", |()| true, async { Ok(()) })
                .await
                .unwrap();
            seen
        };
        let app = stack(Router::new().route("/items/{id}", get(handler)));
        let builder = request("/items/7", trace_id, "01")
            .header("authorization", "key")
            .header("x-request-id", "r-1");
        let response = send(app, builder).await;
        assert_eq!(header(&response, "x-request-id"), "r-1");
        assert_eq!(header(&response, "x-trace-id"), trace_id);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, "r-1", "the peer knew the request id");
        testing::settle().await;
    });
    let spans = testing::spans(trace_id);
    let of = |name: &str, kind| {
        let found = spans
            .iter()
            .find(|span| span.name == name && span.span_kind == kind);
        found.unwrap_or_else(|| panic!("{name}: {spans:#?}"))
    };
    let server = of("GET /items/{id}", SpanKind::Server);
    let client = of("test.Echo/Say", SpanKind::Client);
    let peer = of("test.Echo/Say", SpanKind::Server);
    let query = of("items.get", SpanKind::Client);
    assert_eq!(server.parent_span_id.to_string(), REMOTE_SPAN);
    assert_eq!(client.parent_span_id, server.span_context.span_id());
    assert_eq!(peer.parent_span_id, client.span_context.span_id());
    assert_eq!(query.parent_span_id, server.span_context.span_id());
    assert_eq!(spans.len(), 4);
    let attribute = |key: &str| {
        server
            .attributes
            .iter()
            .find(|kv| kv.key.as_str() == key)
            .map(|kv| kv.value.to_string())
    };
    assert_eq!(attribute("http.route").as_deref(), Some("/items/{id}"));
    assert_eq!(attribute("url.path").as_deref(), Some("/items/7"));
    assert_eq!(attribute("tenant.id").as_deref(), Some("acme"));
    assert_eq!(attribute("request.id").as_deref(), Some("r-1"));
    assert_eq!(attribute("devops_mcp.debug"), None);
    assert_eq!(attribute("http.response.status_code").as_deref(), Some("200"));
}

#[test]
fn an_unsampled_request_has_ids_and_no_span() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4712";
    let ((), _) = measured(async {
        let app = stack(Router::new().route(
            "/ids",
            get(async || {
                assert!(!crate::context::is_sampled());
                let span = crate::span::child(|| panic!("no span is made"));
                assert!(span.is_none());
                let id = crate::context::current_request_id().unwrap();
                format!(
                    "{} {id} {:?}",
                    crate::context::current_trace_id().unwrap(),
                    crate::context::current_tenant()
                )
            }),
        ));
        let response = send(
            app,
            request("/ids", trace_id, "00").header("authorization", "key"),
        )
        .await;
        let id = header(&response, "x-request-id").to_owned();
        let traceresponse = header(&response, "traceresponse").to_owned();
        assert!(traceresponse.starts_with(&format!("00-{trace_id}-")) && traceresponse.ends_with("-00"));
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, format!("{trace_id} {id} Some(\"acme\")"));
    });
    assert_eq!(testing::spans(trace_id).len(), 0);
}

#[test]
fn a_strangers_flags_count_for_nothing() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4713";
    let ((), text) = measured(async {
        let routes = Router::new().route(
            "/h",
            get(async |headers: http::HeaderMap| {
                assert!(!headers.contains_key("baggage") && !headers.contains_key("x-debug-trace"));
                crate::context::is_sampled().to_string()
            }),
        );
        for (key, flags, expected) in [
            (None, "01", "false"),
            (Some("key"), "00", "false"),
            (Some("operator"), "00", "true"),
        ] {
            let mut builder = request("/h", trace_id, flags)
                .header("baggage", "a=b")
                .header("x-debug-trace", "1")
                .header("x-request-id", "bad id");
            if let Some(key) = key {
                builder = builder.header("authorization", key);
            }
            let response = send(stack(routes.clone()), builder).await;
            assert_eq!(header(&response, "x-request-id").len(), 36);
            let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
            assert_eq!(body, expected, "{key:?}");
        }
    });
    assert_eq!(testing::spans(trace_id).len(), 1, "only the operator may debug");
    for line in [
        r#"debug_requests_total{service="test",outcome="forbidden"} 2"#,
        r#"debug_requests_total{service="test",outcome="granted"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn of_many_requests_that_ask_for_debug_a_few_are_granted_it_and_all_are_answered() {
    const ASKED: u64 = 30;
    let ((), text) = measured(async {
        let app = stack(hello());
        for path in ["/items/1", "/healthz"]
            .into_iter()
            .cycle()
            .take(2 * ASKED as usize)
        {
            let builder = Request::builder()
                .uri(path)
                .header("authorization", "operator")
                .header("x-debug-trace", "true");
            assert_eq!(send(app.clone(), builder).await.status(), 200);
        }
    });
    let counted = |outcome: &str| {
        let series = format!(r#"debug_requests_total{{service="test",outcome="{outcome}"}} "#);
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse::<u64>().unwrap()
    };
    // A second may pass meanwhile, and bring new ones. Probes ask in vain and are not counted.
    let (granted, limited) = (counted("granted"), counted("limited"));
    assert_eq!((granted + limited, counted("forbidden")), (ASKED, 0));
    assert!((5..ASKED).contains(&granted), "{granted}");
}

#[test]
fn slow_and_failed_requests_are_kept_by_route_and_probes_are_not() {
    let settings = crate::settings::RecentRequests {
        slow_ms: 0,
        ..Default::default()
    };
    crate::recent::tests::with_settings(&settings, || {
        measured(async {
            let streamed = async || {
                let bytes = futures_util::stream::once(async { Ok::<_, std::io::Error>("x") });
                Body::from_stream(bytes)
            };
            let routes = hello()
                .route("/fails", get(async || http::StatusCode::BAD_GATEWAY))
                .route("/stream", get(streamed));
            let app = stack(routes);
            for path in ["/items/7", "/fails", "/healthz"] {
                let id = format!("kept{}", path.replace('/', "-"));
                let builder = Request::builder().uri(path).header("x-request-id", id);
                send(app.clone(), builder.header("authorization", "key")).await;
            }
            let builder = Request::builder()
                .uri("/stream")
                .header("x-request-id", "kept-stream");
            let response = send(app, builder).await;
            assert_eq!(
                crate::recent::find("kept-stream").len(),
                0,
                "it is still being sent"
            );
            axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
            assert_eq!(crate::recent::find("kept-stream").len(), 1);
        });
        let of = |id: &str| crate::recent::find(id).first().map(|record| record.to_json());
        let (item, fails) = (of("kept-items-7").unwrap(), of("kept-fails").unwrap());
        assert_eq!(
            (&item["name"], &item["status"], &item["tenant"], &item["key_id"]),
            (
                &json!("GET /items/{id}"),
                &json!("200"),
                &json!("acme"),
                &json!("key-1")
            )
        );
        assert_eq!(
            (&item["reasons"], &fails["reasons"]),
            (&json!(["slow"]), &json!(["slow", "failed"]))
        );
        assert_eq!(of("kept-healthz"), None);
    });
}

#[test]
fn metrics_are_by_template_and_bounded() {
    let ((), text) = measured(async {
        let app = stack(hello());
        send(app.clone(), Request::builder().uri("/items/1")).await;
        send(app.clone(), Request::builder().uri("/items/2")).await;
        send(app.clone(), Request::builder().uri("/nowhere")).await;
        send(app.clone(), Request::builder().uri("/healthz")).await;
        send(app, Request::builder().method("BREW").uri("/items/1")).await;
    });
    for line in [
        r#"http_requests_total{service="test",method="GET",path="/items/{id}",status="200"} 2"#,
        r#"http_requests_total{service="test",method="GET",path="unmatched",status="404"} 1"#,
        r#"http_requests_total{service="test",method="other",path="/items/{id}",status="405"} 1"#,
        r#"http_requests_in_flight{service="test"} 0"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("healthz"), "{text}");
}

#[test]
fn a_client_that_hangs_up_counts_as_499() {
    let ((), text) = measured(async {
        let mut app = stack(Router::new().route("/slow", get(async || std::future::pending::<()>().await)));
        let request = Request::builder().uri("/slow").body(Body::empty()).unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(10), app.call(request)).await;
        assert!(answer.is_err());
    });
    assert!(
        text.contains(r#"method="GET",path="/slow",status="499"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"http_requests_in_flight{service="test"} 0"#),
        "{text}"
    );
}

#[test]
fn a_streamed_body_stays_in_its_request_and_keeps_the_span_open() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4714";
    let ((), _) = measured(async {
        let handler = async || {
            Body::from_stream(futures_util::stream::once(async {
                assert_eq!(testing::spans(trace_id).len(), 0, "the span is open");
                Ok::<_, std::io::Error>(crate::context::current_trace_id().unwrap_or_default())
            }))
        };
        let app = stack(Router::new().route("/stream", get(handler)));
        let response = send(
            app,
            request("/stream", trace_id, "01").header("authorization", "key"),
        )
        .await;
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, trace_id);
    });
    assert_eq!(testing::spans(trace_id).len(), 1);
}

#[test]
fn a_trace_that_begins_here_has_the_id_that_the_client_is_told_and_no_parent() {
    let (trace_id, _) = measured(async {
        let builder = Request::builder()
            .uri("/items/1")
            .header("authorization", "operator")
            .header("x-debug-trace", "1");
        header(&send(stack(hello()), builder).await, "x-trace-id").to_owned()
    });
    let spans = testing::spans(&trace_id);
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].parent_span_id, opentelemetry::trace::SpanId::INVALID);
    let debugged = opentelemetry::KeyValue::new("devops_mcp.debug", true);
    assert!(spans[0].attributes.contains(&debugged), "{spans:#?}");
}

#[test]
fn each_request_has_one_access_line_with_its_ids() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4715";
    let lines = crate::logs::tests::as_json("info", || {
        measured(async {
            let failing = async || (http::StatusCode::BAD_GATEWAY, "no");
            let app = stack(hello().route("/fails", get(failing)));
            for (path, flags) in [
                ("/items/7", "00"),
                ("/items/8", "01"),
                ("/fails", "00"),
                ("/healthz", "00"),
            ] {
                let builder = request(path, trace_id, flags).header("authorization", "key");
                send(
                    app.clone(),
                    builder.header("x-request-id", path.replace('/', ".")),
                )
                .await;
            }
        });
    });
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(
                (&line["target"], &line["trace_id"]),
                (&json!("access"), &json!(trace_id))
            );
            assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["tenant"] == "acme");
            let of = |key: &str| line[key].as_str().unwrap().to_owned();
            (
                of("level"),
                of("request_id"),
                of("path"),
                line["status"].as_u64(),
                line["bytes"].as_u64(),
            )
        })
        .collect();
    let line = |level: &str, id: &str, path: &str, status, bytes| {
        (
            level.to_owned(),
            id.to_owned(),
            path.to_owned(),
            Some(status),
            Some(bytes),
        )
    };
    assert_eq!(
        seen,
        [
            line("INFO", ".items.7", "/items/{id}", 200, 5),
            line("INFO", ".items.8", "/items/{id}", 200, 5),
            line("WARN", ".fails", "/fails", 502, 2),
        ]
    );
    // The sampled one's line points at its span.
    let spans = testing::spans(trace_id);
    assert_eq!(lines[1]["span_id"], spans[0].span_context.span_id().to_string());
}
