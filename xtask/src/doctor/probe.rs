//! One request of our own: its trace arrives in Jaeger, its log lines in Loki.

use super::{
    Doctor,
    ask::{Answer, Ask, Failed, wait},
    mcp::rpc,
    places::{Part, Place},
    report::{Found, Problem, Report},
    services::{self, Services},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    hash::{BuildHasher as _, Hasher as _},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longer than a batch of spans or lines waits in a service, in the Collector and in Loki together.
const PATIENCE: Duration = Duration::from_secs(30);
/// A record is made when the answer is out: just after it was read here.
const KEPT: Duration = Duration::from_secs(2);
/// How far from now is looked, before and after: clocks may differ.
const AROUND: Duration = Duration::from_secs(3600);

/// The request that was made.
pub(super) struct Probe {
    id: String,
    trace_id: String,
    /// When it began and was over, by this host's clock.
    pub(super) sent: SystemTime,
    pub(super) answered: SystemTime,
    /// When each service's first span began, by its own clock.
    pub(super) spans: BTreeMap<String, SystemTime>,
    /// The services that it went through; the first is the one that it entered.
    through: &'static [&'static str],
}

/// Makes the request and looks for it.
pub(super) fn check(doctor: &Doctor<'_>, report: &mut Report, services: &Services) -> Option<Probe> {
    let mut probe = match send(doctor, report, services) {
        Ok(probe) => probe,
        Err(reason) => {
            for check in ["kept", "trace", "log line"] {
                report.skip(check, reason);
            }
            return None;
        }
    };
    report.add("kept", kept(doctor, &probe));
    probe.spans = trace(doctor, report, services, &probe).unwrap_or_default();
    log_line(doctor, report, &probe);
    Some(probe)
}

/// Over MCP where that works, for it leads through two services; over REST otherwise.
fn send(doctor: &Doctor<'_>, report: &mut Report, services: &Services) -> Result<Probe, &'static str> {
    let key = doctor.places.api_key.as_deref();
    let key = key.filter(|_| services.key_works || services.mcp_works);
    let key = key.ok_or("that needs a request, which needs an API key that works")?;
    let (high, low) = (random(), random());
    let trace_id = format!("{high:016x}{low:016x}");
    let id = format!("doctor-{low:016x}");
    // The last 01: to be sampled.
    let parent = format!("00-{trace_id}-{high:016x}-01");
    let (result, through, way): (_, &'static [_], _) = if services.mcp_works {
        let url = &doctor.places.of(Part::McpServer).url;
        let call = json!({ "name": "context_list", "arguments": { "limit": 1 } });
        let (ask, body) = rpc(url, key, "tools/call", call);
        let answer = doctor.client.post(&marked(ask, &id, &parent), &body);
        (answer, &["mcp-server", "rest-api"], "tools/call context_list")
    } else {
        let url = &doctor.places.of(Part::RestApi).url;
        let ask = Ask::of(url, "/api/v1/contexts").query("limit", "1").bearer(key);
        let answer = doctor.client.get(&marked(ask, &id, &parent));
        (answer, &["rest-api"], "GET /api/v1/contexts")
    };
    let answer = match result {
        Ok(answer) => answer,
        Err(failed) => {
            let remedy = "docs/runbooks/troubleshooting/HighLatency.md";
            report.fail("sent", Problem::of(&failed, "a request is not answered", remedy));
            return Err("the request was not answered");
        }
    };
    // Something on the way may have begun a trace of its own.
    let told = Some(answer.header("x-trace-id")).filter(|id| id.len() == 32);
    let trace_id = told.unwrap_or(&trace_id).to_owned();
    report.ok(
        "sent",
        format!("{way}: {}, request {id}, trace {trace_id}", answer.status),
    );
    Ok(Probe {
        id,
        trace_id,
        sent: answer.sent,
        answered: answer.came,
        spans: BTreeMap::new(),
        through,
    })
}

/// Whether the service that it entered keeps a record of it, as of each debugged request.
fn kept(doctor: &Doctor<'_>, probe: &Probe) -> Found {
    let Some(token) = &doctor.places.admin_token else {
        return Found::NotChecked("no admin token (ADMIN_TOKEN)".to_owned());
    };
    let entered = Part::SERVICES
        .into_iter()
        .find(|part| part.name() == probe.through[0]);
    let url = &doctor.places.of(entered.unwrap_or(Part::RestApi)).url;
    let ask = Ask::of(url, "/debug/traces")
        .query("format", "json")
        .bearer(token);
    let found = wait(KEPT, || -> Result<String, Option<Failed>> {
        let body = doctor.client.json(&ask).map_err(Some)?;
        recorded(&body, &probe.id).ok_or(None)
    });
    match found {
        Ok(told) => Found::Ok(format!("{url}/debug/traces has it: {told}")),
        Err(Some(failed)) => Found::NotChecked(format!("{} answers {}", failed.asked, failed.came)),
        Err(None) => Found::Note(format!(
            "{url}/debug/traces does not have it: the key lacks the scope `debug`, or too many requests are debugged"
        )),
    }
}

/// What the record of a request says.
fn recorded(body: &Value, id: &str) -> Option<String> {
    let mut all = body["requests"].as_array()?.iter();
    let record = all.find(|record| record["request_id"] == id)?;
    let took = record["duration_ms"].as_f64().unwrap_or_default();
    let tenant = record["tenant"].as_str().unwrap_or("unknown");
    Some(format!("{took:.1} ms, tenant {tenant}"))
}

/// With what makes it easy to find; debugged where the key may ask for that.
fn marked<'a>(ask: Ask<'a>, id: &str, parent: &str) -> Ask<'a> {
    ask.header("x-request-id", id)
        .header("traceparent", parent)
        .header("x-debug-trace", "true")
}

/// From the system, by way of the standard library's seeds.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// Asks a part until `judge` is content. A part that nobody listens for is not waited for.
fn look<T>(
    doctor: &Doctor<'_>,
    ask: &Ask<'_>,
    judge: impl Fn(&Answer) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let looked = wait(PATIENCE, || match doctor.client.get(ask) {
        Err(failed) if failed.is_away => Ok(Err(failed)),
        answered => answered.and_then(|answer| judge(&answer)).map(Ok),
    });
    looked.and_then(|found| found)
}

/// Looks for the trace; when each service's first span began.
fn trace(
    doctor: &Doctor<'_>,
    report: &mut Report,
    services: &Services,
    probe: &Probe,
) -> Option<BTreeMap<String, SystemTime>> {
    let place = doctor.places.of(Part::Jaeger);
    if let Some(reason) = place.left_out() {
        report.skip("trace", reason);
        return None;
    }
    let asked = Instant::now();
    let ask = Ask::of(&place.url, &format!("/api/traces/{}", probe.trace_id));
    match look(doctor, &ask, |answer| whole(answer, probe.through)) {
        Ok((spans, count)) => {
            let services: Vec<&str> = spans.keys().map(String::as_str).collect();
            let (services, took) = (services.join(" and "), asked.elapsed().as_secs_f32());
            report.ok(
                "trace",
                format!("{count} spans of {services} in Jaeger after {took:.0} s"),
            );
            worker_spans(doctor, report, place);
            Some(spans)
        }
        Err(failed) if failed.is_away => {
            let means = "no trace can be seen: Jaeger does not answer";
            let remedy =
                "docker compose -p devops-mcp start jaeger; docs/runbooks/troubleshooting/NoTraces.md";
            report.add(
                "trace",
                place.missed(&failed, Problem::of(&failed, means, remedy)),
            );
            None
        }
        Err(failed) => {
            let seconds = PATIENCE.as_secs();
            let means = format!("the trace of a request does not arrive whole in Jaeger within {seconds} s");
            let remedy = trace_remedy(&lost_since(doctor, services));
            report.add(
                "trace",
                place.missed(&failed, Problem::of(&failed, &means, &remedy)),
            );
            None
        }
    }
}

/// Judges Jaeger's answer: the services' first spans, and how many there are, once each service has some.
fn whole(answer: &Answer, through: &[&str]) -> Result<(BTreeMap<String, SystemTime>, usize), Failed> {
    if answer.status == 404 {
        return Err(answer.but("404: no such trace"));
    }
    if answer.status != 200 {
        return Err(answer.but(&answer.told()));
    }
    let body = answer.json()?;
    let (spans, count) = spans(&body);
    let missing: Vec<&str> = through
        .iter()
        .copied()
        .filter(|name| !spans.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Ok((spans, count));
    }
    Err(answer.but(&format!("{count} spans, but none of {}", missing.join(", "))))
}

fn spans(body: &Value) -> (BTreeMap<String, SystemTime>, usize) {
    let trace = &body["data"][0];
    let (mut first, mut count) = (BTreeMap::<String, SystemTime>::new(), 0);
    for span in trace["spans"].as_array().into_iter().flatten() {
        count += 1;
        let process = span["processID"].as_str().unwrap_or_default();
        let service = trace["processes"][process]["serviceName"].as_str();
        let began = span["startTime"].as_u64().map(Duration::from_micros);
        if let (Some(service), Some(began)) = (service, began) {
            let began = UNIX_EPOCH + began;
            let earliest = first.entry(service.to_owned()).or_insert(began);
            *earliest = began.min(*earliest);
        }
    }
    (first, count)
}

/// Our request does not reach the worker: whether anything of it arrives at all.
fn worker_spans(doctor: &Doctor<'_>, report: &mut Report, place: &Place) {
    let (start, end) = around(1_000_000);
    let ask = Ask::of(&place.url, "/api/traces")
        .query("service", "worker")
        .query("start", &start)
        .query("end", &end)
        .query("limit", "1");
    let found = doctor.client.json(&ask);
    if found.is_ok_and(|body| body["data"].as_array().is_some_and(|traces| !traces.is_empty())) {
        report.ok("trace of worker", "Jaeger has some of the last hour");
    } else {
        report.note(
            "trace of worker",
            "Jaeger has none of the last hour: no tool was run, or its spans are lost",
        );
    }
}

/// Spans that the services lost since they were looked at first, by service.
fn lost_since(doctor: &Doctor<'_>, services: &Services) -> Vec<String> {
    let mut lost = Vec::new();
    for (part, before) in &services.spans_lost {
        let now = services::spans_lost(doctor, *part).unwrap_or(*before);
        if now > *before {
            lost.push(format!("{} lost {} spans meanwhile", part.name(), now - before));
        }
    }
    lost
}

fn trace_remedy(lost: &[String]) -> String {
    let runbook = "docs/runbooks/troubleshooting/NoTraces.md";
    if lost.is_empty() {
        return format!(
            "the services lost no spans: is monitoring.tracing.endpoint set, is the Collector's Jaeger exporter up, does \
             tail sampling drop it (a key with the scope `debug` has its trace kept)? {runbook}"
        );
    }
    format!(
        "{}: the Collector does not take them; docs/runbooks/SpansLost.md, {runbook}",
        lost.join(", ")
    )
}

fn log_line(doctor: &Doctor<'_>, report: &mut Report, probe: &Probe) {
    let place = doctor.places.of(Part::Loki);
    if let Some(reason) = place.left_out() {
        report.skip("log line", reason);
        return;
    }
    let asked = Instant::now();
    // By the text, not by the label: whoever collects the lines may index them otherwise.
    let query = format!("{{service=~\".+\"}} |= `{}`", probe.trace_id);
    let (start, end) = around(1_000_000_000);
    let ask = Ask::of(&place.url, "/loki/api/v1/query_range")
        .query("query", &query)
        .query("start", &start)
        .query("end", &end);
    let entered = probe.through[0];
    let found = match look(doctor, &ask, |answer| logged(answer, entered)) {
        Ok(lines) => {
            let took = asked.elapsed().as_secs_f32();
            Found::Ok(format!("{} in Loki after {took:.0} s", lines.told()))
        }
        Err(failed) if failed.is_away => {
            let means = "log lines cannot arrive: Loki does not answer";
            let remedy = "docker compose -p devops-mcp start loki; docs/runbooks/troubleshooting/NoLogs.md";
            place.missed(&failed, Problem::of(&failed, means, remedy))
        }
        Err(failed) => {
            let seconds = PATIENCE.as_secs();
            let means = format!("the log lines of a request do not arrive in Loki within {seconds} s");
            let remedy = "is the Collector up, does it read the services' output, and do they log JSON? \
                          docs/runbooks/troubleshooting/NoLogs.md, docs/runbooks/CollectorExportFailing.md";
            place.missed(&failed, Problem::of(&failed, &means, remedy))
        }
    };
    report.add("log line", found);
}

/// The lines of a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    count: usize,
    services: BTreeSet<String>,
    tenant: Option<String>,
}

impl Lines {
    fn told(&self) -> String {
        let services: Vec<&str> = self.services.iter().map(String::as_str).collect();
        let tenant = self.tenant.as_ref().map(|tenant| format!(", tenant {tenant}"));
        let tenant = tenant.unwrap_or_default();
        format!("{} of {}{tenant}", self.count, services.join(" and "))
    }
}

/// Judges Loki's answer: the lines, once there is one of the service that the request entered.
fn logged(answer: &Answer, entered: &str) -> Result<Lines, Failed> {
    if answer.status != 200 {
        return Err(answer.but(&answer.told()));
    }
    let lines = lines(&answer.json()?);
    if lines.services.contains(entered) {
        return Ok(lines);
    }
    Err(answer.but(&match lines.count {
        0 => "no line".to_owned(),
        _ => format!("{}, but none of {entered}", lines.told()),
    }))
}

fn lines(body: &Value) -> Lines {
    let mut found = Lines::default();
    for stream in body["data"]["result"].as_array().into_iter().flatten() {
        for value in stream["values"].as_array().into_iter().flatten() {
            found.count += 1;
            let line = value[1].as_str().and_then(|line| serde_json::from_str(line).ok());
            let line: Value = line.unwrap_or_default();
            let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);
            let labels = &stream["stream"];
            found
                .services
                .extend(text(&line, "service").or_else(|| text(labels, "service")));
            found.tenant = found.tenant.take().or_else(|| text(&line, "tenant"));
        }
    }
    found
}

/// An hour before and after now, in parts of a second.
fn around(per_second: u64) -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let parts = |time: Duration| (u128::from(per_second) * time.as_millis() / 1000).to_string();
    (parts(now.saturating_sub(AROUND)), parts(now + AROUND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::ask::tests::answer;

    fn trace_of(services: &[&str]) -> Value {
        let spans = services
            .iter()
            .enumerate()
            .map(|(at, name)| json!({ "processID": name, "startTime": 1_000_000 + at }));
        let processes: serde_json::Map<_, _> = services
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "serviceName": name })))
            .collect();
        json!({ "data": [{ "spans": spans.collect::<Vec<_>>(), "processes": processes }] })
    }

    #[test]
    fn a_trace_is_whole_when_each_service_has_a_span() -> anyhow::Result<()> {
        let through = ["mcp-server", "rest-api"];
        let judged =
            |status, body: &Value| whole(&answer(status, body), &through).map_err(|failed| failed.came);
        let (spans, count) = judged(200, &trace_of(&through)).map_err(anyhow::Error::msg)?;
        assert_eq!(count, 2);
        assert_eq!(spans["mcp-server"], UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(
            judged(200, &trace_of(&["mcp-server"])),
            Err("1 spans, but none of rest-api".to_owned())
        );
        assert_eq!(judged(404, &json!({})), Err("404: no such trace".to_owned()));
        Ok(())
    }

    #[test]
    fn a_line_of_the_entered_service_is_wanted() {
        let line = |service: &str| json!({ "service": service, "tenant": "acme" }).to_string();
        let body = |service: &str| json!({ "data": { "result": [{ "stream": {}, "values": [["1", line(service)]] }] } });
        let judged = |body: &Value| logged(&answer(200, body), "mcp-server").map_err(|failed| failed.came);
        let told = judged(&body("mcp-server")).map(|lines| lines.told());
        assert_eq!(told, Ok("1 of mcp-server, tenant acme".to_owned()));
        assert_eq!(
            judged(&body("rest-api")),
            Err("1 of rest-api, tenant acme, but none of mcp-server".to_owned())
        );
        assert_eq!(
            judged(&json!({ "data": { "result": [] } })),
            Err("no line".to_owned())
        );
    }

    #[test]
    fn the_record_is_found_by_the_request_s_id() {
        let body = json!({ "requests": [{ "request_id": "a", "duration_ms": 2.04, "tenant": "acme" }] });
        assert_eq!(recorded(&body, "a").as_deref(), Some("2.0 ms, tenant acme"));
        assert_eq!(recorded(&body, "b"), None);
    }

    #[test]
    fn the_remedy_follows_where_spans_are_lost() {
        assert!(trace_remedy(&[]).contains("NoTraces"));
        assert!(trace_remedy(&["rest-api lost 3 spans meanwhile".to_owned()]).contains("SpansLost"));
    }
}
