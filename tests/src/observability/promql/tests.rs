use super::{super::*, check};
use catalogue::{Catalogue, Entry};

/// What stands in the file of rules that all queries here may use.
const RECORDED: &str = "sum by (service) (rate(http_requests_total[5m]))";

fn expression(purpose: Purpose, text: &str) -> Expression {
    let place = Place {
        file: "file".to_owned(),
        item: "item".to_owned(),
    };
    Expression {
        place,
        language: Language::PromQl,
        purpose,
        text: text.to_owned(),
        printed: Vec::new(),
        given: vec![("team".to_owned(), "platform".to_owned())],
    }
}

/// Our declarations, a recorded rule upon another, and a metric of Redis's.
fn known() -> Known {
    let mut sources = Sources::default();
    for (name, text) in [("b:rate", "max(a:rate) by (service)"), ("a:rate", RECORDED)] {
        sources
            .expressions
            .push(expression(Purpose::Record(name.to_owned()), text));
    }
    let entry = Entry {
        kind: "gauge".to_owned(),
        labels: ["db".to_owned()].into(),
        rare: false,
    };
    let mut catalogue = Catalogue::default();
    let job = catalogue.jobs.entry("redis".to_owned()).or_default();
    job.insert("redis_db_keys".to_owned(), entry);
    sources.jobs.insert("redis".to_owned());
    Known::new(&catalogue, &sources)
}

fn findings(known: &Known, text: &str) -> String {
    check(&expression(Purpose::Document, text), known).join("; ")
}

#[test]
fn queries_that_are_right() {
    let known = known();
    for query in [
        "up == 0",
        RECORDED,
        r#"(sum by (service) (rate(http_requests_total{status=~"5.."}[5m])) or 0 * sum by (service) (a:rate)) / (sum by (service) (a:rate) > 0)"#,
        "histogram_quantile(0.95, sum by (le, path) (rate(http_request_duration_seconds_bucket[5m])))",
        r#"sum(rate(http_request_duration_seconds_bucket{le="0.5"}[5m])) / sum(rate(http_request_duration_seconds_count[5m]))"#,
        r#"sum(rate(http_request_duration_seconds_bucket{le=~"1(\\.0)?"}[5m]))"#,
        "deriv(process_resident_memory_bytes[30m]) > 0 and on (service, instance) changes(process_start_time_seconds[1h]) == 0",
        r#"absent(http_requests_total{service="worker"})"#,
        "rate(http_requests_total[5m]) * on (service, instance) group_left (version) build_info",
        "max_over_time(rate(http_requests_total[1m])[1h:1m])",
        "sum by (team) (b:rate) or vector(0)",
        r#"label_replace(redis_db_keys{job="redis"}, "service", "$1", "db", "(.*)")"#,
        "count(http_requests_total) by (path)",
        "sum(http_requests_total unless http_requests_total offset 1h) or 0 * sum by (path) (http_requests_total)",
        "max by (exported_job) (rate(worker_jobs_total[5m]))",
        "topk(5, sum by (tool) (increase(mcp_tool_executions_total[1h])))",
        r#"time() - max by (service) (process_start_time_seconds{service=~"rest.*"})"#,
    ] {
        assert_eq!(findings(&known, query), "", "{query}");
    }
}

/// Each query is told to be wrong in this way.
fn assert_wrong(cases: &[(&str, &str)]) {
    let known = known();
    for (query, finding) in cases {
        let found = findings(&known, query);
        assert!(found.contains(finding), "{query}: {found}");
    }
}

#[test]
fn metrics_used_wrongly() {
    assert_wrong(&[
        ("sum(rate(up[5m])", "is no PromQL"),
        ("rate(http_requests_total)", "is no PromQL"),
        ("http_request_total", "no metric http_request_total"),
        ("sum(mcp_tool_executions)", "there is mcp_tool_executions_total"),
        ("rate(db_query_duration_seconds[5m])", "is a histogram"),
        (
            r#"rate(http_requests_total{route="/"}[5m])"#,
            "has no label route",
        ),
        (
            "sum by (tenant) (rate(http_requests_total[5m]))",
            "groups by tenant",
        ),
        (
            "sum without (tenant) (rate(http_requests_total[5m]))",
            "takes away tenant",
        ),
        ("http_requests_total > 5", "only grows"),
        ("http_requests_total unless http_requests_total", "only grows"),
        ("2 * sum by (path) (http_requests_total)", "only grows"),
        (
            "sum by (job, result) (rate(worker_jobs_total{exported_job=\"a\"}[5m])) / on (nothing) up",
            "matched on nothing",
        ),
        ("rate(process_resident_memory_bytes[5m])", "is no counter"),
        ("increase(a:rate[5m])", "is no counter"),
        ("deriv(http_requests_total[5m])", "begins anew at zero"),
        (
            "histogram_quantile(0.9, sum by (path) (rate(http_request_duration_seconds_bucket[5m])))",
            "histogram_quantile needs le",
        ),
        (
            "histogram_quantile(0.9, rate(http_request_duration_seconds_count[5m]))",
            "is no _bucket",
        ),
        (
            "histogram_quantile(0.9, sum by (le) (http_request_duration_seconds_bucket))",
            "only grows",
        ),
    ]);
}

#[test]
fn labels_and_values_that_do_not_exist() {
    assert_wrong(&[
        (
            "sum by (team) (b:rate) + on (team) vector(1)",
            "the right side is matched on team",
        ),
        (
            r#"rate(http_request_duration_seconds_bucket{le="0.3"}[5m])"#,
            "has le=\"0.3\"",
        ),
        (
            r#"rate(http_request_duration_seconds_bucket{le="1"}[5m])"#,
            r#"le=~"1(\\.0)?""#,
        ),
        (
            r#"rate(http_requests_total{service="api"}[5m])"#,
            "has service=\"api\"",
        ),
        (
            r#"rate(worker_jobs_total{result="failed"}[5m])"#,
            "has result=\"failed\"; there are ok, error",
        ),
        (r#"up{job="redis-exporter"}"#, "has job=\"redis-exporter\""),
        ("sum by (service) (a:rate) / sum(a:rate)", "never match"),
        (
            "sum by (service) (a:rate) / on (path) sum by (path) (rate(http_requests_total[5m]))",
            "left side is matched on path",
        ),
        (
            "up * on (instance) group_left (version) redis_db_keys",
            "takes over version",
        ),
        ("sum by (path) (b:rate)", "groups by path"),
        (
            r#"label_replace(up, "a", "$1", "b", "(.*)")"#,
            "label_replace reads b",
        ),
    ]);
}

#[test]
fn what_is_printed_must_be_in_the_answer() {
    let known = known();
    let mut alert = expression(Purpose::Alert, "sum by (service) (a:rate) > 1");
    alert.printed = vec!["service".to_owned(), "path".to_owned()];
    let found = check(&alert, &known);
    assert_eq!(found, ["prints the label path; the answer has {service}"]);
}

#[test]
fn series_of_other_programs_need_not_be_known_by_value() {
    assert_eq!(findings(&known(), r#"redis_db_keys{db="db0"}"#), "");
    assert!(findings(&known(), r#"redis_db_keys{shard="0"}"#).contains("no label shard"));
}
