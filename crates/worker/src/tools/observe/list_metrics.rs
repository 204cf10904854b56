//! `list_metrics`: which metrics there are.

use super::{
    answer::{self, Answer},
    series,
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Answered, Kind, Matcher, promql, time},
    tools::built_in::{BuiltIn, Desk},
};
use domain::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What was last seen before that is left out.
const RECENT: Duration = Duration::from_secs(3600);
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
/// The most that is told of a metric's help, in characters.
const MAX_HELP: usize = 160;
/// So few metrics are shown with their labels.
const FEW: usize = 3;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Words in name or help, all of them
    search: Option<String>,
    /// Only metrics with this label: job, or job=api
    label: Option<String>,
    /// Default 50, at most 200
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "list_metrics";
    const TITLE: &'static str = "List metrics";
    const DESCRIPTION: &'static str = "Finds metrics seen within the hour by words in their names and help texts and by \
        label, with type and help; up to three found are shown with their labels.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Prometheus, arguments.source.as_deref(), &desk.who)?;
        let limit = arguments.limit.unwrap_or(LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(invalid("limit must be 1 to 200"));
        }
        let selector = selector(arguments.label.as_deref(), access.matchers())?;
        let mut answer = Answer::from(&access);
        let parameters = window(desk.now, selector.as_deref());
        let names = list(&access, "/api/v1/label/__name__/values", &parameters, &mut answer).await?;
        let help = help(&access, &mut answer).await?;
        let search = arguments.search.unwrap_or_default().to_lowercase();
        let found = find(&names, &help, &search);
        let of = found.len();
        let mut metrics: Vec<Value> = found
            .into_iter()
            .take(limit)
            .map(|name| told(name, &help))
            .collect();
        drop(help); // it takes room that others may want while the source is asked again
        if of <= FEW {
            for metric in &mut metrics {
                labels(&access, metric, desk.now, &mut answer).await?;
            }
        }
        if of > limit {
            answer.note("narrow it by more words in search, or by label");
        }
        if of == 0 {
            answer.note(format!("none of the {} metrics you may see fits", names.len()));
        }
        answer.truncated(metrics.len(), of).set("metrics", metrics);
        Ok(answer.finish("metrics"))
    }
}

/// What metrics must have, enforced labels among it; `None`: they may be any.
fn selector(label: Option<&str>, matchers: &[Matcher]) -> Result<Option<String>, Failure> {
    let Some(label) = label else {
        return Ok(promql::selector(matchers));
    };
    let (name, value) = label
        .split_once('=')
        .map_or((label, None), |(name, value)| (name, Some(value)));
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid("label must be a label's name, or name=value"));
    }
    let value = value
        .map(|value| value.trim().trim_matches('"'))
        .filter(|value| !value.is_empty());
    let asked = match value {
        None => format!(r#"{{{name}!=""}}"#),
        Some(value) => {
            let asked = Matcher {
                name: name.to_owned(),
                value: value.to_owned(),
            };
            promql::selector(&[asked]).unwrap_or_default()
        }
    };
    promql::enforce(&asked, matchers).map(Some)
}

fn window(now: Time, selector: Option<&str>) -> Vec<(&'static str, String)> {
    let mut parameters = vec![("start", time::unix(now - RECENT)), ("end", time::unix(now))];
    parameters.extend(selector.map(|selector| ("match[]", selector.to_owned())));
    parameters
}

/// A list of words.
async fn list(
    access: &Access,
    path: &str,
    parameters: &[(&str, String)],
    answer: &mut Answer,
) -> Result<Vec<String>, Failure> {
    let answered = access.get(path, parameters).await?;
    let data = series::data(access, answered, answer)?;
    data.read(serde_json::from_value).map_err(|_| {
        let message = format!("the source `{}` does not answer with names", access.name());
        Failure::new(Code::SourceError, message)
    })
}

/// Types and help texts by name. They come with no labels, so where labels are enforced nobody knows whose they are.
async fn help(access: &Access, answer: &mut Answer) -> Result<Answered, Failure> {
    if !access.matchers().is_empty() {
        answer.note("types and help texts are not shown: they do not tell whose they are");
        return Ok(Answered::default());
    }
    match access
        .get("/api/v1/metadata", &[("limit_per_metric", "1".to_owned())])
        .await
    {
        Ok(answered) => series::data(access, answered, answer),
        // Not everything that speaks PromQL has it.
        Err(failure)
            if failure
                .result
                .as_ref()
                .is_some_and(|answered| answered["status"] == 404) =>
        {
            answer.note("this source knows no types and help texts");
            Ok(Answered::default())
        }
        Err(failure) => Err(failure),
    }
}

/// What help texts say of a metric: a histogram's or a summary's series have names of their own.
fn known<'a>(name: &str, help: &'a Value) -> Option<&'a Value> {
    let suffixes = ["", "_bucket", "_count", "_sum", "_total"];
    let families = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
    families.filter_map(|family| help[family].get(0)).next()
}

/// Those that hold every word; where the name alone does, they come first.
fn find<'a>(names: &'a [String], help: &Value, search: &str) -> Vec<&'a str> {
    let holds = |text: &str| {
        let text = text.to_lowercase();
        search.split_whitespace().all(|word| text.contains(word))
    };
    let (mut by_name, mut by_help) = (Vec::new(), Vec::new());
    for name in names {
        let text = known(name, help)
            .and_then(|known| known["help"].as_str())
            .unwrap_or_default();
        if holds(name) {
            by_name.push(name.as_str());
        } else if holds(&format!("{name} {text}")) {
            by_help.push(name.as_str());
        }
    }
    by_name.extend(by_help);
    by_name
}

fn told(name: &str, help: &Value) -> Value {
    let mut told = json!({ "name": name });
    if let Some(known) = known(name, help) {
        told["type"] = known["type"].clone();
        let text = known["help"].as_str().unwrap_or_default();
        told["help"] = answer::cut(text, MAX_HELP).into();
    }
    told
}

async fn labels(access: &Access, metric: &mut Value, now: Time, answer: &mut Answer) -> Result<(), Failure> {
    let named = Matcher {
        name: "__name__".to_owned(),
        value: metric["name"].as_str().unwrap_or_default().to_owned(),
    };
    let selector = promql::enforce(&promql::selector(&[named]).unwrap_or_default(), access.matchers())?;
    let mut names = list(access, "/api/v1/labels", &window(now, Some(&selector)), answer).await?;
    names.retain(|name| name != "__name__");
    metric["labels"] = names.into();
    Ok(())
}

fn invalid(message: &str) -> Failure {
    Failure::new(Code::InvalidArguments, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, settings, sources},
    };

    const NAMES: &str = "/api/v1/label/__name__/values";

    async fn fake() -> Fake {
        let fake = Fake::start().await;
        let names = json!([
            "http_requests_total",
            "latency_seconds_bucket",
            "latency_seconds_count",
            "up"
        ]);
        fake.on(NAMES, json!({ "status": "success", "data": names }));
        let help = json!({
            "http_requests": [{ "type": "counter", "help": "Requests that were answered.", "unit": "" }],
            "latency_seconds": [{ "type": "histogram", "help": "How long requests took.", "unit": "" }],
            "secret_of_rival": [{ "type": "gauge", "help": "Rival's.", "unit": "" }],
        });
        fake.on("/api/v1/metadata", json!({ "status": "success", "data": help }));
        fake.on(
            "/api/v1/labels",
            json!({ "status": "success", "data": ["__name__", "job", "le"] }),
        );
        fake
    }

    fn names(answer: &Value) -> Vec<&str> {
        let metrics = answer["metrics"].as_array().unwrap();
        metrics
            .iter()
            .filter_map(|metric| metric["name"].as_str())
            .collect()
    }

    #[tokio::test]
    async fn metrics_are_found_by_name_and_help() {
        let fake = fake().await;
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({ "search": "REQUESTS" }))
            .await
            .unwrap();
        assert_eq!(
            names(&answer),
            [
                "http_requests_total",
                "latency_seconds_bucket",
                "latency_seconds_count"
            ]
        );
        let first = json!({
            "name": "http_requests_total",
            "type": "counter",
            "help": "Requests that were answered.",
            "labels": ["job", "le"],
        });
        assert_eq!(answer["metrics"][0], first);
        let answer = call::<Tool>(&sources, json!({ "search": "requests took", "limit": 1 }))
            .await
            .unwrap();
        assert_eq!(answer["truncated"], json!({ "shown": 1, "of": 2 }));
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(names(&answer).len(), 4);
        assert!(
            fake.last().path.ends_with("/metadata"),
            "labels are asked for few only"
        );
    }

    #[tokio::test]
    async fn labels_are_part_of_the_selector() {
        let fake = fake().await;
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        for (label, everybody, acme) in [
            ("job", r#"{job!=""}"#, r#"{job!="",tenant_id="acme"}"#),
            (
                "job = \"a\\b\"",
                r#"{job="a\\b"}"#,
                r#"{job="a\\b",tenant_id="acme"}"#,
            ),
            (
                "tenant_id=rival",
                r#"{tenant_id="rival"}"#,
                r#"{tenant_id="acme",tenant_id="rival"}"#,
            ),
            (
                "job=\"} or {a=\"",
                r#"{job="} or {a="}"#,
                r#"{job="} or {a=",tenant_id="acme"}"#,
            ),
        ] {
            let arguments = json!({ "search": "nothing", "label": label });
            call::<Tool>(&sources, arguments.clone()).await.unwrap();
            call_for::<Tool>(&sources, "acme", arguments).await.unwrap();
            let asked = fake.asked();
            let asked: Vec<&str> = asked
                .iter()
                .filter(|asked| asked.path == NAMES)
                .map(|asked| asked.param("match[]"))
                .collect();
            assert_eq!(asked[asked.len() - 2..], [everybody, acme], "{label}");
        }
        for label in ["", "a b", "=x", "a\"", "1a", "{job"] {
            let failed = call::<Tool>(&sources, json!({ "label": label }))
                .await
                .unwrap_err();
            assert_eq!(failed.code, Code::InvalidArguments, "{label}");
        }
        for arguments in [
            json!({ "limit": 0 }),
            json!({ "limit": 201 }),
            json!({ "name": "x" }),
        ] {
            let failed = call::<Tool>(&sources, arguments).await.unwrap_err();
            assert_eq!(failed.code, Code::InvalidArguments);
        }
    }

    #[tokio::test]
    async fn help_texts_are_shown_to_whoever_sees_all() {
        let fake = fake().await;
        let mut settings = settings([("main", Kind::Prometheus, &fake.url)]);
        let restricted = Sources::new(&settings, "tests").unwrap();
        let answer = call_for::<Tool>(&restricted, "acme", json!({ "search": "up" }))
            .await
            .unwrap();
        assert_eq!(
            answer["metrics"],
            json!([{ "name": "up", "labels": ["job", "le"] }])
        );
        assert!(
            fake.asked()
                .iter()
                .all(|asked| asked.param("match[]").contains(r#"tenant_id="acme""#))
        );
        // An installation for each tenant behind one address, told apart by the header, has its own help texts.
        let grant = settings.get_mut("main").unwrap().grants.get_mut("acme").unwrap();
        grant.matchers.clear();
        grant.org_id = Some("acme".into());
        let of_its_own = Sources::new(&settings, "tests").unwrap();
        let answer = call_for::<Tool>(&of_its_own, "acme", json!({ "search": "http" }))
            .await
            .unwrap();
        assert_eq!(answer["metrics"][0]["type"], "counter");
        assert_eq!(fake.last().headers["x-scope-orgid"], "acme");
    }

    #[tokio::test]
    async fn what_knows_no_help_texts_is_of_use_all_the_same() {
        let fake = fake().await;
        fake.on_status("/api/v1/metadata", 404, "404 page not found");
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({ "search": "up" })).await.unwrap();
        assert_eq!(names(&answer), ["up"]);
    }

    #[tokio::test]
    async fn it_endures_a_bad_source() {
        endures::<Tool>(Kind::Prometheus, NAMES, json!({})).await;
    }
}
