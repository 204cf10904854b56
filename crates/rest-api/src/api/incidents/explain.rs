//! What is found out about an incident by itself: `explain_alert` runs for its first alerts, as the key that told of them,
//! and what it answers goes into the incident's context, each once.
//!
//! What is wanted stands in the database beside the incident. Whoever claims it takes the next step: asks for the run, or
//! looks whether it ended. Should a replica be lost in between, another claims it when the claim is over, and asks for the
//! same run under the same idempotency key.

use super::{ROLE, cited::Cited, text};
use crate::{
    api::{Api, Ask},
    clock::now,
    error::{Error, Result},
    metrics,
    store::{StoreError, incidents::Explanation},
};
use domain::{
    JsonObject, Principal, Scope,
    context::NewItem,
    execution::{Execution, ExecutionStatus},
    incident::{Alert, by_weight},
    tenant::TenantStatus,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

/// The tool that explains.
const TOOL: &str = "explain_alert";
/// The characters of a summary that are quoted.
const SAID: usize = 8000;
/// How many of an incident's alerts are explained.
const MOST: usize = 3;
/// For how long a step is claimed.
const CLAIM: Duration = Duration::from_secs(30);
/// How soon a run is looked at again, and a tool that is not there asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same for a run that takes long.
const LATER: Duration = Duration::from_secs(5);
/// Since when it takes long.
const LONG: Duration = Duration::from_secs(60);
/// For how long a tool is asked for that is not there: workers tell of their tools some seconds after a start.
const TOOL_MISSING: Duration = Duration::from_secs(60);
/// For how long what cannot be had now is asked for, and a run waits for a worker.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How many steps this replica takes at once.
const STEPS: u32 = 50;
/// For how long this replica looks after an incident was opened; then it is left to the job.
const LOOKS: u32 = 90;

/// What is to be explained: the most important alerts that fire, each name once.
pub(super) fn wanted(caller: &Principal, alerts: &[Alert]) -> Vec<(String, JsonObject)> {
    if !caller.scopes.contains(Scope::ObserveRead) {
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let firing = by_weight(alerts).into_iter().filter(|alert| alert.fires());
    let each = firing.filter(|alert| names.insert(alert.name.clone()));
    each.take(MOST)
        .map(|alert| (alert.name.clone(), arguments(alert, alerts)))
        .collect()
}

/// The alert's name, and what all alerts of that name are about. Not all labels: some are put on by who sent the alert on,
/// and its rule does not know them.
fn arguments(alert: &Alert, alerts: &[Alert]) -> JsonObject {
    let mut arguments = JsonObject::from_iter([("alert".to_owned(), Value::from(alert.name.clone()))]);
    let mut same = alerts
        .iter()
        .filter(|other| other.name == alert.name && !other.labels.is_empty());
    if let Some((label, value)) = alert.subject()
        && same.all(|other| other.labels.get(label).map(String::as_str) == Some(value))
    {
        arguments.insert("labels".to_owned(), json!({ label: value }));
    }
    arguments
}

/// What the context's first item says about explanations.
pub(super) fn announced(caller: &Principal, wanted: &[(String, JsonObject)]) -> String {
    if !caller.scopes.contains(Scope::ObserveRead) {
        return format!(
            "No cause is looked for: the key that delivers these alerts has no scope `{}`.",
            Scope::ObserveRead
        );
    }
    let names: Vec<_> = wanted.iter().map(|(name, _)| text::line(name, 200)).collect();
    format!(
        "A cause is looked for with `{TOOL}`: {}. What it finds follows here.",
        names.join(", ")
    )
}

/// Takes the steps of incidents that were just opened, so that nobody waits for the job.
pub(crate) fn look(api: Api) {
    let tasks = api.tasks().clone();
    tasks.spawn("incident-looks", async move {
        loop {
            tokio::select! {
                () = api.0.looks.notified() => {}
                () = api.shutdown().cancelled() => return,
            }
            for _ in 0..LOOKS {
                match api.take_steps(STEPS).await {
                    // Nothing is wanted any more.
                    Ok((0, _)) => break,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "incidents were not followed"),
                }
                // A little longer than until what was put off is due.
                if api
                    .shutdown()
                    .run_until_cancelled(tokio::time::sleep(AGAIN.mul_f64(1.2)))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    });
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ended,
    Goes,
}

impl Api {
    /// Takes the next step of at most `limit` explanations, and closes incidents that nobody tells of any more; says how
    /// many ended of both.
    pub async fn follow_incidents(&self, limit: u32) -> Result<u64> {
        let explained = self.take_steps(limit).await?.1;
        Ok(explained + self.end_unheard(limit).await?)
    }

    /// How many steps were taken, and how many explanations ended.
    async fn take_steps(&self, limit: u32) -> Result<(u64, u64)> {
        let now = now();
        let claimed = self.0.store.claim_explanations(now, now + CLAIM, limit).await?;
        let mut ended = 0;
        for explanation in &claimed {
            match self.take_step(explanation).await {
                Ok(Step::Ended) => ended += 1,
                Ok(Step::Goes) => {}
                // The claim runs out, and it is tried again.
                Err(error) => {
                    let incident = explanation.incident;
                    tracing::warn!(incident_id = %incident, %error, "incident could not be followed now");
                }
            }
        }
        Ok((claimed.len() as u64, ended))
    }

    async fn take_step(&self, explanation: &Explanation) -> Result<Step> {
        let Some(run) = explanation.execution_id else {
            return self.begin(explanation).await;
        };
        match self.0.store.get_execution(explanation.tenant_id, run).await {
            Ok(execution) if execution.status.is_final() => self.found(explanation, &execution).await,
            Ok(_) => self.put_off(explanation, None).await,
            Err(StoreError::NotFound) => {
                self.not_explained(explanation, "the record of its run is gone")
                    .await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn begin(&self, explanation: &Explanation) -> Result<Step> {
        let store = &self.0.store;
        let tenant = explanation.tenant_id;
        let incident = store.get_incident(tenant, explanation.incident).await?.incident;
        let owner = store.key_owner_by_id(tenant, incident.key_id).await?;
        let usable =
            owner.filter(|owner| owner.key.is_active(now()) && owner.tenant_status == TenantStatus::Active);
        let Some(owner) = usable else {
            let why = "the key that delivered the alerts is not accepted any more";
            return self.not_explained(explanation, why).await;
        };
        let ask = Ask {
            tool: TOOL.to_owned(),
            arguments: explanation.arguments.clone(),
            idempotency_key: Some(format!(
                "incident:{}:{}",
                explanation.incident, explanation.position
            )),
            deadline: Some(explanation.created_at + PATIENCE),
            of_incident: true,
            ..Ask::default()
        };
        match self.enqueue(&owner.principal, ask).await {
            Ok(execution) => self.put_off(explanation, Some(&execution)).await,
            Err(error) if now() - explanation.created_at < patience(&error) => {
                self.put_off(explanation, None).await
            }
            Err(error) => self.not_explained(explanation, &why_not(&error)).await,
        }
    }

    async fn put_off(&self, explanation: &Explanation, run: Option<&Execution>) -> Result<Step> {
        let young = now() - explanation.created_at < delta(LONG);
        let next_at = now() + if young { AGAIN } else { LATER };
        let run = run.map(|run| run.id);
        self.0
            .store
            .put_off_explanation(explanation, run, next_at)
            .await?;
        Ok(Step::Goes)
    }

    async fn found(&self, explanation: &Explanation, run: &Execution) -> Result<Step> {
        let Some(result) = run
            .result
            .as_ref()
            .filter(|_| run.status == ExecutionStatus::Succeeded)
        else {
            let error = run.error.as_ref();
            let why = error.map_or("its run did not succeed", |error| error.message.as_str());
            return self.not_explained(explanation, why).await;
        };
        let max = self.0.limits.item_bytes;
        let (content, citations) = if self.tells_of_others(run).await? {
            let found = self.0.store.get_incident(run.tenant_id, explanation.incident);
            let text = found_elsewhere(explanation, run, result, &found.await?.alerts);
            (text::cut(&text, max).to_owned(), Cited::of_rules(result))
        } else {
            (
                found_text(explanation, run, result, max),
                Cited::of_result(result),
            )
        };
        let item = NewItem {
            role: ROLE.to_owned(),
            content,
            metadata: super::object(json!({
                "event": "explained",
                "incident_id": explanation.incident,
                "alert": explanation.alert,
                "tool": TOOL,
                "execution_id": run.id,
                "citations": citations,
            })),
        };
        self.end(explanation, item).await
    }

    /// Whether a run's answer may hold other tenants' telemetry: it was asked for with `platform:observe`. The context is
    /// read with `contexts:read` alone.
    async fn tells_of_others(&self, run: &Execution) -> Result<bool> {
        match self.0.store.get_key(run.tenant_id, run.key_id).await {
            Ok(key) => Ok(key.scopes.contains(Scope::PlatformObserve)),
            Err(StoreError::NotFound) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Says in the context why there is no explanation.
    async fn not_explained(&self, explanation: &Explanation, why: &str) -> Result<Step> {
        let item = NewItem {
            role: ROLE.to_owned(),
            content: format!(
                "{}\n\n{} could not be explained: {}.",
                text::DATA,
                text::line(&explanation.alert, 200),
                text::line(why.trim_end_matches('.'), 500)
            ),
            metadata: super::object(json!({
                "event": "not_explained",
                "incident_id": explanation.incident,
                "alert": explanation.alert,
                "execution_id": explanation.execution_id,
            })),
        };
        self.end(explanation, item).await
    }

    async fn end(&self, explanation: &Explanation, item: NewItem) -> Result<Step> {
        let items = [item];
        let ended = self
            .0
            .store
            .end_explanation(explanation, self.news(&items))
            .await?;
        if let Some(incident) = ended {
            let found = items[0]
                .metadata
                .get("event")
                .is_some_and(|event| event == "explained");
            metrics::INCIDENT_EXPLANATIONS.inc([if found { "found" } else { "none" }]);
            tracing::info!(incident_id = %incident.id, found, "incident was looked into");
            self.tell(&incident);
        }
        Ok(Step::Ended)
    }
}

fn heading(explanation: &Explanation) -> String {
    let alert = text::line(&explanation.alert, 200);
    format!("`{TOOL}` on {alert}. {}\n\n", text::DATA)
}

/// What is no other tenant's: the alert as it was told here, its rules, and where the rest is, for those who may see it.
fn found_elsewhere(explanation: &Explanation, run: &Execution, result: &Value, alerts: &[Alert]) -> String {
    let mut text = heading(explanation);
    let mut told = by_weight(alerts).into_iter();
    if let Some(alert) = told.find(|alert| alert.name == explanation.alert) {
        let _ = writeln!(text, "{}\n", text::alert_line(alert));
    }
    if result["runbook"].is_string() {
        let alert = text::code(&format!("runbook://{}", explanation.alert), 300);
        let _ = writeln!(text, "Its runbook: {alert}\n");
    }
    let _ = writeln!(
        text,
        "The whole answer was found with `{platform}` and may tell of other tenants, so it is not here: `execution://{}` shows \
         it, and `{TOOL}` called again, to keys with `{}` and `{platform}`.",
        run.id,
        Scope::ObserveRead,
        platform = Scope::PlatformObserve,
    );
    for rule in result["rules"].as_array().into_iter().flatten() {
        if let Some(expression) = rule["expr"].as_str() {
            let _ = write!(text, "\n{}", text::block("promql", expression));
        }
    }
    text
}

/// The tool's own words first, then all that it answered; what does not fit is in the execution.
fn found_text(explanation: &Explanation, run: &Execution, result: &Value, max: usize) -> String {
    let summary = result.get("summary").and_then(Value::as_str).unwrap_or_default();
    let heading = heading(explanation);
    let said = text::quote(text::cut(summary.trim(), max / 4), SAID);
    let said = text::cut(said.trim_end(), max / 2);
    let whole = serde_json::to_string_pretty(result).unwrap_or_default();
    let place = format!("\n\nIts whole answer is in execution `{}`.\n", run.id);
    let room = max.saturating_sub(heading.len() + said.len() + place.len() + 64);
    let shown = text::cut(&whole, room);
    let more = if shown.len() < whole.len() {
        place.as_str()
    } else {
        ""
    };
    let gap = if said.is_empty() { "" } else { "\n\n" };
    format!("{heading}{said}{gap}{}{more}", text::block("json", shown))
}

/// For how long an error is worth another try, since the explanation was wanted.
fn patience(error: &Error) -> chrono::TimeDelta {
    delta(match error {
        Error::NotFound(_) => TOOL_MISSING,
        Error::Unavailable { .. } | Error::QueueFull { .. } | Error::InDoubt | Error::Internal(_) => PATIENCE,
        _ => Duration::ZERO,
    })
}

fn delta(duration: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX)
}

fn why_not(error: &Error) -> String {
    match error {
        Error::NotFound(_) => format!(
            "there is no tool {TOOL} for this tenant: no worker tells of it, or no source of telemetry is granted"
        ),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ApiKeyId, ExecutionId, IncidentId, TenantId, Time, ToolRules, incident::Said};

    fn caller(scopes: &str) -> Principal {
        Principal {
            tenant_id: TenantId::new(),
            tenant: "acme".into(),
            key_id: ApiKeyId::new(),
            key_name: "pager".into(),
            scopes: scopes.parse().expect("scopes"),
            tools: ToolRules::unlimited(),
        }
    }

    fn alert(name: &str, severity: &str) -> Alert {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let said = Said {
            fingerprint: name.into(),
            labels: [
                label("alertname", name),
                label("severity", severity),
                label("service", "web"),
            ]
            .into(),
            ..Said::default()
        };
        Alert::new(&said, Time::UNIX_EPOCH)
    }

    #[test]
    fn the_worst_alerts_are_explained_if_the_key_may() {
        let alerts = [
            alert("A", "info"),
            alert("B", "critical"),
            alert("C", "warning"),
            alert("D", "error"),
            alert("B", "critical"),
        ];
        let wanted = wanted(&caller("alerts:receive,observe:read"), &alerts);
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["B", "D", "C"]);
        assert_eq!(
            Value::from(wanted[0].1.clone()),
            json!({"alert": "B", "labels": {"service": "web"}})
        );
        assert!(super::wanted(&caller("alerts:receive"), &alerts).is_empty());
        assert!(announced(&caller("alerts:receive"), &[]).contains("observe:read"));
    }

    #[test]
    fn what_was_found_is_cut_to_the_limit() {
        let explanation = Explanation {
            incident: IncidentId::new(),
            position: 0,
            tenant_id: TenantId::new(),
            alert: "A".into(),
            arguments: JsonObject::new(),
            execution_id: None,
            created_at: Time::UNIX_EPOCH,
        };
        let run = Execution {
            id: ExecutionId::new(),
            tenant_id: explanation.tenant_id,
            tool_id: None,
            tool: TOOL.into(),
            key_id: ApiKeyId::new(),
            status: ExecutionStatus::Succeeded,
            arguments: JsonObject::new(),
            result: None,
            error: None,
            attempts: 1,
            priority: 0,
            run_at: None,
            deadline: None,
            cancel_requested: false,
            progress: None,
            schedule_id: None,
            digest: String::new(),
            approved_by: None,
            trace_id: None,
            created_at: Time::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
        };
        let result = json!({"summary": "It is **slow**.", "logs": ["ü".repeat(5000)]});
        let whole = found_text(&explanation, &run, &result, 100_000);
        let heading = format!("`explain_alert` on A. {}\n\n", text::DATA);
        let said = format!("{heading}> It is \\*\\*slow\\*\\*.\n\n```json\n{{");
        assert!(whole.starts_with(&said), "{whole}");
        assert!(whole.ends_with("```\n"));
        let cut = found_text(&explanation, &run, &result, 1000);
        assert!(cut.len() <= 1000 && cut.contains(&run.id.to_string()));

        let result = json!({
            "summary": "A secret of another", "rules": [{"expr": "up == 0", "error": "of another"}],
            "runbook": "Look.", "instances": [{"labels": {"tenant_id": "another"}}],
        });
        let mine = alert("A", "critical");
        let text = found_elsewhere(&explanation, &run, &result, &[mine]);
        assert!(text.starts_with(&heading) && !text.contains("another"), "{text}");
        for wanted in [
            "A (critical) `service=web`, since 1970-01-01 00:00:00".to_owned(),
            "`runbook://A`".to_owned(),
            format!("`execution://{}`", run.id),
            "```promql\nup == 0\n```".to_owned(),
        ] {
            assert!(text.contains(&wanted), "{wanted}: {text}");
        }
    }
}
