//! Approvals, and what a key may call.

use super::{ASYNC, enqueue, execute, register, until, world};
use crate::{Outcome, text};
use e2e::{Backend, Json, rest::Rest, wait_for};
use http::Method;
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
        rest.delete(&format!("/api/v1/keys/{id}")).await?;
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
