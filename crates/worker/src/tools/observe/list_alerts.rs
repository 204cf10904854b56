//! `list_alerts`: what fires.

use super::{
    alerts::{self, Alert},
    answer::{self, Answer},
};
use crate::{
    outcome::Failure,
    sources::{Kind, Matcher},
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many alerts are shown.
const MAX_ALERTS: usize = 50;
/// How much of what an alert says is shown, in characters.
const MAX_TEXT: usize = 400;
/// How much of a label's value is.
const MAX_VALUE: usize = 120;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The alert's name
    name: Option<String>,
    /// critical, warning, info, none
    severity: Option<String>,
    service: Option<String>,
    /// Default all
    state: Option<State>,
    source: Option<String>,
}

/// Whether anybody is told.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Active,
    Silenced,
    Inhibited,
    Muted,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Silenced => "silenced",
            Self::Inhibited => "inhibited",
            Self::Muted => "muted",
        }
    }
}

impl BuiltIn for Tool {
    const NAME: &'static str = "list_alerts";
    const TITLE: &'static str = "Firing alerts";
    const DESCRIPTION: &'static str = "Lists the alerts that fire now, the worst first: since when, what they say, their \
        labels, and whether they notify anybody (active) or are silenced, inhibited by another alert or muted.";
    const NEEDS: &'static [Kind] = &[Kind::Alertmanager];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Alertmanager, arguments.source.as_deref(), &desk.who)?;
        let mut alerts = alerts::alerts(&access, &arguments.conditions()).await?;
        if let Some(state) = arguments.state {
            alerts.retain(|alert| alert.state() == state.as_str());
        }
        let mut by_severity: BTreeMap<&str, usize> = BTreeMap::new();
        for alert in &alerts {
            let severity = Some(alert.label("severity")).filter(|severity| !severity.is_empty());
            *by_severity.entry(severity.unwrap_or("without")).or_default() += 1;
        }
        let mut answer = Answer::from(&access);
        answer.set("by_severity", json!(by_severity));
        let shown: Vec<Value> = alerts.iter().take(MAX_ALERTS).map(shown).collect();
        if shown.len() < alerts.len() {
            answer.truncated(shown.len(), alerts.len());
            answer
                .note("the worst and newest are shown; `name`, `severity`, `service` and `state` narrow it");
        }
        if alerts.is_empty() {
            answer.note("nothing fires that you may see and that fits");
        }
        answer.set("alerts", shown);
        Ok(answer.finish("alerts"))
    }
}

impl Arguments {
    fn conditions(&self) -> Vec<Matcher> {
        let asked = [
            ("alertname", &self.name),
            ("severity", &self.severity),
            ("service", &self.service),
        ];
        let given = asked.into_iter().filter_map(|(name, value)| {
            let value = value.as_deref()?.trim();
            (!value.is_empty()).then(|| Matcher {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        });
        given.collect()
    }
}

fn shown(alert: &Alert) -> Value {
    let mut shown = json!({
        "alert": alert.label("alertname"),
        "state": alert.state(),
        "since": answer::time(alert.starts_at),
        "fingerprint": alert.fingerprint,
    });
    let mut set = |key: &str, value: Value| shown[key] = value;
    for key in ["severity", "service"] {
        if let Some(value) = alert.labels.get(key) {
            set(key, answer::cut(value, MAX_VALUE).into());
        }
    }
    let told = ["alertname", "severity", "service"];
    let others = alert
        .labels
        .iter()
        .filter(|(name, _)| !told.contains(&name.as_str()));
    let others: BTreeMap<&str, String> = others
        .map(|(name, value)| (name.as_str(), answer::cut(value, MAX_VALUE)))
        .collect();
    if !others.is_empty() {
        set("labels", json!(others));
    }
    for key in ["summary", "description"] {
        if let Some(text) = alert.annotations.get(key) {
            set(key, answer::cut(text, MAX_TEXT).into());
        }
    }
    if knowledge::runbook(alert.label("alertname")).is_some() {
        set(
            "runbook",
            format!("runbook://{}", alert.label("alertname")).into(),
        );
    } else if let Some(url) = alert.annotations.get("runbook_url") {
        set("runbook", answer::cut(url, MAX_TEXT).into());
    }
    if !alert.status.silenced_by.is_empty() {
        set("silenced_by", json!(alert.status.silenced_by));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::Code,
        tools::observe::{
            endures::endures,
            testing::{Fake, call, call_for, sources},
        },
    };

    const PATH: &str = "/api/v2/alerts";

    /// As Alertmanager 0.31 tells one.
    fn alert(name: &str, severity: &str, tenant: &str, status: &Value) -> Value {
        json!({
            "annotations": {
                "summary": "rest-api answers with errors", "description": "x".repeat(500),
                "runbook_url": format!("https://example.org/{name}.md")
            },
            "endsAt": "2026-11-23T08:43:25.619Z",
            "fingerprint": format!("{name}-{severity}"),
            "receivers": [{ "name": "page" }],
            "startsAt": "2026-11-23T08:38:25.619Z",
            "status": status,
            "updatedAt": "2026-11-23T08:38:25.619Z",
            "generatorURL": "http://localhost:9090/graph?g0.expr=up",
            "labels": { "alertname": name, "service": "rest-api", "severity": severity, "tenant_id": tenant }
        })
    }

    fn active() -> Value {
        json!({ "inhibitedBy": [], "mutedBy": [], "silencedBy": [], "state": "active" })
    }

    #[tokio::test]
    async fn the_worst_comes_first() {
        let fake = Fake::start().await;
        let silenced =
            json!({ "inhibitedBy": ["a"], "mutedBy": [], "silencedBy": ["s"], "state": "suppressed" });
        fake.on(
            PATH,
            json!([
                alert("Slow", "warning", "acme", &active()),
                alert("Down", "critical", "acme", &silenced),
                alert("HighErrorRate", "critical", "acme", &active()),
            ]),
        );
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(answer["by_severity"], json!({ "critical": 2, "warning": 1 }));
        let names: Vec<&Value> = answer["alerts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| &alert["alert"])
            .collect();
        assert_eq!(names, ["HighErrorRate", "Down", "Slow"]);
        let first = &answer["alerts"][0];
        assert_eq!(first["description"].as_str().unwrap().chars().count(), MAX_TEXT);
        assert_eq!(
            (&first["since"], &first["runbook"], &first["labels"]),
            (
                &json!("2026-11-23T08:38:25Z"),
                &json!("runbook://HighErrorRate"),
                &json!({ "tenant_id": "acme" })
            )
        );
        assert_eq!(answer["alerts"][1]["silenced_by"], json!(["s"]));
        assert_eq!(answer["alerts"][1]["runbook"], "https://example.org/Down.md");
        assert!(fake.last().params.is_empty());

        let answer = call::<Tool>(&sources, json!({ "state": "silenced", "name": "Down" }))
            .await
            .unwrap();
        assert_eq!(answer["alerts"].as_array().unwrap().len(), 1);
        assert_eq!(fake.last().all("filter"), [r#"alertname="Down""#]);
        let answer = call::<Tool>(&sources, json!({ "state": "muted" })).await.unwrap();
        assert_eq!(answer["notes"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_tenant_asks_for_its_own_alerts_and_gets_no_other() {
        let fake = Fake::start().await;
        // One that does not filter.
        fake.on(
            PATH,
            json!([
                alert("A", "warning", "globex", &active()),
                alert("B", "warning", "acme", &active())
            ]),
        );
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let arguments = json!({ "service": "rest-api", "severity": "warning" });
        let answer = call_for::<Tool>(&sources, "acme", arguments).await.unwrap();
        let filters = [
            r#"tenant_id="acme""#,
            r#"severity="warning""#,
            r#"service="rest-api""#,
        ];
        assert_eq!(fake.last().all("filter"), filters);
        assert_eq!(answer["alerts"].as_array().unwrap().len(), 1);
        assert_eq!(answer["alerts"][0]["alert"], "B");
        let failure = call_for::<Tool>(&sources, "globex", json!({})).await.unwrap_err();
        assert_eq!(failure.code, Code::UnknownSource);
    }

    #[tokio::test]
    async fn many_are_cut_and_wrong_input_is_refused() {
        let fake = Fake::start().await;
        let one = |n| alert(&format!("A{n}"), "info", "acme", &active());
        fake.on(PATH, Value::Array((0..200).map(one).collect()));
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        let shown = answer["alerts"].as_array().unwrap().len();
        assert!(shown <= MAX_ALERTS);
        assert_eq!(answer["truncated"], json!({ "shown": shown, "of": 200 }));
        assert!(answer.to_string().len() <= answer::MAX_BYTES);
        for arguments in [
            json!({ "state": "firing" }),
            json!({ "name": 1 }),
            json!({ "alert": "x" }),
        ] {
            let failure = call::<Tool>(&sources, arguments.clone()).await.unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
        }
        assert_eq!(fake.asked().len(), 1);
    }

    #[tokio::test]
    async fn what_alertmanager_does_to_it() {
        endures::<Tool>(Kind::Alertmanager, PATH, json!({})).await;
    }
}
