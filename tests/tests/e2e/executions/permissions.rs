//! Approvals, and what a key may call.

use super::{ASYNC, enqueue, execute, register, until, world};
use crate::{Outcome, text};
use e2e::{Backend, Json, rest::Rest, stack::REST_API, wait_for};
use http::Method;
use proto::v1::{GetExecutionRequest, executions_client::ExecutionsClient};
use serde_json::json;

/// Another key of the same tenant.
async fn key(rest: &Rest, name: &str, more: &Json) -> anyhow::Result<(Rest, String)> {
    let mut ask = json!({"name": name, "scopes": ["tools:read", "tools:execute"]});
    for (field, value) in more.as_object().into_iter().flatten() {
        ask[field] = value.clone();
    }
    let made = rest.post("/api/v1/keys", &ask).await?.expect(201)?;
    Ok((
        rest.with_key(Some(text(&made, "secret"))),
        text(&made, "id").to_owned(),
    ))
}

#[tokio::test]
async fn what_waits_ends_when_its_key_or_tool_is_gone() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest, target) = world(backend, &[("QUEUE__RUNNING_PER_TENANT", "1")]).await?;
        register(&rest, "held", &target.url("/held"), &json!({})).await?;
        register(&rest, "gone", &target.url("/echo/gone"), &json!({})).await?;
        register(&rest, "echo", &target.url("/echo/key"), &json!({})).await?;
        let (other, id) = key(&rest, "short-lived", &json!({})).await?;
        let running = enqueue(&rest, "held", &json!({})).await?;
        wait_for("the call to arrive", async || {
            (target.seen().len() == 1).then_some(())
        })
        .await?;
        let of_key = enqueue(&other, "echo", &json!({})).await?;
        let of_tool = enqueue(&rest, "gone", &json!({})).await?;
        rest.delete(&format!("/api/v1/keys/{id}")).await?.expect(200)?;
        rest.delete("/api/v1/tools/gone").await?.expect(204)?;
        target.release();
        until(&rest, &running, "succeeded").await?;
        let revoked = until(&rest, &of_key, "failed").await?;
        assert_eq!(revoked["error"]["code"], "key_revoked", "{backend:?}: {revoked}");
        let removed = until(&rest, &of_tool, "failed").await?;
        assert_eq!(removed["error"]["code"], "tool_removed", "{backend:?}: {removed}");
        assert_eq!(target.seen().len(), 1, "{backend:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_destructive_tool_waits_for_another_keys_approval() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest, target) = world(backend, &[]).await?;
        let destructive = json!({"method": "DELETE", "destructive": true});
        let url = target.url("/wipe/{disk}");
        register(&rest, "wipe", &url, &destructive).await?;
        // It may approve, but not what it asked for itself.
        let scopes = json!({"scopes": ["tools:read", "tools:execute", "executions:approve"]});
        let (asker, asker_id) = key(&rest, "agent", &scopes).await?;
        let (approver, approver_id) = key(
            &rest,
            "person",
            &json!({"scopes": ["tools:read", "executions:approve"]}),
        )
        .await?;
        let ask = async |disk: &str| -> anyhow::Result<(String, Json)> {
            let answer = execute(&asker, "wipe", &[], &json!({"arguments": {"disk": disk}})).await?;
            let waiting = answer.expect(202)?;
            assert_eq!(waiting["status"], "awaiting_approval", "{waiting}");
            Ok((answer.header("location").to_owned(), waiting))
        };
        let (path, waiting) = ask("a").await?;
        let (_, other) = ask("b").await?;
        assert_eq!(waiting["key_id"], asker_id);
        let approve = format!("{path}/approve");
        let given = json!({"digest": waiting["digest"]});
        asker.post(&approve, &given).await?.problem(403, "own_request")?;
        let (stranger, _) = key(&rest, "stranger", &json!({})).await?;
        stranger
            .post(&approve, &given)
            .await?
            .problem(403, "missing_scope")?;
        approver
            .post(&approve, &json!({"digest": other["digest"]}))
            .await?
            .problem(409, "digest_mismatch")?;
        assert_eq!(target.seen().len(), 0, "nothing ran");
        approver.post(&approve, &given).await?.expect(202)?;
        let done = until(&rest, &path, "succeeded").await?;
        assert_eq!(done["approved_by"], approver_id, "{backend:?}");
        assert_eq!(target.seen().len(), 1);
        approver
            .post(&approve, &given)
            .await?
            .problem(409, "wrong_status")?;

        // What was asked for is not what the tool does by now.
        let (path, waiting) = ask("c").await?;
        let changed = json!({"description": "d", "method": "DELETE", "url": target.url("/wipe-all/{disk}"), "destructive": true});
        let replaced = rest
            .send(Method::PUT, "/api/v1/tools/wipe", &[], Some(&changed))
            .await?;
        replaced.expect(200)?;
        let given = json!({"digest": waiting["digest"]});
        approver
            .post(&format!("{path}/approve"), &given)
            .await?
            .problem(409, "tool_changed")?;
        stranger
            .post(&format!("{path}/cancel"), &json!({}))
            .await?
            .problem(403, "missing_scope")?;
        let rejected = approver
            .post(&format!("{path}/cancel"), &json!({}))
            .await?
            .expect(200)?;
        assert_eq!(rejected["status"], "cancelled");
        assert_eq!(target.seen().len(), 1);

        // Who may go without approval does; a replay needs the same right.
        let direct = execute(&rest, "wipe", &[], &json!({"arguments": {"disk": "d"}})).await?;
        assert_eq!(direct.expect(200)?["status"], "succeeded");
        asker
            .post(&format!("{path}/replay"), &json!({}))
            .await?
            .problem(403, "missing_scope")?;
        // Nothing is left to wait: where the services are others' too, it would be an alert.
        let other = format!("/api/v1/executions/{}/cancel", text(&other, "id"));
        approver.post(&other, &json!({})).await?.expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn an_approval_that_does_not_come_ends_the_wait() -> Outcome {
    let (_stack, rest, target) = world(Backend::Sqlite, &[("QUEUE__APPROVAL_TIME", "1s")]).await?;
    let destructive = json!({"method": "DELETE", "destructive": true});
    register(&rest, "wipe", &target.url("/wipe"), &destructive).await?;
    let (asker, _) = key(&rest, "agent", &json!({})).await?;
    let answer = execute(&asker, "wipe", &[ASYNC], &json!({})).await?;
    answer.expect(202)?;
    let expired = until(&rest, answer.header("location"), "failed").await?;
    assert_eq!(expired["error"]["code"], "approval_expired", "{expired}");
    assert_eq!(target.seen().len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_key_calls_what_its_rules_allow_and_sees_no_more() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest, target) = world(backend, &[]).await?;
        for name in ["team_deploy", "team_read", "payroll"] {
            register(&rest, name, &target.url(&format!("/{name}")), &json!({})).await?;
        }
        let only_staging =
            json!({"type": "object", "required": ["env"], "properties": {"env": {"const": "staging"}}});
        let rules = json!([
            {"tools": "team_deploy", "arguments": only_staging}, {"tools": "*_read"},
        ]);
        let (limited, _) = key(&rest, "limited", &json!({"tools": rules})).await?;
        let call = |name: &'static str, arguments: Json| {
            let limited = limited.clone();
            async move { execute(&limited, name, &[], &json!({"arguments": arguments})).await }
        };
        call("team_read", json!({"x": 1})).await?.expect(200)?;
        call("team_deploy", json!({"env": "staging"}))
            .await?
            .expect(200)?;
        call("team_deploy", json!({"env": "production"}))
            .await?
            .problem(403, "arguments_not_allowed")?;
        call("payroll", json!({})).await?.problem(404, "not_found")?;
        let secret = execute(&rest, "payroll", &[], &json!({})).await?.expect(200)?;
        let path = format!("/api/v1/executions/{}", text(&secret, "id"));
        limited.get(&path).await?.problem(404, "not_found")?;
        limited
            .post(&format!("{path}/cancel"), &json!({}))
            .await?
            .problem(404, "not_found")?;
        let listed = limited.get("/api/v1/executions").await?.expect(200)?;
        let tools: Vec<_> = listed["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| text(e, "tool").to_owned())
            .collect();
        assert_eq!(tools, ["team_deploy", "team_read"], "{backend:?}");
        assert_eq!(target.seen().len(), 3, "{backend:?}");
    }
    Ok(())
}

/// What a key may not call with these arguments, others' calls with them are not for it to see, end or approve; and it
/// does not get around that by changing the tool.
#[tokio::test]
async fn rules_about_arguments_hold_for_calls_of_others() -> Outcome {
    let (_stack, rest, target) = world(Backend::Sqlite, &[]).await?;
    let url = target.url("/deploy");
    register(
        &rest,
        "deploy",
        &url,
        &json!({"method": "POST", "destructive": true}),
    )
    .await?;
    let staging = json!({"type": "object", "required": ["env"], "properties": {"env": {"const": "staging"}}});
    let scopes = [
        "tools:read",
        "tools:execute",
        "tools:manage",
        "executions:approve",
        "schedules:manage",
    ];
    let rules = json!([{"tools": "deploy", "arguments": staging}]);
    let (limited, _) = key(&rest, "limited", &json!({"scopes": scopes, "tools": rules})).await?;
    let (agent, _) = key(&rest, "agent", &json!({})).await?;
    let ask = async |env: &str| -> anyhow::Result<(String, Json)> {
        let answer = execute(&agent, "deploy", &[], &json!({"arguments": {"env": env}})).await?;
        let waiting = answer.expect(202)?;
        Ok((
            answer.header("location").to_owned(),
            json!({"digest": waiting["digest"]}),
        ))
    };
    let (path, digest) = ask("production").await?;
    limited.get(&path).await?.problem(404, "not_found")?;
    for deed in ["approve", "cancel", "replay"] {
        let body = if deed == "approve" {
            digest.clone()
        } else {
            json!({})
        };
        let refused = limited.post(&format!("{path}/{deed}"), &body).await?;
        refused.problem(404, "not_found")?;
    }
    let listed = limited.get("/api/v1/executions").await?.expect(200)?;
    assert_eq!(listed["items"], json!([]));
    let schedule =
        json!({"name": "s", "tool": "deploy", "cron": "0 0 1 1 *", "arguments": {"env": "production"}});
    let made = rest.post("/api/v1/schedules", &schedule).await?.expect(201)?;
    let schedule = format!("/api/v1/schedules/{}", text(&made, "id"));
    limited.get(&schedule).await?.problem(404, "not_found")?;
    limited.delete(&schedule).await?.problem(404, "not_found")?;

    let harmless = json!({"name": "deploy", "description": "d", "url": url});
    for (method, body) in [(Method::PUT, Some(&harmless)), (Method::DELETE, None)] {
        let refused = limited.send(method, "/api/v1/tools/deploy", &[], body).await?;
        refused.problem(403, "tool_rules_exceeded")?;
    }
    assert_eq!(target.seen().len(), 0);
    rest.post(&format!("{path}/cancel"), &json!({}))
        .await?
        .expect(200)?;
    let (path, digest) = ask("staging").await?;
    limited.get(&path).await?.expect(200)?;
    limited
        .post(&format!("{path}/approve"), &digest)
        .await?
        .expect(202)?;
    until(&rest, &path, "succeeded").await?;
    Ok(())
}

/// A tool that came to destroy while calls of it waited was not agreed to by anybody.
#[tokio::test]
async fn what_waits_does_not_run_a_tool_that_destroys_by_now() -> Outcome {
    let (_stack, rest, target) = world(Backend::Sqlite, &[("QUEUE__RUNNING_PER_TENANT", "1")]).await?;
    register(&rest, "held", &target.url("/held"), &json!({})).await?;
    register(&rest, "tidy", &target.url("/tidy"), &json!({"method": "POST"})).await?;
    let (agent, _) = key(&rest, "agent", &json!({})).await?;
    let running = enqueue(&rest, "held", &json!({})).await?;
    wait_for("the call to arrive", async || {
        (target.seen().len() == 1).then_some(())
    })
    .await?;
    let waiting = enqueue(&agent, "tidy", &json!({})).await?;
    let now =
        json!({"description": "d", "method": "DELETE", "url": target.url("/wipe"), "destructive": true});
    let replaced = rest
        .send(Method::PUT, "/api/v1/tools/tidy", &[], Some(&now))
        .await?;
    replaced.expect(200)?;
    target.release();
    until(&rest, &running, "succeeded").await?;
    let refused = until(&rest, &waiting, "failed").await?;
    assert_eq!(refused["error"]["code"], "tool_changed", "{refused}");
    assert_eq!(target.seen().len(), 1);
    Ok(())
}

/// What one key left behind can be taken up by another, and keys that the product gives to calls are nobody's to take.
#[tokio::test]
async fn a_replay_runs_as_who_asks_for_it() -> Outcome {
    let (_stack, rest, target) = world(Backend::Sqlite, &[]).await?;
    register(&rest, "echo", &target.url("/status/500"), &json!({})).await?;
    let (other, id) = key(&rest, "short-lived", &json!({})).await?;
    let failed = execute(&other, "echo", &[], &json!({})).await?.expect(200)?;
    let path = format!("/api/v1/executions/{}", text(&failed, "id"));
    rest.delete(&format!("/api/v1/keys/{id}")).await?;
    let replayed = rest
        .post(&format!("{path}/replay"), &json!({}))
        .await?
        .expect(202)?;
    assert_ne!(replayed["key_id"], id);
    let again = until(&rest, &path, "failed").await?;
    assert_eq!(again["error"]["code"], "http_status", "{again}");
    assert_eq!(target.seen().len(), 2);
    for taken in ["schedule:0:1", "confirmed-0"] {
        let refused = execute(&rest, "echo", &[("idempotency-key", taken)], &json!({})).await?;
        refused.problem(400, "invalid_argument")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_follower_whose_key_is_revoked_hears_nothing_more() -> Outcome {
    let (stack, rest, target) = world(Backend::Sqlite, &[]).await?;
    register(&rest, "held", &target.url("/held"), &json!({})).await?;
    let ask = json!({"name": "watcher", "scopes": ["tools:read"]});
    let watcher = rest.post("/api/v1/keys", &ask).await?.expect(201)?;
    let path = enqueue(&rest, "held", &json!({})).await?;
    let id = path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut follow = tonic::Request::new(GetExecutionRequest { id });
    let bearer = format!("Bearer {}", text(&watcher, "secret")).parse()?;
    follow.metadata_mut().insert("authorization", bearer);
    let mut client = ExecutionsClient::new(stack.channel(REST_API)?);
    let mut changes = client.follow(follow).await?.into_inner();
    anyhow::ensure!(changes.message().await?.is_some(), "as it stands");
    rest.delete(&format!("/api/v1/keys/{}", text(&watcher, "id")))
        .await?;
    target.release();
    until(&rest, &path, "succeeded").await?;
    let refused = loop {
        match changes.message().await {
            Ok(Some(shown)) if shown.status == "succeeded" => {
                anyhow::bail!("a revoked key is shown {shown:?}")
            }
            // Changes from before the key was revoked.
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    Ok(())
}
