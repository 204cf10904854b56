//! `list_targets`: what is scraped, and whether that works.

use super::{
    answer::{self, Answer},
    series,
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind, promql},
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// The most targets in an answer.
const MAX_TARGETS: usize = 60;
/// The most that is told of an error, in characters.
const MAX_ERROR: usize = 200;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    Up,
    Down,
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    state: Option<State>,
    job: Option<String>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "list_targets";
    const TITLE: &'static str = "List scrape targets";
    const DESCRIPTION: &'static str = "Lists what Prometheus scrapes with state, last error and scrape time, those that \
        are down first, and counts them by state.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Prometheus, arguments.source.as_deref(), &desk.who)?;
        let mut answer = Answer::from(&access);
        let mut targets = targets(&access, &mut answer).await?;
        if let Some(job) = &arguments.job {
            targets.retain(|target| target["labels"]["job"] == **job);
        }
        for state in [State::Up, State::Down, State::Unknown] {
            let count = targets.iter().filter(|target| target["health"] == state.as_str());
            answer.set(state.as_str(), count.count());
        }
        if let Some(state) = arguments.state {
            targets.retain(|target| target["health"] == state.as_str());
        }
        // What works comes last.
        targets.sort_by_cached_key(|target| (target["health"] == "up", target["scrapePool"].to_string()));
        let told: Vec<Value> = targets.iter().take(MAX_TARGETS).map(told).collect();
        if told.len() < targets.len() {
            answer.note("narrow it by job or state");
        }
        if targets.is_empty() && !access.matchers().is_empty() {
            answer.note(
                "only targets that carry your own labels are shown; query_metrics with `up` may know more",
            );
        }
        answer.truncated(told.len(), targets.len()).set("targets", told);
        Ok(answer.finish("targets"))
    }
}

/// Those that a caller may see. Prometheus cannot filter them by labels.
async fn targets(access: &Access, answer: &mut Answer) -> Result<Vec<Value>, Failure> {
    let answered = access
        .get("/api/v1/targets", &[("state", "active".to_owned())])
        .await?;
    let data = series::data(access, answered, answer)?;
    data.part("/activeTargets").read(|targets| {
        let Value::Array(mut targets) = targets else {
            let message = format!("the source `{}` does not answer with targets", access.name());
            return Err(Failure::new(Code::SourceError, message));
        };
        targets.retain(|target| promql::admits(access.matchers(), &target["labels"]));
        Ok(targets)
    })
}

fn told(target: &Value) -> Value {
    let labels = &target["labels"];
    let mut told = json!({
        "job": labels["job"],
        "instance": labels["instance"],
        "state": target["health"],
        "scrape_seconds": target["lastScrapeDuration"].as_f64().map(answer::number),
    });
    let scraped = target["lastScrape"].as_str().and_then(|time| time.parse().ok());
    if let Some(scraped) = scraped.filter(|time: &domain::Time| time.timestamp() > 0) {
        told["last_scrape"] = answer::time(scraped).into();
    }
    let error = target["lastError"].as_str().unwrap_or_default();
    if !error.is_empty() {
        told["error"] = answer::cut(error, MAX_ERROR).into();
    }
    let more = labels.as_object().into_iter().flatten();
    let more = more.filter(|(name, _)| !["job", "instance"].contains(&name.as_str()));
    let more: serde_json::Map<String, Value> =
        more.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !more.is_empty() {
        told["labels"] = more.into();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, sources},
    };

    const PATH: &str = "/api/v1/targets";

    /// As Prometheus 2.42 writes it.
    fn target(job: &str, instance: &str, health: &str, tenant: &str) -> Value {
        json!({
            "discoveredLabels": { "__address__": instance, "__scheme__": "http", "job": job },
            "labels": { "instance": instance, "job": job, "tenant_id": tenant },
            "scrapePool": job,
            "scrapeUrl": format!("http://{instance}/metrics"),
            "globalUrl": format!("http://{instance}/metrics"),
            "lastError": if health == "down" { "connection refused" } else { "" },
            "lastScrape": if health == "unknown" { "0001-01-01T00:00:00Z" } else { "2026-11-02T11:59:55.123456789Z" },
            "lastScrapeDuration": 0.004_567_89,
            "health": health,
            "scrapeInterval": "15s",
            "scrapeTimeout": "10s",
        })
    }

    async fn fake(targets: Vec<Value>) -> Fake {
        let fake = Fake::start().await;
        let data = json!({ "activeTargets": targets, "droppedTargets": [] });
        fake.on(PATH, json!({ "status": "success", "data": data }));
        fake
    }

    #[tokio::test]
    async fn what_is_down_comes_first() {
        let targets = vec![
            target("api", "a:1", "up", "acme"),
            target("api", "b:1", "down", "rival"),
            target("db", "c:1", "unknown", "acme"),
        ];
        let fake = fake(targets).await;
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(
            (&answer["up"], &answer["down"], &answer["unknown"]),
            (&json!(1), &json!(1), &json!(1))
        );
        let first = json!({
            "job": "api",
            "instance": "b:1",
            "state": "down",
            "scrape_seconds": 0.004568,
            "last_scrape": "2026-11-02T11:59:55Z",
            "error": "connection refused",
            "labels": { "tenant_id": "rival" },
        });
        assert_eq!(answer["targets"][0], first);
        assert!(answer["targets"][1].get("last_scrape").is_none());
        let answer = call::<Tool>(&sources, json!({ "job": "db", "state": "down" }))
            .await
            .unwrap();
        assert_eq!((&answer["unknown"], &answer["targets"]), (&json!(1), &json!([])));
    }

    #[tokio::test]
    async fn a_tenant_sees_and_counts_its_own() {
        let fake = fake(vec![
            target("api", "a:1", "up", "acme"),
            target("api", "b:1", "down", "rival"),
        ])
        .await;
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call_for::<Tool>(&sources, "acme", json!({})).await.unwrap();
        assert_eq!((&answer["up"], &answer["down"]), (&json!(1), &json!(0)));
        assert!(!answer.to_string().contains("rival"), "{answer}");
    }

    #[tokio::test]
    async fn many_are_cut_and_told() {
        let targets = (0..2000).map(|i| target("api", &format!("10.0.0.{i}:9090"), "up", "acme"));
        // The limit of an answer in tests is 1 MiB.
        let fake = fake(targets.collect()).await;
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(answer["truncated"], json!({ "shown": 60, "of": 2000 }));
        assert!(answer.to_string().len() <= answer::MAX_BYTES);
        let failed = call::<Tool>(&sources, json!({ "state": "sideways" }))
            .await
            .unwrap_err();
        assert_eq!(failed.code, Code::InvalidArguments);
    }

    #[tokio::test]
    async fn it_endures_a_bad_source() {
        endures::<Tool>(Kind::Prometheus, PATH, json!({})).await;
    }
}
