//! `expire_silence`: lets alerts be heard again.

use super::{
    alerts::silence::{self, State},
    answer::Answer,
};
use crate::{
    outcome::{Code, Failure},
    sources::Kind,
    tools::built_in::{BuiltIn, Desk, Effect},
};
use domain::Scope;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The silence's id, from list_silences
    id: String,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "expire_silence";
    const TITLE: &'static str = "End a silence";
    const DESCRIPTION: &'static str = "Ends a silence now: the alerts that it kept quiet notify again.";
    const SCOPE: Scope = Scope::ObserveWrite;
    const EFFECT: Effect = Effect::Changing;
    const NEEDS: &'static [Kind] = &[Kind::Alertmanager];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let id = Uuid::try_parse(arguments.id.trim())
            .map_err(|_| Failure::new(Code::InvalidArguments, "`id` is a silence's id, a UUID"))?;
        let access = desk
            .sources
            .pick(Kind::Alertmanager, arguments.source.as_deref(), &desk.who)?;
        let mut silence = silence::find(&access, id).await?;
        let mut answer = Answer::from(&access);
        if silence.status.state == State::Expired {
            answer.note("it had ended before");
        } else {
            access.delete(&format!("/api/v2/silence/{id}")).await?;
            silence.status.state = State::Expired;
            silence.ends_at = desk.now;
        }
        answer.set("silence", silence.value());
        Ok(answer.finish("silence"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, sources},
    };
    use serde_json::json;

    const ID: &str = "721ffe5b-0119-4b3d-a497-52024e9026cc";
    const PATH: &str = "/api/v2/silence/721ffe5b-0119-4b3d-a497-52024e9026cc";

    /// As Alertmanager 0.31 tells one, and nothing where it has deleted it.
    async fn alertmanager(state: &'static str, tenant: &'static str) -> Fake {
        let fake = Fake::start().await;
        fake.on_fn(PATH, move |asked| match asked.method.as_str() {
            "DELETE" => Value::Null,
            _ => json!({
                "id": ID, "status": { "state": state }, "updatedAt": "2026-11-02T08:38:25.631Z", "comment": "c",
                "createdBy": "oncall", "startsAt": "2026-11-02T08:38:25.631Z", "endsAt": "2026-11-03T08:38:25.631Z",
                "matchers": [{ "isEqual": true, "isRegex": false, "name": "tenant_id", "value": tenant }]
            }),
        });
        fake
    }

    fn methods(fake: &Fake) -> Vec<String> {
        fake.asked().into_iter().map(|asked| asked.method).collect()
    }

    #[tokio::test]
    async fn it_ends_once() {
        let fake = alertmanager("active", "globex").await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({ "id": ID })).await.unwrap();
        assert_eq!(answer["silence"]["state"], "expired");
        assert_eq!(answer["silence"]["ends"], "2026-11-02T12:00:00Z");
        assert_eq!(methods(&fake), ["GET", "DELETE"]);
    }

    #[tokio::test]
    async fn what_has_ended_is_left_as_it_is() {
        let fake = alertmanager("expired", "acme").await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let answer = call_for::<Tool>(&sources, "acme", json!({ "id": ID }))
            .await
            .unwrap();
        assert_eq!(answer["notes"], json!(["it had ended before"]));
        assert_eq!(methods(&fake), ["GET"]);
    }

    #[tokio::test]
    async fn a_tenant_cannot_tell_others_silences_from_none() {
        let fake = alertmanager("active", "globex").await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        let others = call_for::<Tool>(&sources, "acme", json!({ "id": ID }))
            .await
            .unwrap_err();
        let unknown = json!({ "id": "11111111-1111-1111-1111-111111111111" });
        let unknown = call_for::<Tool>(&sources, "acme", unknown).await.unwrap_err();
        assert_eq!(others, unknown);
        assert_eq!(others.code, Code::InvalidArguments);
        assert_eq!(methods(&fake), ["GET", "GET"]);
    }

    #[tokio::test]
    async fn wrong_input_is_refused_before_anything_is_asked() {
        let fake = alertmanager("active", "acme").await;
        let sources = sources([("alerts", Kind::Alertmanager, &fake.url)]);
        for arguments in [
            json!({}),
            json!({ "id": "../alerts" }),
            json!({ "id": ID, "force": true }),
        ] {
            let failure = call::<Tool>(&sources, arguments.clone()).await.unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
        }
        assert!(fake.asked().is_empty());
    }

    #[tokio::test]
    async fn what_alertmanager_does_to_it() {
        endures::<Tool>(Kind::Alertmanager, PATH, json!({ "id": ID })).await;
    }
}
