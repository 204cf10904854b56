//! Alerts that are told by webhook: incidents, what is found out about them, and their postmortems.

mod alertmanagers;
mod unheard;

use crate::{Outcome, rest_api, text};
use axum::{Json as Body, Router, extract::State, http::Uri};
use e2e::{
    Backend, Json, Stack,
    rest::Rest,
    stack::{REST_API, WORKER},
    wait_for,
};
use futures_util::future::join_all;
use proto::v1::{ListIncidentsResponse, WatchIncidentsRequest, incidents_client::IncidentsClient};
use serde_json::json;
use std::time::{Duration, SystemTime};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

const ALERTS: &str = "/api/v1/alerts";
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// What no log line may hold.
const HOSTILE: &str = "Evil\u{202e}\u{1b}[31m<script>";

fn ago(seconds: u64) -> String {
    humantime::format_rfc3339_micros(SystemTime::now() - Duration::from_secs(seconds)).to_string()
}

/// An alert as Alertmanager tells of it; it fires while it has no end.
fn alert(name: &str, began: &str, ended: Option<&str>) -> Json {
    json!({
        "status": if ended.is_some() { "resolved" } else { "firing" },
        "labels": {"alertname": name, "severity": "critical", "service": "rest-api"},
        "annotations": {"summary": format!("{name} {HOSTILE}"), "runbook_url": "https://runbooks/x"},
        "startsAt": began,
        "endsAt": ended.unwrap_or(NO_TIME),
        "generatorURL": "http://prometheus/graph",
        "fingerprint": format!("fp-{name}"),
    })
}

fn webhook(group: &str, alerts: &[Json]) -> Json {
    let fires = alerts.iter().any(|alert| alert["status"] == "firing");
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{group}\"}}"),
        "truncatedAlerts": 0,
        "status": if fires { "firing" } else { "resolved" },
        "receiver": "agents",
        "groupLabels": {"alertname": group},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": alerts,
        "fromALaterVersion": true,
    })
}

async fn tell(rest: &Rest, webhook: &Json) -> anyhow::Result<Json> {
    rest.post(ALERTS, webhook).await?.expect(200)
}

async fn items(rest: &Rest, told: &Json) -> anyhow::Result<Vec<Json>> {
    let path = format!("/api/v1/contexts/{}/items", text(told, "context"));
    let listed = rest.get(&path).await?.expect(200)?;
    Ok(listed["items"].as_array().cloned().unwrap_or_default())
}

fn events(items: &[Json]) -> Vec<&str> {
    let event = |item: &Json| item["metadata"]["event"].as_str().map(str::len);
    items
        .iter()
        .filter(|item| event(item).is_some())
        .map(|item| text(&item["metadata"], "event"))
        .collect()
}

#[tokio::test]
async fn an_incident_is_opened_once_followed_and_closed() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest) = rest_api(backend).await?;
        let pager = stack.rest(&stack.key("acme", "alerts:receive").await?);
        // Replicas share a database only where it is a server's.
        let second = match backend {
            Backend::Postgres => Some(stack.replica(REST_API).await?),
            Backend::Sqlite => None,
        };
        let began = ago(60);
        let firing = webhook("A", &[alert("A", &began, None)]);
        let doors: Vec<Rest> = (0..8)
            .map(|i| match &second {
                Some((_, url)) if i % 2 == 1 => pager.at(url),
                _ => pager.at(&stack.http(REST_API)),
            })
            .collect();
        let told = join_all(doors.iter().map(|door| tell(door, &firing))).await;
        let told = told.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let opened = told.iter().filter(|one| one["result"] == "opened").count();
        assert_eq!(opened, 1, "{told:?}");
        let incident = told[0]["incident"].clone();
        assert!(told.iter().all(|one| one["incident"] == incident), "{told:?}");

        let path = format!("/api/v1/incidents/{}", text(&told[0], "incident"));
        let shown = rest.get(&path).await?.expect(200)?;
        assert_eq!(
            (
                text(&shown, "title"),
                text(&shown, "severity"),
                text(&shown, "status")
            ),
            ("A: rest-api", "critical", "firing")
        );
        let context = format!("/api/v1/contexts/{}", text(&shown, "context_id"));
        let context = rest.get(&context).await?.expect(200)?;
        assert_eq!(
            (
                &context["type"],
                &context["name"],
                &context["metadata"]["incident_id"]
            ),
            (&json!("incident"), &json!("A: rest-api"), &incident)
        );
        let said = items(&rest, &told[0]).await?;
        assert_eq!(events(&said), ["opened"]);
        let content = text(&said[0], "content");
        assert!(content.contains("no scope `observe:read`"), "{content}");
        assert!(
            !content.contains('\u{1b}') && !content.contains("<script>"),
            "{content}"
        );

        let more = webhook("A", &[alert("A", &began, None), alert("B", &ago(5), None)]);
        assert_eq!(tell(&pager, &more).await?["result"], "changed");
        assert_eq!(
            tell(&pager, &firing).await?["result"],
            "repeated",
            "an older word"
        );
        let end = ago(1);
        let over = webhook(
            "A",
            &[alert("A", &began, Some(&end)), alert("B", &ago(5), Some(&end))],
        );
        let resolved = tell(&pager, &over).await?;
        assert_eq!(
            (&resolved["result"], &resolved["status"], &resolved["incident"]),
            (&json!("resolved"), &json!("resolved"), &incident)
        );
        assert_eq!(tell(&pager, &over).await?["result"], "ignored");
        assert_eq!(tell(&pager, &firing).await?["result"], "ignored", "an older word");
        assert_eq!(
            events(&items(&rest, &resolved).await?),
            ["opened", "changed", "resolved"]
        );

        let again = tell(&pager, &webhook("A", &[alert("A", &ago(0), None)])).await?;
        assert_eq!(again["result"], "opened");
        assert_ne!(again["incident"], incident);
        let open = rest.get("/api/v1/incidents?status=firing").await?.expect(200)?;
        assert_eq!(open["items"].as_array().map(Vec::len), Some(1), "{open}");

        // Nobody tells of its end: a person does, once.
        let close = format!("/api/v1/incidents/{}/resolve", text(&again, "incident"));
        pager
            .post(&close, &json!({}))
            .await?
            .problem(403, "missing_scope")?;
        let closed = rest.post(&close, &json!({})).await?.expect(200)?;
        assert_eq!(rest.post(&close, &json!({})).await?.expect(200)?, closed);
        assert_eq!(closed["status"], "resolved");

        let count = async |result: &str| -> anyhow::Result<f64> {
            let scrape = stack.metrics(REST_API).await?;
            Ok(scrape.sum("mcp_incident_notifications_total", &[("result", result)]))
        };
        if second.is_none() {
            assert_eq!(count("opened").await?, 2.0);
            assert_eq!(count("resolved").await?, 1.0);
            assert_eq!(count("refused").await?, 0.0);
        }
        let log = stack.process(REST_API).log();
        assert!(!log.contains("Evil") && !log.contains("<script>"));
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_notification_is_refused_and_tenants_are_apart() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest) = rest_api(backend).await?;
        let pager = stack.rest(&stack.key("acme", "alerts:receive").await?);
        let good = webhook("A", &[alert("A", &ago(9), None)]);
        let reader = stack.rest(&stack.key("acme", "contexts:read,contexts:write").await?);
        reader.post(ALERTS, &good).await?.problem(403, "missing_scope")?;
        let nobody = pager.with_key(None);
        nobody
            .post(ALERTS, &good)
            .await?
            .problem(401, "missing_credentials")?;

        for (field, value, status, code) in [
            ("version", json!("3"), 400, "invalid_argument"),
            ("groupKey", json!(""), 400, "invalid_argument"),
            ("groupKey", json!("x".repeat(9000)), 400, "invalid_argument"),
            ("alerts", json!([]), 400, "invalid_argument"),
            (
                "alerts",
                json!(vec![alert("A", &ago(9), None); 1001]),
                400,
                "invalid_argument",
            ),
            ("alerts", json!("none"), 422, "invalid_body"),
            ("status", json!("maybe"), 422, "invalid_body"),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            pager.post(ALERTS, &bad).await?.problem(status, code)?;
        }
        let mut large = good.clone();
        large["externalURL"] = json!("x".repeat(3 << 20));
        pager
            .post(ALERTS, &large)
            .await?
            .problem(413, "payload_too_large")?;
        let scrape = stack.metrics(REST_API).await?;
        let refused = scrape.sum("mcp_incident_notifications_total", &[("result", "refused")]);
        assert_eq!(
            refused, 8.0,
            "all but those that are turned away at the door: without a key, or too large"
        );

        let told = tell(&pager, &good).await?;
        pager
            .get("/api/v1/incidents")
            .await?
            .problem(403, "missing_scope")?;
        let stranger = stack.rest(&stack.tenant("stranger", "all").await?);
        let path = format!("/api/v1/incidents/{}", text(&told, "incident"));
        for path in [path.clone(), format!("{path}/postmortem")] {
            stranger.get(&path).await?.problem(404, "not_found")?;
            rest.get(&path).await?.expect(200)?;
        }
        let close = format!("{path}/resolve");
        stranger
            .post(&close, &json!({}))
            .await?
            .problem(404, "not_found")?;
        let listed = stranger.get("/api/v1/incidents").await?.expect(200)?;
        assert_eq!(listed["items"], json!([]));
        let theirs = tell(&stranger, &good).await?;
        assert_eq!(theirs["result"], "opened", "a group is its tenant's");
        assert_ne!(theirs["incident"], told["incident"]);
    }
    Ok(())
}

#[tokio::test]
async fn who_watches_is_told() -> Outcome {
    for backend in Backend::available() {
        let (stack, _rest) = rest_api(backend).await?;
        let pager = stack.rest(&stack.key("acme", "alerts:receive").await?);
        let request = |key: &str| -> anyhow::Result<_> {
            let mut request = tonic::Request::new(WatchIncidentsRequest {});
            let bearer = format!("Bearer {key}").parse()?;
            request.metadata_mut().insert("authorization", bearer);
            Ok(request)
        };
        let mut client = IncidentsClient::new(stack.channel(REST_API)?);
        let blind = client
            .watch(request(&stack.key("acme", "alerts:receive").await?)?)
            .await;
        assert_eq!(blind.err().map(|e| e.code()), Some(tonic::Code::PermissionDenied));
        let key = stack.key("acme", "contexts:read").await?;
        let mut states = client.watch(request(&key)?).await?.into_inner();
        let titles = |state: Option<ListIncidentsResponse>| -> Vec<String> {
            let incidents = state.map(|state| state.incidents).unwrap_or_default();
            incidents.into_iter().map(|one| one.title).collect()
        };
        assert_eq!(titles(states.message().await?), [""; 0]);
        let began = ago(9);
        tell(&pager, &webhook("A", &[alert("A", &began, None)])).await?;
        assert_eq!(titles(states.message().await?), ["A: rest-api"]);
        tell(&pager, &webhook("A", &[alert("A", &began, Some(&ago(0)))])).await?;
        assert_eq!(titles(states.message().await?), [""; 0]);
    }
    Ok(())
}

/// A Prometheus that knows one rule, and answers while its gate is open.
struct Prometheus {
    url: String,
    gate: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Prometheus {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (gate, open) = watch::channel(true);
        let routes = Router::new().fallback(answer).with_state(open);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the source ended: {error}");
            }
        });
        Ok(Self { url, gate, server })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(mut open): State<watch::Receiver<bool>>, uri: Uri) -> Body<Json> {
    // An error says that the test is over.
    let _ = open.wait_for(|open| *open).await;
    let rule = json!({
        "type": "alerting", "name": "HighErrorRate", "query": "rest_errors:ratio > 0.05", "duration": 300, "state": "firing",
        "health": "ok", "labels": {"severity": "critical"}, "annotations": {"summary": "errors"}, "evaluationTime": 0.001,
        "lastEvaluation": ago(1), "keepFiringFor": 0,
        "alerts": [{
            "labels": {"alertname": "HighErrorRate", "severity": "critical", "service": "rest-api"},
            "annotations": {"summary": "errors"}, "state": "firing", "activeAt": ago(60), "value": "9e-02",
        }],
    });
    let data = match uri.path() {
        "/api/v1/rules" => json!({"groups": [{"name": "g", "file": "f", "interval": 15, "rules": [rule]}]}),
        _ => json!({"resultType": "vector", "result": []}),
    };
    Body(json!({"status": "success", "data": data}))
}

async fn explained(rest: &Rest, told: &Json) -> anyhow::Result<Vec<Json>> {
    let of_tool = |item: &Json| item["metadata"]["event"] == "explained" && item["role"] == "tool";
    Ok(items(rest, told).await?.into_iter().filter(of_tool).collect())
}

#[tokio::test]
async fn its_explanation_survives_a_restart_and_the_postmortem_cites_it() -> Outcome {
    for backend in Backend::available() {
        let prometheus = Prometheus::start().await?;
        let sources = json!({"metrics": {"kind": "prometheus", "url": prometheus.url}});
        let mut stack = Stack::builder(backend)
            .services(&[REST_API, WORKER])
            .set(WORKER, "SOURCES", &sources.to_string())
            .set(WORKER, "JOBS__FOLLOW_INCIDENTS", "1s")
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let scopes = "alerts:receive,observe:read,platform:observe";
        let pager = stack.rest(&stack.key("acme", scopes).await?);

        // The run has begun and cannot end while rest-api goes away.
        prometheus.gate.send_replace(false);
        let began = ago(60);
        let name = "HighErrorRate";
        let told = tell(&pager, &webhook(name, &[alert(name, &began, None)])).await?;
        wait_for("the run to be asked for", async || {
            let listed = rest
                .get("/api/v1/executions?tool=explain_alert")
                .await
                .ok()?
                .json();
            listed["items"]
                .as_array()
                .filter(|runs| !runs.is_empty())
                .map(|_| ())
        })
        .await?;
        stack.process_mut(REST_API).kill();
        prometheus.gate.send_replace(true);
        stack.process_mut(REST_API).start().await?;
        let found = wait_for("the explanation", async || {
            explained(&rest, &told)
                .await
                .ok()
                .filter(|found| !found.is_empty())
        })
        .await?;
        let content = text(&found[0], "content");
        assert!(
            content.starts_with("`explain_alert` on HighErrorRate"),
            "{content}"
        );
        // The key sees the whole installation, who reads contexts may not: the rule is told, and where the rest is.
        assert!(
            content.contains("```promql\nrest_errors:ratio > 0.05\n```"),
            "{content}"
        );
        let run = content.split_once("execution://").map_or("", |(_, rest)| rest);
        let run = run.get(..36).unwrap_or_default();
        let reader = stack.rest(&stack.key("acme", "contexts:read,tools:read").await?);
        let whole = reader.get(&format!("/api/v1/executions/{run}")).await?;
        whole.expect(404)?;
        let seer = stack.rest(
            &stack
                .key("acme", "tools:read,observe:read,platform:observe")
                .await?,
        );
        let whole = seer
            .get(&format!("/api/v1/executions/{run}"))
            .await?
            .expect(200)?;
        assert_eq!(
            whole["result"]["rules"][0]["expr"], "rest_errors:ratio > 0.05",
            "{whole}"
        );

        // An agent writes what it found; the incident ends.
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let path = format!("/api/v1/contexts/{}/items", text(&told, "context"));
        let note = |content: String, metadata: Json| json!({"items": [{"role": "assistant", "content": content, "metadata": metadata}]});
        for (content, metadata) in [
            (
                format!("PromQL `sum(rate(x[5m]))` led to trace {trace}.\n```log\nERROR disk full\n```"),
                json!({}),
            ),
            ("The disk was full.".to_owned(), json!({"postmortem": "cause"})),
        ] {
            rest.post(&path, &note(content, metadata)).await?.expect(201)?;
        }
        let over = webhook(name, &[alert(name, &began, Some(&ago(0)))]);
        assert_eq!(tell(&pager, &over).await?["result"], "resolved");
        let draft = format!("/api/v1/incidents/{}/postmortem", text(&told, "incident"));
        let draft = rest.get(&draft).await?;
        assert_eq!(draft.header("content-type"), "text/markdown; charset=utf-8");
        for wanted in [
            "# Postmortem draft: HighErrorRate: rest-api",
            "| Severity | critical |",
            "rest_errors:ratio > 0.05",
            "sum(rate(x[5m]))",
            trace,
            "ERROR disk full",
            "> The disk was full.",
            "The last alert ended at",
            "<https://runbooks/x>",
        ] {
            assert!(draft.text.contains(wanted), "{wanted}\n---\n{}", draft.text);
        }
        assert!(!draft.text.contains("<script>"), "{}", draft.text);

        // Told once, whatever is restarted.
        stack.process_mut(REST_API).kill();
        stack.process_mut(REST_API).start().await?;
        let done = stack
            .metrics(WORKER)
            .await?
            .sum("worker_jobs_total", &[("job", "follow_incidents")]);
        wait_for("the job to run twice more", async || {
            let scrape = stack.metrics(WORKER).await.ok()?;
            (scrape.sum("worker_jobs_total", &[("job", "follow_incidents")]) >= done + 2.0).then_some(())
        })
        .await?;
        assert_eq!(explained(&rest, &told).await?.len(), 1);
    }
    Ok(())
}
