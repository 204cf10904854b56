//! The whole of it, as a service starts it, while the collector is away.

use std::time::{Duration, Instant, SystemTime};
use telemetry::{ServiceInfo, context::Context, settings::Output, span};

#[tokio::test]
async fn a_dead_collector_costs_a_counter_and_one_log_line() {
    let log = std::env::temp_dir().join(format!("telemetry-init-{}.log", std::process::id()));
    let mut settings = telemetry::Settings::default();
    settings.logging.output = Output::File(log.clone());
    // Nobody listens on port 1.
    settings.tracing.endpoint = Some("http://127.0.0.1:1".to_owned());
    settings.tracing.export_interval_ms = 20;
    // This program's allocator cannot, which would be a line of its own.
    settings.profiling.heap = false;
    let info = ServiceInfo {
        name: "test",
        version: "0",
    };
    let telemetry = telemetry::init(info, "test", &settings, &[]).expect("started");
    let handle = telemetry.handle();

    for _ in 0..3 {
        let open = span::server(&Context::new(), SystemTime::now(), "work", Vec::new);
        assert!(open.is_recording());
        open.run(async { tracing::info!(target: "rest_api", "inside") })
            .await;
        drop(open);
    }
    // The exporter tries again a few times before it gives a batch up.
    let lost = r#"telemetry_spans_dropped_total{service="test",reason="export_failed"} 3"#;
    let given_up = async {
        loop {
            let text = handle.render(None).1;
            if text.contains(lost) {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(60), given_up)
        .await
        .expect("counted");
    assert!(
        text.contains(r#"log_events_total{service="test",level="info"} 3"#),
        "{text}"
    );

    assert_eq!(handle.log_level(), "info");
    handle.set_log_level("warn").expect("a level");
    tracing::info!(target: "rest_api", "not written");

    let started = Instant::now();
    telemetry.shutdown().await;
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );

    let written = std::fs::read_to_string(&log).expect("a log file");
    std::fs::remove_file(&log).expect("removed");
    let lines: Vec<serde_json::Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let inside: Vec<_> = lines.iter().filter(|line| line["message"] == "inside").collect();
    assert_eq!(inside.len(), 3, "{written}");
    assert!(
        inside
            .iter()
            .all(|line| line["trace_id"].as_str().is_some_and(|id| id.len() == 32))
    );
    let complaints = lines.iter().filter(|line| line["level"] == "WARN").count();
    assert_eq!(complaints, 1, "{written}");
    assert!(!written.contains("not written"));
}
