//! `list_silences`: what keeps alerts quiet.

use super::{
    alerts::silence::{self, Silence, State},
    answer::Answer,
};
use crate::{
    outcome::Failure,
    sources::Kind,
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How many silences are shown.
const MAX_SILENCES: usize = 50;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Default: active and pending
    state: Option<State>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "list_silences";
    const TITLE: &'static str = "Silences";
    const DESCRIPTION: &'static str =
        "Lists silences: which alerts they keep quiet, until when, whose they are and why.";
    const NEEDS: &'static [Kind] = &[Kind::Alertmanager];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Alertmanager, arguments.source.as_deref(), &desk.who)?;
        let mut silences = silence::silences(&access).await?;
        let wanted = |state: State| {
            arguments
                .state
                .map_or(state != State::Expired, |wanted| wanted == state)
        };
        silences.retain(|silence| wanted(silence.status.state));
        let shown: Vec<Value> = silences.iter().take(MAX_SILENCES).map(Silence::value).collect();
        let mut answer = Answer::from(&access);
        if shown.len() < silences.len() {
            answer.truncated(shown.len(), silences.len());
            answer.note("those that end next are shown, of expired ones the latest; `state` narrows it");
        }
        if silences.is_empty() {
            answer.note("there is no such silence that you may see");
        }
        answer.set("silences", shown);
        Ok(answer.finish("silences"))
    }
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
    use serde_json::json;

    const PATH: &str = "/api/v2/silences";

    /// As Alertmanager 0.31 tells one.
    fn silence(id: &str, state: &str, ends: &str, tenant: &str) -> Value {
        json!({
            "id": id, "status": { "state": state }, "updatedAt": "2026-11-02T08:38:25.631Z", "comment": "deploying",
            "createdBy": "oncall", "startsAt": "2026-11-02T08:38:25.631Z", "endsAt": ends,
            "matchers": [
                { "isEqual": true, "isRegex": true, "name": "alertname", "value": "Slow.*" },
                { "isEqual": true, "isRegex": false, "name": "tenant_id", "value": tenant }
            ]
        })
    }

    async fn alertmanager() -> Fake {
        let fake = Fake::start().await;
        fake.on(
            PATH,
            json!([
                silence("a", "expired", "2026-11-02T09:00:00.000Z", "acme"),
                silence("b", "expired", "2026-11-02T10:00:00.000Z", "acme"),
                silence("c", "active", "2026-11-03T10:00:00.000Z", "globex"),
                silence("d", "pending", "2026-11-02T11:00:00.000Z", "acme"),
                silence("e", "active", "2026-11-04T10:00:00.000Z", "acme"),
            ]),
        );
        fake
    }

    fn ids(answer: &Value) -> Vec<&str> {
        let silences = answer["silences"].as_array().unwrap();
        silences
            .iter()
            .map(|silence| silence["id"].as_str().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn those_that_hold_come_first() {
        let fake = alertmanager().await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(ids(&answer), ["c", "e", "d"]);
        assert_eq!(
            answer["silences"][0],
            json!({
                "id": "c", "state": "active", "matchers": ["alertname=~\"Slow.*\"", "tenant_id=\"globex\""],
                "starts": "2026-11-02T08:38:25Z", "ends": "2026-11-03T10:00:00Z", "author": "oncall",
                "comment": "deploying"
            })
        );
        let answer = call::<Tool>(&sources, json!({ "state": "expired" }))
            .await
            .unwrap();
        assert_eq!(ids(&answer), ["b", "a"]);
    }

    #[tokio::test]
    async fn a_tenant_sees_those_that_are_bound_to_it() {
        let fake = alertmanager().await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call_for::<Tool>(&sources, "acme", json!({})).await.unwrap();
        assert_eq!(ids(&answer), ["e", "d"]);
        assert_eq!(fake.last().all("filter"), [r#"tenant_id="acme""#]);
    }

    #[tokio::test]
    async fn many_are_cut_and_wrong_input_is_refused() {
        let fake = Fake::start().await;
        let one = |n| silence(&format!("s{n}"), "active", "2026-11-03T10:00:00.000Z", "acme");
        fake.on(PATH, Value::Array((0..80).map(one).collect()));
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(answer["truncated"], json!({ "shown": MAX_SILENCES, "of": 80 }));
        let failure = call::<Tool>(&sources, json!({ "state": "gone" }))
            .await
            .unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments);
    }

    #[tokio::test]
    async fn what_alertmanager_does_to_it() {
        endures::<Tool>(Kind::Alertmanager, PATH, json!({})).await;
    }
}
