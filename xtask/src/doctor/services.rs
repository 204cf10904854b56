//! The three services: alive, ready, of one version, measurable, open to the admin token and to an API key.

use super::{
    Doctor,
    ask::{Answer, Ask, Failed},
    mcp,
    metrics::Metrics,
    places::{Part, Place},
    report::{Found, Problem, Report},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Without these there are no panels and no alerts. All of them are there from the start.
const ESSENTIAL: [&str; 5] = [
    "build_info",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "tokio_alive_tasks",
    "dependency_up",
];
const SPANS_LOST: &str = "telemetry_spans_dropped_total";
/// What makes telemetry incomplete.
const LOSSES: [&str; 3] = [
    SPANS_LOST,
    "telemetry_log_lines_dropped_total",
    "telemetry_series_dropped_total",
];

/// What is known of the services afterwards.
#[derive(Default)]
pub(super) struct Services {
    /// Those that answer, with the answer, for its time.
    pub(super) answers: Vec<(Part, Answer)>,
    /// Spans that each lost since it started.
    pub(super) spans_lost: Vec<(Part, f64)>,
    /// The API key opens the REST API.
    pub(super) key_works: bool,
    /// And MCP answers to it.
    pub(super) mcp_works: bool,
}

impl Services {
    /// Whether a service answers.
    pub(super) fn has(&self, part: Part) -> bool {
        self.answers.iter().any(|(one, _)| *one == part)
    }
}

/// Looks at all of them.
pub(super) fn check(doctor: &Doctor<'_>, report: &mut Report) -> Services {
    let mut services = Services::default();
    for part in Part::SERVICES {
        if let Some(answer) = alive(doctor, report, doctor.places.of(part)) {
            services.answers.push((part, answer));
        }
    }
    let alive: Vec<Part> = services.answers.iter().map(|(part, _)| *part).collect();
    let mut versions = BTreeMap::new();
    for part in Part::SERVICES {
        let check = format!("{} metrics", part.name());
        if !alive.contains(&part) {
            report.skip(&check, format!("{} was not reached", part.name()));
            continue;
        }
        match scrape(doctor, doctor.places.of(part)) {
            Ok((detail, metrics)) => {
                report.add(&check, detail);
                versions.extend(metrics.version.clone().map(|version| (part.name(), version)));
                services
                    .spans_lost
                    .push((part, metrics.sum(SPANS_LOST).unwrap_or_default()));
            }
            Err(problem) => report.fail(&check, problem),
        }
    }
    if let Some(found) = same_version(&versions) {
        report.add("versions", found);
    }
    for part in alive {
        admin(doctor, report, part);
    }
    services.key_works = services.has(Part::RestApi) && api_key(doctor, report);
    services.mcp_works = services.has(Part::McpServer) && mcp::check(doctor, report);
    services
}

/// Whether it lives and is ready; its answer, when there is one.
fn alive(doctor: &Doctor<'_>, report: &mut Report, place: &Place) -> Option<Answer> {
    let name = place.part.name();
    if let Some(reason) = place.left_out() {
        report.skip(name, reason);
        return None;
    }
    let answered = doctor.client.get(&Ask::of(&place.url, "/healthz"));
    let answer = match answered.and_then(Answer::ok) {
        Ok(answer) => answer,
        Err(failed) => {
            report.add(name, place.missed(&failed, dead(name, &failed)));
            return None;
        }
    };
    let found = match doctor.client.get(&Ask::of(&place.url, "/readyz")) {
        Ok(ready) => readiness(
            name,
            &ready.asked,
            &ready.told(),
            &ready.json().unwrap_or_default(),
        ),
        Err(failed) => Found::Failed(dead(name, &failed)),
    };
    report.add(name, found);
    Some(answer)
}

pub(super) fn dead(name: &str, failed: &Failed) -> Problem {
    let (means, remedy) = if failed.is_late {
        (
            format!("{name} is there, and does not answer: it hangs, is paused, or a firewall is between"),
            format!(
                "what it said last: `docker compose -p devops-mcp logs --tail 50 {name}`, or where `cargo xtask dev` runs; \
                 docs/runbooks/RuntimeBlocked.md, docs/runbooks/TargetDown.md"
            ),
        )
    } else {
        (
            format!("{name} does not answer"),
            format!(
                "start it: `cargo xtask stack up`, `cargo xtask dev`, or `docker compose -p devops-mcp start {name}`; \
                 docs/runbooks/TargetDown.md"
            ),
        )
    };
    Problem::of(failed, &means, &remedy)
}

/// Judges the body of `/readyz`.
fn readiness(name: &str, asked: &str, told: &str, body: &Value) -> Found {
    let problem = |means: String, remedy: &str| Problem::new(asked, told, &means, remedy);
    match body["status"].as_str() {
        Some("ready") => {}
        Some(phase) => {
            return Found::Failed(problem(
                format!("{name} is {phase}: it takes no requests"),
                "starting: wait, its log says for what; draining: it is being stopped. `cargo xtask stack logs` shows it; \
                 docs/runbooks/CrashLooping.md",
            ));
        }
        None => {
            return Found::Failed(problem(
                format!("what answers there is not {name}"),
                "compare the address with where the service listens (`http.address`)",
            ));
        }
    }
    let (mut words, mut down) = (vec!["ready".to_owned()], Vec::new());
    for (dependency, state) in body["dependencies"].as_object().into_iter().flatten() {
        match state["up"].as_bool() {
            Some(true) => words.push(format!("{dependency} up")),
            None => words.push(format!("{dependency} not tried yet")),
            Some(false) => down.push((dependency, state["reason"].as_str().unwrap_or("no reason told"))),
        }
    }
    let Some((first, _)) = down.first() else {
        return Found::Ok(words.join(", "));
    };
    let runbook = match first.as_str() {
        "database" => "DatabaseDown",
        "redis" => "RedisDown",
        "worker" => "NoWorkers",
        _ => "DependencyDown",
    };
    let down: Vec<String> = down
        .iter()
        .map(|(name, reason)| format!("{name} ({reason})"))
        .collect();
    Found::Failed(problem(
        format!("{name} is ready, but does without {}", down.join(", ")),
        &format!("bring it back, nothing needs a restart; docs/runbooks/{runbook}.md"),
    ))
}

fn scrape(doctor: &Doctor<'_>, place: &Place) -> Result<(Found, Metrics), Problem> {
    let name = place.part.name();
    let useless = |failed: &Failed| {
        Problem::of(
            failed,
            &format!("{name}'s metrics cannot be read: Prometheus cannot, either"),
            "docs/runbooks/troubleshooting/MissingMetrics.md",
        )
    };
    let answer = doctor.client.get(&Ask::of(&place.url, "/metrics"));
    let answer = answer.and_then(Answer::ok).map_err(|failed| useless(&failed))?;
    let metrics = Metrics::parse(&answer.body);
    let metrics =
        metrics.map_err(|line| useless(&answer.but(&format!("not a sample: {}", super::ask::cut(&line)))))?;
    Ok((measured(name, &answer.asked, &metrics), metrics))
}

/// The spans that a service lost since it started.
pub(super) fn spans_lost(doctor: &Doctor<'_>, part: Part) -> Option<f64> {
    scrape(doctor, doctor.places.of(part)).ok()?.1.sum(SPANS_LOST)
}

/// Judges what a service exposes.
fn measured(name: &str, asked: &str, metrics: &Metrics) -> Found {
    let missing: Vec<&str> = ESSENTIAL
        .into_iter()
        .filter(|name| metrics.sum(name).is_none())
        .collect();
    if !missing.is_empty() {
        return Found::Failed(Problem::new(
            asked,
            &format!("{} names, but not {}", metrics.len(), missing.join(", ")),
            &format!("{name} does not measure what dashboards and alerts are made of"),
            "is it this product, and of this version? docs/runbooks/troubleshooting/MissingMetrics.md",
        ));
    }
    let version = metrics.version.as_deref().unwrap_or("unknown");
    let lost: Vec<String> = LOSSES
        .into_iter()
        .filter_map(|name| metrics.sum(name).map(|value| (name, value)))
        .filter(|(_, value)| *value > 0.0)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let all = format!("{} names, version {version}", metrics.len());
    if lost.is_empty() {
        Found::Ok(all)
    } else {
        // Since its start, maybe long ago: what is lost now shows where a trace and a line are waited for.
        Found::Note(format!("{all}; lost since it started: {}", lost.join(", ")))
    }
}

/// Judges the versions that run together; nothing to say of less than two.
fn same_version(versions: &BTreeMap<&'static str, String>) -> Option<Found> {
    let different: BTreeSet<&String> = versions.values().collect();
    let mut each = versions.iter().map(|(name, version)| format!("{name} {version}"));
    if versions.len() < 2 {
        return None;
    }
    if let [one] = different.iter().collect::<Vec<_>>()[..] {
        return Some(Found::Ok(format!("{one} everywhere")));
    }
    let each: Vec<String> = each.by_ref().collect();
    Some(Found::Warning(Problem::new(
        "GET /metrics of each, build_info",
        &each.join(", "),
        "the services are of different versions: one apart understand each other, more may not",
        "finish the deployment, or go back; docs/runbooks/README.md, \"Going back to the version before\"",
    )))
}

/// The admin token, and a log level that was forgotten.
fn admin(doctor: &Doctor<'_>, report: &mut Report, part: Part) {
    let check = format!("{} admin", part.name());
    let Some(token) = &doctor.places.admin_token else {
        report.skip(&check, "no admin token (ADMIN_TOKEN)");
        return;
    };
    let ask = Ask::of(&doctor.places.of(part).url, "/admin/log-level").bearer(token);
    match doctor.client.get(&ask) {
        Ok(answer) => {
            let url = &doctor.places.of(part).url;
            let body = answer.json().unwrap_or_default();
            report.add(&check, admitted(url, &answer, &body));
        }
        Err(failed) => report.fail(&check, dead(part.name(), &failed)),
    }
}

/// Judges the answer to the admin token.
fn admitted(url: &str, answer: &Answer, body: &Value) -> Found {
    let problem =
        |means: &str, remedy: &str| Found::Failed(Problem::new(&answer.asked, &answer.told(), means, remedy));
    match (answer.status, body["level"].as_str()) {
        (200, Some(level)) if is_quiet(level) => Found::Ok(format!("the token is right, log level {level}")),
        (200, Some(level)) => {
            let until = match (body["reverts_to"].as_str(), body["reverts_in_seconds"].as_u64()) {
                (Some(to), Some(seconds)) => format!("it goes back to {to} in {seconds} s by itself"),
                _ => format!(
                    "back: curl -X PUT {url}/admin/log-level -H \"Authorization: Bearer $ADMIN_TOKEN\" -d '{{\"level\": \"info\"}}'"
                ),
            };
            Found::Note(format!("the token is right; log level is {level}: {until}"))
        }
        (401, _) => problem(
            "the admin token is wrong: /admin and /debug are closed to you",
            "take the one that the service was started with: ADMIN_TOKEN in the file that `cargo xtask dev` or `stack up` \
             wrote, or what its own ADMIN_TOKEN_FILE holds (deploy/secrets/admin_token)",
        ),
        (403, _) => problem(
            "the service has no admin token: nobody can change its log level or take a profile",
            "set ADMIN_TOKEN for it, and start it again",
        ),
        _ => problem(
            "/admin does not answer as it should",
            "is it this product, and of this version?",
        ),
    }
}

/// Whether a level, or each of its directives, is `info` or less.
fn is_quiet(level: &str) -> bool {
    level.split(',').all(|directive| {
        let level = directive.rsplit('=').next().unwrap_or(directive);
        !matches!(level.trim().to_ascii_lowercase().as_str(), "debug" | "trace")
    })
}

/// Whether the key opens the REST API.
fn api_key(doctor: &Doctor<'_>, report: &mut Report) -> bool {
    let Some(key) = &doctor.places.api_key else {
        report.skip(
            "API key",
            "no API key (API_KEY): neither MCP nor a request of ours can be tried",
        );
        return false;
    };
    let url = &doctor.places.of(Part::RestApi).url;
    let ask = Ask::of(url, "/api/v1/contexts").query("limit", "1").bearer(key);
    let found = match doctor.client.get(&ask) {
        Ok(answer) => let_in(
            answer.status,
            &answer.asked,
            &answer.told(),
            &answer.json().unwrap_or_default(),
        ),
        Err(failed) => Found::Failed(dead("rest-api", &failed)),
    };
    report.add("API key", found)
}

/// Judges the answer to a listing of contexts.
fn let_in(status: u16, asked: &str, told: &str, body: &Value) -> Found {
    let problem = |means: &str, remedy: &str| Problem::new(asked, told, means, remedy);
    match status {
        200 => Found::Ok("it opens the REST API".to_owned()),
        401 => Found::Failed(problem(
            "the API key is refused: a typing error, or it is revoked, expired, of another installation or of a \
             suspended tenant",
            "take API_KEY of the file that `cargo xtask dev` or `stack up` wrote, or make another: `docker compose -p \
             devops-mcp exec -T rest-api rest-api keys create --tenant dev --scopes all`; `mcp_auth_attempts_total` tells \
             why it is refused; docs/runbooks/AuthFailuresSpike.md",
        )),
        403 => Found::Note(format!(
            "it is known, but lacks {}",
            body["required_scope"].as_str().unwrap_or("a scope")
        )),
        429 => Found::Warning(problem(
            "the key is over its rate limit",
            "wait, or give each client a key of its own; docs/runbooks/RateLimiting.md",
        )),
        503 => Found::Failed(problem(
            "rest-api cannot look the key up: its database is away, or too much goes on",
            "docs/runbooks/DatabaseDown.md",
        )),
        _ => Found::Failed(problem(
            "rest-api does not answer as it should",
            "its log has the cause: look for the request's x-request-id; docs/runbooks/HighErrorRate.md",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::ask::tests::answer;
    use serde_json::json;

    fn problem(found: Found) -> Problem {
        match found {
            Found::Failed(problem) | Found::Warning(problem) => problem,
            other => panic!("nothing is wrong: {other:?}"),
        }
    }

    #[test]
    fn readiness_names_what_is_missing_and_its_runbook() {
        let judged = |body: &Value| readiness("rest-api", "", "", body);
        let up = json!({ "status": "ready", "dependencies": { "database": { "up": true } } });
        assert_eq!(judged(&up), Found::Ok("ready, database up".to_owned()));
        let down =
            json!({ "status": "ready", "dependencies": { "database": { "up": false, "reason": "gone" } } });
        let down = problem(judged(&down));
        assert!(down.means.contains("database (gone)") && down.remedy.contains("DatabaseDown"));
        assert!(
            problem(judged(&json!({ "status": "draining" })))
                .means
                .contains("draining")
        );
        assert!(problem(judged(&json!({}))).means.contains("not rest-api"));
    }

    #[test]
    fn a_wrong_key_and_a_wrong_token_are_told() {
        let body =
            json!({ "code": "invalid_key", "detail": "no such key", "required_scope": "contexts:read" });
        let judged = |status| let_in(status, "", "", &body);
        assert!(problem(judged(401)).means.contains("refused"));
        assert!(matches!(judged(403), Found::Note(note) if note.contains("contexts:read")));
        assert!(matches!(judged(200), Found::Ok(_)));
        let token = |status, body: Value| admitted("http://x", &answer(status, &body), &body);
        assert!(problem(token(401, json!({}))).means.contains("token is wrong"));
        assert!(
            problem(token(403, json!({})))
                .means
                .contains("has no admin token")
        );
        assert!(matches!(
            token(200, json!({ "level": "info,sqlx=warn" })),
            Found::Ok(_)
        ));
        let debug = token(200, json!({ "level": "info,sqlx=debug" }));
        assert!(matches!(debug, Found::Note(note) if note.contains("curl -X PUT http://x/admin/log-level")));
    }

    #[test]
    fn essential_metrics_and_one_version_are_wanted() -> Result<(), String> {
        let page: String = ESSENTIAL
            .iter()
            .map(|name| format!("{name}{{version=\"1\"}} 1\n"))
            .collect();
        let lossy = format!("{page}{SPANS_LOST} 7\n");
        assert!(matches!(
            measured("worker", "", &Metrics::parse(&page)?),
            Found::Ok(_)
        ));
        assert!(
            matches!(measured("worker", "", &Metrics::parse(&lossy)?), Found::Note(note) if note.contains('7'))
        );
        assert!(
            problem(measured("worker", "", &Metrics::parse("a 1")?))
                .came
                .contains("build_info")
        );
        let mut versions = BTreeMap::from([("rest-api", "1".to_owned()), ("worker", "1".to_owned())]);
        assert_eq!(
            same_version(&versions),
            Some(Found::Ok("1 everywhere".to_owned()))
        );
        versions.insert("mcp-server", "2".to_owned());
        assert!(matches!(same_version(&versions), Some(Found::Warning(_))));
        Ok(())
    }
}
