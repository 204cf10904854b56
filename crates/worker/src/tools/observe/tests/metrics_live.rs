//! The tools over metrics against a real Prometheus, where its program is installed.

use super::{
    isolation::{SECRET, attempts},
    testing::{call_as, settings},
};
use crate::{
    outcome::{Code, Failure},
    sources::{Kind, Sources},
    tools::observe::{list_metrics, list_targets, query_metrics},
};
use axum::{Router, routing::get};
use domain::{Scopes, Time};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

/// A Prometheus that scrapes what is acme's and what is another's. Ends with the test.
struct Prometheus {
    child: Child,
    directory: PathBuf,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn exporter() -> String {
    let page = format!(
        "# HELP secret What nobody else may know.\n# TYPE secret gauge\n\
         secret{{tenant_id=\"acme\",word=\"ours\"}} 7\nsecret{{tenant_id=\"rival\",word=\"{SECRET}\"}} 9\n"
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().route(
        "/metrics",
        get(async move || ([("content-type", "text/plain; version=0.0.4")], page)),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// `None` where it is not installed.
async fn start() -> Option<Prometheus> {
    Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    let directory = std::env::temp_dir().join(format!("worker-metrics-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&directory).unwrap();
    let target = |tenant: &str, address: &str| json!({ "targets": [address], "labels": { "tenant_id": tenant, "word": if tenant == "acme" { "ours" } else { SECRET } } });
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let targets = [
        target("acme", &exporter().await),
        target("rival", &free.to_string()),
    ];
    let scrape = json!({ "job_name": "app", "honor_labels": true, "scrape_interval": "1s", "static_configs": targets });
    // JSON is YAML.
    let config = directory.join("prometheus.yml");
    std::fs::write(&config, json!({ "scrape_configs": [scrape] }).to_string()).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.join("data").display()
        ))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Prometheus {
        child,
        directory,
        url: format!("http://{free}"),
    })
}

fn now() -> Time {
    SystemTime::now().into()
}

async fn query(sources: &Sources, scopes: Scopes, arguments: Value) -> Result<Value, Failure> {
    call_as::<query_metrics::Tool>(sources, "acme", scopes, arguments, now()).await
}

#[tokio::test]
async fn a_real_prometheus_understands_what_is_made_of_queries() {
    let Some(prometheus) = start().await else {
        eprintln!("skipped: prometheus is not installed");
        return;
    };
    let sources = Sources::new(&settings([("main", Kind::Prometheus, &prometheus.url)]), "tests").unwrap();
    let (all, own) = (Scopes::all, Scopes::of_a_tenant);
    // Until both are scraped and everything is known of them.
    let began = Instant::now();
    loop {
        let seen = query(&sources, all(), json!({ "query": "count(secret) + count(up)" })).await;
        let targets = call_as::<list_targets::Tool>(&sources, "acme", all(), json!({}), now()).await;
        if seen.is_ok_and(|seen| seen["series"][0]["value"] == 4)
            && targets.is_ok_and(|targets| targets["unknown"] == 0)
        {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it scrapes nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let whole = query(&sources, all(), json!({ "query": "secret" }))
        .await
        .unwrap();
    assert_eq!(whole["series"][0]["value"], 9, "{whole}");
    let failed = query(&sources, all(), json!({ "query": "sum(secret" }))
        .await
        .unwrap_err();
    assert!(
        failed.code == Code::InvalidArguments && failed.message.contains("1:11: parse error"),
        "{failed}"
    );

    for arguments in [
        json!({ "query": "secret" }),
        json!({ "query": "secret", "start": "-1m", "step": "1s" }),
    ] {
        let own = query(&sources, own(), arguments).await.unwrap();
        let series = own["series"].as_array().unwrap();
        assert_eq!(
            (series.len(), &series[0]["labels"]["word"]),
            (1, &json!("ours")),
            "{own}"
        );
    }
    for arguments in attempts::of("query_metrics") {
        let text = match query(&sources, own(), arguments.clone()).await {
            Ok(answer) => answer.to_string(),
            Err(failure) => failure.to_string(),
        };
        assert!(!text.contains(SECRET), "{arguments}: {text}");
        // Versions before 3 know no names in quotes.
        if text.contains("parse error") {
            let raw = query(&sources, all(), arguments.clone()).await;
            let raw = raw.expect_err("it would have been understood").message;
            assert!(raw.contains("parse error"), "{arguments}: {text}");
        }
    }

    lists(&sources).await;
}

/// What the tools that list show of it.
async fn lists(sources: &Sources) {
    let (all, own) = (Scopes::all, Scopes::of_a_tenant);
    for arguments in attempts::of("list_metrics") {
        let answer = call_as::<list_metrics::Tool>(sources, "acme", own(), arguments, now())
            .await
            .unwrap();
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }
    let found = json!({ "search": "nobody knows secret" });
    let nothing = call_as::<list_metrics::Tool>(sources, "acme", all(), found, now())
        .await
        .unwrap();
    assert_eq!(nothing["metrics"], json!([]));
    let by_help =
        call_as::<list_metrics::Tool>(sources, "acme", all(), json!({ "search": "nobody else" }), now())
            .await
            .unwrap();
    let labels = json!(["instance", "job", "tenant_id", "word"]);
    assert_eq!(
        (&by_help["metrics"][0]["name"], &by_help["metrics"][0]["labels"]),
        (&json!("secret"), &labels)
    );

    let targets = call_as::<list_targets::Tool>(sources, "acme", own(), json!({}), now())
        .await
        .unwrap();
    assert_eq!(
        (&targets["up"], &targets["down"]),
        (&json!(1), &json!(0)),
        "{targets}"
    );
    assert!(!targets.to_string().contains(SECRET), "{targets}");
}
