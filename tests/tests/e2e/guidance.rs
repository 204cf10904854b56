//! What guides an agent that was paged: runbooks, metrics, dashboards and incidents as resources, prompts and their
//! completion; in both eras of the protocol.
#![expect(deprecated, reason = "clients of older versions subscribe one by one")]

use crate::{Outcome, text};
use e2e::{Backend, Era, Json, Stack, mcp::Client, rest::Rest, wait_for};
use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, GetPromptResult, ReadResourceRequestParams,
    Reference, ResourceContents, ServerNotification, SubscribeRequestParams, SubscriptionFilter,
};
use serde_json::json;
use std::time::Duration;

const OPEN: &str = "incidents://open";

async fn read(client: &Client, uri: &str) -> anyhow::Result<String> {
    let read = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    match read.contents.into_iter().next() {
        Some(ResourceContents::TextResourceContents { text, .. }) => Ok(text),
        other => anyhow::bail!("{uri}: {other:?}"),
    }
}

async fn prompt(client: &Client, name: &str, arguments: Json) -> anyhow::Result<GetPromptResult> {
    let mut request = GetPromptRequestParams::new(name);
    request.arguments = arguments.as_object().cloned();
    Ok(client.get_prompt(request).await?)
}

async fn complete(client: &Client, of: Reference, name: &str, typed: &str) -> anyhow::Result<Vec<String>> {
    let argument = ArgumentInfo::new(name, typed);
    let completed = client.complete(CompleteRequestParams::new(of, argument)).await?;
    Ok(completed.completion.values)
}

/// Tells of an alert as Alertmanager does; gives the incident's id.
async fn alert(rest: &Rest, group: &str, name: &str, status: &str) -> anyhow::Result<String> {
    let ended = if status == "resolved" {
        "2026-11-23T09:00:00Z"
    } else {
        "0001-01-01T00:00:00Z"
    };
    let labels = json!({"alertname": name, "service": "rest-api", "severity": "critical"});
    let body = json!({
        "version": "4", "groupKey": group, "status": status, "receiver": "devops-mcp", "truncatedAlerts": 0,
        "groupLabels": {"alertname": name}, "commonLabels": labels, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": [{
            "status": status, "labels": labels, "annotations": {"summary": "many errors"},
            "startsAt": "2026-11-23T08:00:00Z", "endsAt": ended, "fingerprint": "f00dfeed0000beef",
            "generatorURL": "http://prometheus:9090/graph",
        }],
    });
    let told = rest.post("/api/v1/alerts", &body).await?.expect(200)?;
    Ok(text(&told, "incident").to_owned())
}

#[tokio::test]
async fn what_the_product_knows_of_its_telemetry_can_be_read_in_both_eras() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend).start().await?;
        let key = stack.tenant("acme", "contexts:read,observe:read").await?;
        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            let listed = client.list_all_resources().await?;
            let uris: Vec<_> = listed.iter().map(|resource| resource.uri.as_str()).collect();
            assert_eq!(uris, [OPEN, "runbooks://index", "metrics://catalogue"], "{era:?}");
            let templates = client.list_all_resource_templates().await?;
            let templates: Vec<_> = templates.iter().map(|t| t.uri_template.as_str()).collect();
            for template in [
                "runbook://{alert}",
                "dashboard://{uid}",
                "incident://{id}",
                "incident://{id}/postmortem",
            ] {
                assert!(templates.contains(&template), "{template}");
            }
            let index = read(&client, "runbooks://index").await?;
            assert!(index.contains("runbook://HighErrorRate") && index.contains("dashboard://service"));
            assert!(
                read(&client, "runbook://HighErrorRate")
                    .await?
                    .starts_with("# HighErrorRate")
            );
            assert!(
                read(&client, "metrics://catalogue")
                    .await?
                    .contains("http_requests_total")
            );
            let dashboard: Json = serde_json::from_str(&read(&client, "dashboard://service").await?)?;
            assert!(dashboard["panels"][0]["queries"][0].is_string(), "{dashboard}");
            for uri in ["runbook://Nope", "dashboard://nope", "incidents://closed"] {
                let error = read(&client, uri).await.expect_err("not there").to_string();
                assert!(
                    error.contains("-3200") || error.contains("-32602"),
                    "{uri}: {error}"
                );
            }

            let prompts = client.list_all_prompts().await?;
            let names: Vec<_> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "investigate_alert",
                    "explain_slo_burn",
                    "trace_a_request",
                    "capacity_review"
                ]
            );
            let asked = prompt(&client, "investigate_alert", json!({"alert": "HighErrorRate"})).await?;
            let shown = serde_json::to_string(&asked)?;
            assert!(
                shown.contains("explain_alert") && shown.contains("# HighErrorRate"),
                "{shown}"
            );
            let asked = prompt(&client, "trace_a_request", json!({"request_id": "019a-b"})).await?;
            assert!(serde_json::to_string(&asked)?.contains("request_id 019a-b"));
            for (name, arguments) in [
                ("investigate_alert", json!({})),
                ("investigate_alert", json!({"alert": "x y"})),
                ("investigate_alert", json!({"alert": "X", "mood": "good"})),
                ("trace_a_request", json!({})),
                ("write_a_poem", json!({})),
            ] {
                let error = prompt(&client, name, arguments)
                    .await
                    .expect_err("refused")
                    .to_string();
                assert!(error.contains("-32602"), "{name}: {error}");
            }

            let of = Reference::for_prompt;
            assert_eq!(
                complete(&client, of("investigate_alert"), "alert", "higherr").await?,
                ["HighErrorRate"]
            );
            assert_eq!(
                complete(&client, of("explain_slo_burn"), "slo", "ApiA").await?,
                ["ApiAvailability"]
            );
            assert_eq!(
                complete(&client, of("capacity_review"), "service", "w").await?,
                ["worker"]
            );
            assert!(
                complete(&client, of("capacity_review"), "mood", "")
                    .await
                    .is_err()
            );
            let template = Reference::for_resource("dashboard://{uid}");
            assert!(complete(&client, template, "uid", "").await?.len() > 5);
            client.close().await;
        }
        // Incidents are a tenant's own, and of those who may read its contexts.
        let blind = stack
            .mcp(&stack.key("acme", "observe:read").await?, Era::Modern)
            .await?;
        assert!(read(&blind, OPEN).await.is_err());
        assert!(read(&blind, "runbook://HighErrorRate").await.is_ok());
        blind.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_is_told_of_an_incident_and_finds_its_way_into_it() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend).start().await?;
        let key = stack
            .tenant("acme", "contexts:read,contexts:write,observe:read,alerts:receive")
            .await?;
        let rest = stack.rest(&key);
        let (old, new) = (
            stack.mcp(&key, Era::Legacy).await?,
            stack.mcp(&key, Era::Modern).await?,
        );
        let theirs = stack
            .mcp(&stack.tenant("globex", "all").await?, Era::Modern)
            .await?;
        old.subscribe(SubscribeRequestParams::new(OPEN)).await?;
        let filter = SubscriptionFilter::builder()
            .resource_subscriptions([OPEN.to_owned()])
            .build();
        let mut stream = new.listen(filter).await?;
        let mut told = async || {
            let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await??;
            match next {
                Some(ServerNotification::ResourceUpdatedNotification(told)) => Ok(told.params.uri),
                other => anyhow::bail!("{other:?}"),
            }
        };
        assert_eq!(told().await?, OPEN, "of what was before it was followed");
        let id = alert(&rest, "group-1", "HighErrorRate", "firing").await?;
        assert_eq!(told().await?, OPEN);
        wait_for("the session to hear", async || {
            old.heard.updates().iter().any(|uri| uri == OPEN).then_some(())
        })
        .await?;

        let uri = format!("incident://{id}");
        for client in [&old, &new] {
            let open: Json = serde_json::from_str(&read(client, OPEN).await?)?;
            assert_eq!(open["incidents"][0]["id"], json!(id), "{open}");
            let incident: Json = serde_json::from_str(&read(client, &uri).await?)?;
            assert_eq!(
                (&incident["status"], &incident["severity"]),
                (&json!("firing"), &json!("critical"))
            );
            assert!(
                read(client, text(&incident, "context"))
                    .await?
                    .contains("HighErrorRate")
            );
            assert!(
                read(client, &format!("{uri}/postmortem"))
                    .await?
                    .contains("HighErrorRate")
            );
            let arguments = json!({"alert": "HighErrorRate", "incident": id});
            let asked = serde_json::to_string(&prompt(client, "investigate_alert", arguments).await?)?;
            assert!(asked.contains(text(&incident, "context_id")), "{asked}");
            let found = complete(
                client,
                Reference::for_prompt("investigate_alert"),
                "incident",
                &id[..8],
            )
            .await?;
            assert_eq!(found, [id.as_str()]);
        }
        for uri in [&uri, &format!("{uri}/postmortem")] {
            assert!(read(&theirs, uri).await.is_err());
        }
        let open: Json = serde_json::from_str(&read(&theirs, OPEN).await?)?;
        assert_eq!(open["incidents"], json!([]));

        alert(&rest, "group-1", "HighErrorRate", "resolved").await?;
        loop {
            assert_eq!(told().await?, OPEN);
            let open: Json = serde_json::from_str(&read(&new, OPEN).await?)?;
            if open["incidents"] == json!([]) {
                break;
            }
        }
    }
    Ok(())
}
