//! `create_silence`: keeps alerts quiet for a while.

use super::{
    alerts::{
        self, Alert,
        silence::{Condition, Draft},
    },
    answer::{self, Answer},
};
use crate::{
    outcome::{Code, Failure},
    sources::{Kind, Matcher, time},
    tools::built_in::{BuiltIn, Desk, Effect},
};
use domain::Scope;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long a silence holds if nothing is said.
const HOUR: Duration = Duration::from_secs(3600);
/// How long it holds at least.
const SHORTEST: Duration = Duration::from_secs(60);
/// How long at most.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// The most labels that it may name.
const MAX_MATCHERS: usize = 20;
/// The longest text of a label or a comment, in characters.
const MAX_TEXT: usize = 1000;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Labels and their exact values, e.g. {"alertname": "SlowQueries", "service": "rest-api"}
    matchers: BTreeMap<String, String>,
    /// 1m to 7d; default 1h
    duration: Option<String>,
    /// Why
    comment: String,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "create_silence";
    const TITLE: &'static str = "Silence alerts";
    const DESCRIPTION: &'static str = "Silences alerts that have all these labels, from now on and at most for 7 days. \
        Nobody is notified of them meanwhile. Tells which firing alerts it keeps quiet.";
    const SCOPE: Scope = Scope::ObserveWrite;
    const EFFECT: Effect = Effect::Additive;
    const NEEDS: &'static [Kind] = &[Kind::Alertmanager];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Alertmanager, arguments.source.as_deref(), &desk.who)?;
        let own = conditions(&arguments.matchers, access.matchers())?;
        let all = own.iter().chain(access.matchers());
        let draft = Draft {
            matchers: all
                .map(|one| Condition::equality(&one.name, &one.value))
                .collect(),
            starts_at: desk.now,
            ends_at: desk.now + length(arguments.duration.as_deref())?,
            created_by: desk.who.key_name.to_owned(),
            comment: comment(&arguments.comment)?.to_owned(),
        };
        let quiet = alerts::alerts(&access, &own).await?;
        let id = draft.create(&access).await?;
        let mut answer = Answer::from(&access);
        answer.set("id", id);
        answer.set(
            "matchers",
            draft.matchers.iter().map(Condition::text).collect::<Vec<_>>(),
        );
        answer.set("starts", time::rfc3339(draft.starts_at));
        answer.set("ends", time::rfc3339(draft.ends_at));
        answer.set("author", draft.created_by);
        answer.set("alerts", names(&quiet));
        if quiet.is_empty() {
            answer.note("no alert that fires now has these labels");
        }
        Ok(answer.finish("alerts"))
    }
}

/// What is asked of an alert beside what is enforced.
fn conditions(given: &BTreeMap<String, String>, enforced: &[Matcher]) -> Result<Vec<Matcher>, Failure> {
    let is_enforced = |name: &str| enforced.iter().find(|enforced| enforced.name == name);
    if given.len() > MAX_MATCHERS {
        return Err(invalid(format!("more than {MAX_MATCHERS} labels")));
    }
    for (name, value) in given {
        if name.is_empty() || name.chars().count().max(value.chars().count()) > MAX_TEXT {
            return Err(invalid(format!(
                "a label has a name, and at most {MAX_TEXT} characters"
            )));
        }
        if let Some(Matcher { value: own, .. }) =
            is_enforced(name).filter(|enforced| enforced.value != *value)
        {
            return Err(invalid(format!("you may silence only what has {name}=\"{own}\"")));
        }
    }
    // What is enforced alone would keep quiet everything that the caller may see.
    if !given
        .iter()
        .any(|(name, value)| !value.is_empty() && is_enforced(name).is_none())
    {
        return Err(invalid(
            "name at least one label with a value, `alertname` for example",
        ));
    }
    let own = given.iter().filter(|(name, _)| is_enforced(name).is_none());
    let matcher = |(name, value): (&String, &String)| Matcher {
        name: name.clone(),
        value: value.clone(),
    };
    Ok(own.map(matcher).collect())
}

fn length(text: Option<&str>) -> Result<Duration, Failure> {
    let length = text.map_or(Ok(HOUR), time::duration)?;
    let fits = (SHORTEST..=LONGEST).contains(&length);
    fits.then_some(length)
        .ok_or_else(|| invalid("`duration` is from 1m to 7d"))
}

fn comment(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    let fits = !text.is_empty() && text.chars().count() <= MAX_TEXT;
    fits.then_some(text)
        .ok_or_else(|| invalid(format!("`comment` says why, in at most {MAX_TEXT} characters")))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArguments, message)
}

/// `[{"alert": …, "severity": …, "service": …, "count": n}, …]`
fn names(alerts: &[Alert]) -> Vec<Value> {
    let mut counts: BTreeMap<[&str; 3], usize> = BTreeMap::new();
    for alert in alerts {
        let key = ["alertname", "severity", "service"].map(|name| alert.label(name));
        *counts.entry(key).or_default() += 1;
    }
    let one = |([name, severity, service], count): ([&str; 3], usize)| {
        let cut = |text| answer::cut(text, 120);
        json!({ "alert": cut(name), "severity": cut(severity), "service": cut(service), "count": count })
    };
    counts.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, sources},
    };

    const ALERTS: &str = "/api/v2/alerts";
    const SILENCES: &str = "/api/v2/silences";

    async fn alertmanager() -> Fake {
        let fake = Fake::start().await;
        let alert = |tenant| {
            json!({
                "labels": { "alertname": "Slow", "severity": "warning", "tenant_id": tenant },
                "startsAt": "2026-11-02T08:38:25.619Z", "fingerprint": "a", "status": { "state": "active" }
            })
        };
        fake.on(ALERTS, json!([alert("acme"), alert("acme"), alert("globex")]));
        fake.on(
            SILENCES,
            json!({ "silenceID": "721ffe5b-0119-4b3d-a497-52024e9026cc" }),
        );
        fake
    }

    fn posted(fake: &Fake) -> Value {
        let last = fake.last();
        assert_eq!((last.method.as_str(), last.path.as_str()), ("POST", SILENCES));
        serde_json::from_str(&last.body).unwrap()
    }

    #[tokio::test]
    async fn it_is_bounded_and_bears_the_name_of_the_key() {
        let fake = alertmanager().await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let arguments = json!({ "matchers": { "alertname": "Slow" }, "comment": " deploying " });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        let body = json!({
            "matchers": [{ "name": "alertname", "value": "Slow", "isRegex": false, "isEqual": true }],
            "startsAt": "2026-11-02T12:00:00Z", "endsAt": "2026-11-02T13:00:00Z", "createdBy": "test-key",
            "comment": "deploying"
        });
        assert_eq!(posted(&fake), body);
        assert_eq!(
            answer,
            json!({
                "source": "alerts", "id": "721ffe5b-0119-4b3d-a497-52024e9026cc", "matchers": ["alertname=\"Slow\""],
                "starts": "2026-11-02T12:00:00Z", "ends": "2026-11-02T13:00:00Z", "author": "test-key",
                "alerts": [{ "alert": "Slow", "severity": "warning", "service": "", "count": 3 }],
            })
        );
        let arguments = json!({ "matchers": { "alertname": "Other" }, "comment": "x", "duration": "7d" });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        assert_eq!(answer["ends"], "2026-11-09T12:00:00Z");
        assert_eq!(answer["notes"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_tenant_silences_its_own_alerts_only() {
        let fake = alertmanager().await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let arguments = json!({ "matchers": { "alertname": "Slow", "tenant_id": "acme" }, "comment": "x" });
        for arguments in [
            arguments,
            json!({ "matchers": { "alertname": "Slow" }, "comment": "x" }),
        ] {
            let answer = call_for::<Tool>(&sources, "acme", arguments).await.unwrap();
            assert_eq!(answer["alerts"][0]["count"], 2);
            let matchers = [("alertname", "Slow"), ("tenant_id", "acme")];
            let matchers = matchers.map(|(name, value)| Condition::equality(name, value));
            assert_eq!(posted(&fake)["matchers"], json!(matchers));
        }
        let asked = fake.asked().len();
        for matchers in [
            json!({ "alertname": "Slow", "tenant_id": "globex" }),
            json!({ "alertname": "Slow", "tenant_id": "" }),
            json!({ "tenant_id": "acme" }),
        ] {
            let arguments = json!({ "matchers": matchers, "comment": "x" });
            let failure = call_for::<Tool>(&sources, "acme", arguments.clone())
                .await
                .unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
        }
        let arguments = json!({ "matchers": { "alertname": "Slow" }, "comment": "x" });
        let failure = call_for::<Tool>(&sources, "globex", arguments).await.unwrap_err();
        assert_eq!(failure.code, Code::UnknownSource);
        assert_eq!(fake.asked().len(), asked);
    }

    #[tokio::test]
    async fn wrong_input_is_refused_before_anything_is_asked() {
        let fake = alertmanager().await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let with = |key: &str, value: Value| {
            let mut arguments = json!({ "matchers": { "alertname": "Slow" }, "comment": "x" });
            arguments[key] = value;
            arguments
        };
        for arguments in [
            with("matchers", json!({})),
            with("matchers", json!({ "alertname": "" })),
            with("matchers", json!({ "": "a", "b": "c" })),
            with("matchers", json!({ "alertname": "a".repeat(1001) })),
            with(
                "matchers",
                json!((0..21).map(|n| (n.to_string(), "x")).collect::<BTreeMap<_, _>>()),
            ),
            with("matchers", json!(["alertname"])),
            with("duration", json!("59s")),
            with("duration", json!("7d1s")),
            with("duration", json!("forever")),
            with("comment", json!("  ")),
            with("author", json!("somebody else")),
        ] {
            let failure = call::<Tool>(&sources, arguments.clone()).await.unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
        }
        assert!(fake.asked().is_empty());
    }

    #[tokio::test]
    async fn what_alertmanager_does_to_it() {
        let arguments = json!({ "matchers": { "alertname": "Slow" }, "comment": "x" });
        endures::<Tool>(Kind::Alertmanager, ALERTS, arguments).await;
    }
}
