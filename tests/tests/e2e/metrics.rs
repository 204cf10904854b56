//! What `/metrics` says.

use crate::{Outcome, text};
use chassis::Service;
use e2e::{
    Backend, Era, Stack, Target,
    scrape::Scrape,
    stack::{MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use serde_json::json;
use std::collections::BTreeSet;
use telemetry::metrics::{Declaration, catalogue};

/// What the guide names, and which service has it.
const GUIDE: [(&str, &str); 16] = [
    (REST_API, "http_requests_total"),
    (REST_API, "http_request_duration_seconds"),
    (REST_API, "http_requests_in_flight"),
    (REST_API, "mcp_contexts_created_total"),
    (REST_API, "mcp_contexts_active"),
    (REST_API, "mcp_context_size_bytes"),
    (REST_API, "mcp_tool_executions_total"),
    (REST_API, "mcp_auth_attempts_total"),
    (REST_API, "mcp_api_keys_active"),
    (REST_API, "db_query_duration_seconds"),
    (REST_API, "grpc_server_requests_total"),
    (MCP_SERVER, "http_requests_total"),
    (MCP_SERVER, "mcp_auth_attempts_total"),
    (MCP_SERVER, "mcp_server_operation_duration_seconds"),
    (MCP_SERVER, "grpc_client_requests_total"),
    (WORKER, "http_client_requests_total"),
];
/// What every service has.
const EVERYWHERE: [&str; 9] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
    "jemalloc_allocated_bytes",
    "jemalloc_resident_bytes",
    "tokio_alive_tasks",
    "build_info",
    "dependency_up",
];

fn declared<S: Service>() -> BTreeSet<&'static str> {
    let common = catalogue::COMMON.iter().map(|(_, group)| *group);
    let groups: Vec<&[Declaration]> = common
        .chain([chassis::DECLARATIONS])
        .chain(S::declarations().iter().copied())
        .collect();
    groups
        .into_iter()
        .flatten()
        .map(|declaration| declaration.name)
        .collect()
}

fn assert_only_declared(scrape: &Scrape, declared: &BTreeSet<&str>, service: &str) {
    for sample in &scrape.samples {
        let plain = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| sample.name.strip_suffix(suffix));
        let known =
            declared.contains(sample.name.as_str()) || plain.is_some_and(|name| declared.contains(name));
        assert!(known, "{service}: {} is declared nowhere", sample.name);
        assert_eq!(
            sample.labels.get("service").map(String::as_str),
            Some(service),
            "{sample:?}"
        );
    }
}

#[tokio::test]
async fn all_that_happens_is_counted_once_and_under_declared_names() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let stack = Stack::builder(backend).allow_private().start().await?;
        let key = stack.tenant("acme", "all").await?;
        let rest = stack.rest(&key);
        let client = stack.mcp(&key, Era::Modern).await?;
        let made = client
            .structured("context_create", &json!({"name": "a", "type": "incident"}))
            .await?;
        let made = text(&made["context"], "id").to_owned();
        let items = json!([{"role": "user", "content": "x".repeat(5000)}]);
        for kind in ["manual", "incident"] {
            rest.post(
                "/api/v1/contexts",
                &json!({"name": "b", "type": kind, "items": items}),
            )
            .await?
            .expect(201)?;
        }
        rest.get(&format!("/api/v1/contexts/{made}")).await?.expect(200)?;
        let tool = json!({"name": "probe", "description": "d", "url": target.url("/")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        rest.post("/api/v1/tools/probe/execute", &json!({}))
            .await?
            .expect(200)?;

        for (labels, expected) in [
            ([("type", "incident"), ("tenant_id", "acme")], 2.0),
            ([("type", "manual"), ("tenant_id", "acme")], 1.0),
        ] {
            stack
                .wait_metric(REST_API, "mcp_contexts_created_total", &labels, |n| n == expected)
                .await?;
        }
        stack
            .wait_metric(REST_API, "mcp_contexts_active", &[("tenant_id", "acme")], |n| {
                n == 3.0
            })
            .await?;
        stack
            .wait_metric(REST_API, "mcp_api_keys_active", &[("tenant_id", "acme")], |n| {
                n == 1.0
            })
            .await?;
        let labels = [("tool", "probe"), ("status", "succeeded")];
        stack
            .wait_metric(REST_API, "mcp_tool_executions_total", &labels, |n| n == 1.0)
            .await?;

        let scrapes = [
            (REST_API, declared::<rest_api::RestApi>()),
            (MCP_SERVER, declared::<mcp_server::McpServer>()),
            (WORKER, declared::<worker::Worker>()),
        ];
        for (service, declared) in scrapes {
            let own = GUIDE.into_iter().filter(|(s, _)| *s == service).map(|(_, n)| n);
            for name in EVERYWHERE.into_iter().chain(own) {
                // Some are counted when the answer has been sent.
                let exported = async || stack.metrics(service).await.ok()?.has(name).then_some(());
                wait_for(&format!("{backend:?}: {name} of {service}"), exported).await?;
            }
            let scrape = stack.metrics(service).await?;
            assert_only_declared(&scrape, &declared, service);
            for sample in scrape
                .samples
                .iter()
                .filter(|sample| sample.name.starts_with("http_requests_total"))
            {
                let path = sample.labels.get("path").map_or("", String::as_str);
                let internal = ["/metrics", "/readyz", "/healthz", "/admin"]
                    .iter()
                    .any(|p| path.starts_with(p));
                assert!(!internal && !path.contains(&made), "{service}: path {path}");
            }
        }
        assert_rest_api_s_own(&stack).await?;
    }
    Ok(())
}

async fn assert_rest_api_s_own(stack: &Stack) -> Outcome {
    let template = [
        ("method", "GET"),
        ("path", "/api/v1/contexts/{id}"),
        ("status", "200"),
    ];
    for (metric, labels, expected) in [
        ("http_requests_total", &template[..], 1.0),
        ("http_request_duration_seconds_count", &template, 1.0),
        ("mcp_context_size_bytes_count", &[], 3.0),
    ] {
        stack
            .wait_metric(REST_API, metric, labels, |n| n == expected)
            .await?;
    }
    let scrape = stack.metrics(REST_API).await?;
    assert!(
        scrape
            .all("http_request_duration_seconds_bucket", &[("le", "0.5")])
            .next()
            .is_some()
    );
    let sizes: Vec<_> = scrape.all("mcp_context_size_bytes_bucket", &[]).collect();
    let up_to = |limit: f64| {
        let at = |text: &str| text.parse::<f64>().is_ok_and(|le| le == limit);
        sizes
            .iter()
            .find(|bucket| at(&bucket.labels["le"]))
            .map(|bucket| bucket.value)
    };
    // One without content, two of 5000 bytes.
    assert_eq!(
        (up_to(1024.0), up_to(4096.0), up_to(8192.0)),
        (Some(1.0), Some(1.0), Some(3.0)),
        "{sizes:?}"
    );
    assert_eq!(
        stack
            .metrics(MCP_SERVER)
            .await?
            .sum("mcp_contexts_created_total", &[]),
        0.0,
        "counted by rest-api alone"
    );

    // What a browser of metrics asks for comes with exemplars.
    let open = e2e::http_client().get(format!("{}/metrics", stack.http(REST_API)));
    let open = open
        .header("accept", "application/openmetrics-text; version=1.0.0")
        .send()
        .await?;
    assert!(
        open.headers()["content-type"]
            .to_str()?
            .starts_with("application/openmetrics-text")
    );
    assert!(open.text().await?.ends_with("# EOF\n"));
    Ok(())
}

#[tokio::test]
async fn clients_cannot_make_labels_without_end() -> Outcome {
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API]);
    let stack = builder
        .set(REST_API, "MONITORING__METRICS__MAX_LABEL_VALUES", "5")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    for i in 0..20 {
        rest.post(
            "/api/v1/contexts",
            &json!({"name": "x", "type": format!("type-{i}")}),
        )
        .await?
        .expect(201)?;
        rest.get(&format!("/api/v1/made-up-{i}"))
            .await?
            .problem(404, "not_found")?;
    }
    let unmatched = [("path", "unmatched")];
    for (metric, labels) in [
        // Nothing is lost.
        ("mcp_contexts_created_total", &[][..]),
        ("http_requests_total", &unmatched),
    ] {
        stack.wait_metric(REST_API, metric, labels, |n| n == 20.0).await?;
    }
    let scrape = stack.metrics(REST_API).await?;
    let types: BTreeSet<_> = scrape
        .all("mcp_contexts_created_total", &[])
        .map(|sample| sample.labels["type"].clone())
        .collect();
    assert!(types.len() <= 6 && types.contains("other"), "{types:?}");
    assert!(scrape.sum("telemetry_label_values_capped_total", &[("label", "type")]) >= 15.0);
    Ok(())
}

#[tokio::test]
async fn the_database_tells_its_size_and_its_most_expensive_statements() -> Outcome {
    for backend in Backend::available() {
        let builder = Stack::builder(backend).services(&[REST_API]);
        let stack = builder
            .set(REST_API, "MONITORING__DATA_DIRECTORIES", "{spool: /tmp}")
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        rest.get("/api/v1/contexts").await?.expect(200)?;
        let wait = async |metric, labels: &[(&str, &str)]| {
            stack.wait_metric(REST_API, metric, labels, |n| n > 0.0).await
        };
        wait("db_size_bytes", &[]).await?;
        wait("data_directory_size_bytes", &[("directory", "spool")]).await?;
        let scrape = stack.metrics(REST_API).await?;
        assert!(
            scrape.has("mcp_schedules_disabled_total"),
            "what has not happened yet is counted already"
        );
        if backend == Backend::Sqlite {
            wait("data_directory_free_bytes", &[("directory", "database")]).await?;
            assert!(!scrape.has("db_statement_statistics_up") && !scrape.has("db_statement_calls_total"));
            continue;
        }
        wait("db_statement_statistics_up", &[]).await?;
        for metric in [
            "db_statement_calls_total",
            "db_statement_duration_seconds_total",
            "db_statement_rows_total",
        ] {
            wait(metric, &[]).await?;
        }
        let scrape = stack.metrics(REST_API).await?;
        let texts: Vec<_> = scrape
            .all("db_statement_calls_total", &[])
            .map(|sample| sample.labels["statement"].clone())
            .collect();
        assert!((1..=20).contains(&texts.len()), "{texts:#?}");
        let tidy = |text: &String| {
            text.chars().count() <= 120 && !text.contains(['\n', '\'']) && !text.contains("  ")
        };
        assert!(texts.iter().all(tidy), "{texts:#?}");
    }
    Ok(())
}
