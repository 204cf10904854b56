//! Schedules: made, changed, and run when they are due.

use crate::{Outcome, rest_api, text};
use e2e::{
    Backend, Json, Stack, Target,
    rest::Rest,
    stack::{REST_API, WORKER},
    wait_for,
};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

async fn register(rest: &Rest, name: &str, url: &str, more: &Json) -> anyhow::Result<()> {
    let mut tool = json!({"name": name, "description": "d", "url": url});
    for (field, value) in more.as_object().into_iter().flatten() {
        tool[field] = value.clone();
    }
    rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    Ok(())
}

async fn key(rest: &Rest, scopes: &[&str], tools: Json) -> anyhow::Result<Rest> {
    let ask = json!({"name": "k", "scopes": scopes, "tools": tools});
    let made = rest.post("/api/v1/keys", &ask).await?.expect(201)?;
    Ok(rest.with_key(Some(text(&made, "secret"))))
}

#[tokio::test]
async fn a_schedule_is_made_shown_changed_and_deleted() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let schema = json!({"input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}});
        register(&rest, "report", "https://example.com/{n}", &schema).await?;
        let ask = json!({
            "name": "Monday's report", "tool": "report", "arguments": {"n": 1},
            "cron": "30 6 * * MON", "timezone": "Europe/Berlin",
        });
        let made = rest.post("/api/v1/schedules", &ask).await?;
        assert_eq!(made.header("etag"), "\"1\"");
        let path = made.header("location").to_owned();
        let made = made.expect(201)?;
        assert_eq!(path, format!("/api/v1/schedules/{}", text(&made, "id")));
        assert_eq!(made["next_runs"].as_array().map(Vec::len), Some(5), "{made}");
        assert_eq!(
            (&made["missed_runs"], &made["enabled"]),
            (&json!("run_once"), &json!(true))
        );
        rest.post("/api/v1/schedules", &ask)
            .await?
            .problem(409, "already_exists")?;

        for (field, value, told) in [
            ("cron", json!("* * * *"), "cron"),
            ("cron", json!("0 0 31 2 *"), "cron"),
            ("timezone", json!("Berlin"), "timezone"),
            ("priority", json!(101), "priority"),
            ("priority", json!(i32::MIN), "priority"),
            ("name", json!(""), "name"),
        ] {
            let mut bad = ask.clone();
            bad[field] = value;
            let problem = rest.post("/api/v1/schedules", &bad).await?;
            assert_eq!(problem.problem(400, "invalid_argument")?["field"], told);
        }
        let mut bad = ask.clone();
        bad["arguments"] = json!({"n": "one"});
        let answer = rest.post("/api/v1/schedules", &bad).await?;
        answer.problem(400, "invalid_arguments")?;
        bad["tool"] = json!("missing");
        rest.post("/api/v1/schedules", &bad)
            .await?
            .problem(404, "not_found")?;

        let off = json!({"enabled": false});
        let stale = rest
            .send(http::Method::PATCH, &path, &[("if-match", "\"7\"")], Some(&off))
            .await?;
        stale.problem(412, "version_mismatch")?;
        let changed = rest
            .send(http::Method::PATCH, &path, &[("if-match", "\"1\"")], Some(&off))
            .await?;
        assert_eq!(changed.header("etag"), "\"2\"");
        let changed = changed.expect(200)?;
        assert_eq!(
            (&changed["enabled"], &changed["next_runs"]),
            (&json!(false), &json!([]))
        );

        // Nobody is there to confirm what destroys.
        register(
            &rest,
            "drop",
            "https://example.com/{n}",
            &json!({"method": "DELETE", "destructive": true}),
        )
        .await?;
        let scopes = ["schedules:manage", "tools:execute", "tools:read"];
        let careful = key(&rest, &scopes, Json::Null).await?;
        let mut ask = ask.clone();
        ask["tool"] = json!("drop");
        ask["name"] = json!("drop it");
        let problem = careful.post("/api/v1/schedules", &ask).await?;
        assert_eq!(
            problem.problem(403, "missing_scope")?["required_scope"],
            "tools:unattended"
        );

        // Who may not see the tool does not see its schedules.
        let blind = key(&rest, &scopes, json!([{"tools": "other_*"}])).await?;
        blind.get(&path).await?.problem(404, "not_found")?;
        blind.delete(&path).await?.problem(404, "not_found")?;
        assert_eq!(
            blind.get("/api/v1/schedules").await?.expect(200)?["items"],
            json!([])
        );
        assert_eq!(
            careful.get("/api/v1/schedules").await?.expect(200)?["items"][0]["id"],
            made["id"]
        );

        rest.delete(&path).await?.expect(204)?;
        rest.get(&path).await?.problem(404, "not_found")?;
    }
    Ok(())
}

/// Runs a statement on the stack's database; says how many rows it touched.
async fn sql(stack: &Stack, statement: String) -> anyhow::Result<u64> {
    let process = stack.process(REST_API);
    let url = process.variable("DEVOPS_MCP__DATABASE__URL").unwrap_or_default();
    let statement = sqlx::AssertSqlSafe(statement);
    if url.starts_with("sqlite") {
        let mut database = SqliteConnection::connect(url).await?;
        let done = database.execute(statement).await?;
        database.close().await?;
        Ok(done.rows_affected())
    } else {
        let mut database = PgConnection::connect(url).await?;
        let done = database.execute(statement).await?;
        database.close().await?;
        Ok(done.rows_affected())
    }
}

/// Puts a schedule's next turn three days back.
async fn put_back(stack: &Stack, name: &str) -> Outcome {
    let micros: i64 = 3 * 24 * 3600 * 1_000_000;
    let statement =
        format!("UPDATE schedules SET next_run_at = next_run_at - {micros} WHERE name = '{name}'");
    anyhow::ensure!(sql(stack, statement).await? == 1, "no schedule {name}");
    Ok(())
}

/// Waits until nothing is due of a schedule and nobody works on it.
async fn turn_over(stack: &Stack, name: &str) -> Outcome {
    wait_for("the turn's end", async || {
        let now = std::time::UNIX_EPOCH.elapsed().ok()?.as_micros();
        let touch = format!(
            "UPDATE schedules SET name = name
             WHERE name = '{name}' AND claimed_until IS NULL AND next_run_at > {now}"
        );
        (sql(stack, touch).await.ok()? == 1).then_some(())
    })
    .await
}

#[tokio::test]
async fn missed_runs_are_made_up_for_and_each_time_runs_once() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let stack = Stack::builder(backend)
            .services(&[REST_API, WORKER])
            .allow_private()
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        register(&rest, "echo", &target.url("/echo/{n}"), &json!({})).await?;
        // Another replica keeps time, too.
        let (_other, _) = stack.replica(WORKER).await?;
        let scopes = ["schedules:manage", "tools:execute", "tools:read"];
        let made = rest
            .post("/api/v1/keys", &json!({"name": "timer", "scopes": scopes}))
            .await?
            .expect(201)?;
        let timer = rest.with_key(Some(text(&made, "secret")));
        // Half a day away from now, so that none is due by itself.
        let hour = (std::time::UNIX_EPOCH.elapsed()?.as_secs() / 3600 + 12) % 24;
        let mut paths = Vec::new();
        for (policy, runs) in [("run_all", 3), ("run_once", 1), ("skip", 0)] {
            let ask = json!({
                "name": policy, "tool": "echo", "arguments": {"n": runs}, "cron": format!("0 {hour} * * *"), "missed_runs": policy,
            });
            let schedule = timer.post("/api/v1/schedules", &ask).await?.expect(201)?;
            paths.push((
                format!("/api/v1/schedules/{}", text(&schedule, "id")),
                runs,
                schedule,
            ));
            put_back(&stack, policy).await?;
        }
        for (path, runs, before) in &paths {
            let of = format!(
                "/api/v1/executions?schedule={}&status=succeeded",
                text(before, "id")
            );
            wait_for("the runs", async || {
                let listed = rest.get(&of).await.ok()?.json();
                (listed["items"].as_array()?.len() == *runs).then_some(())
            })
            .await?;
            turn_over(&stack, text(before, "name")).await?;
            let after = timer.get(path).await?.expect(200)?;
            assert_eq!(after["last_run_at"].is_string(), *runs > 0, "{after}");
            assert_eq!(after["next_runs"], before["next_runs"], "{backend:?}");
            assert_eq!(after["version"], 1);
        }
        stack
            .wait_metric(
                REST_API,
                "mcp_schedule_runs_total",
                &[("result", "missed")],
                |n| n == 5.0,
            )
            .await?;
        stack
            .wait_metric(
                REST_API,
                "mcp_schedule_runs_total",
                &[("result", "enqueued")],
                |n| n == 4.0,
            )
            .await?;
        assert_eq!(target.seen().len(), 4, "{backend:?}");

        // A replica that was lost before it could end the turn: the same times come up again, and have their runs.
        put_back(&stack, "run_all").await?;
        turn_over(&stack, "run_all").await?;
        let of = format!("/api/v1/executions?schedule={}", text(&paths[0].2, "id"));
        let listed = rest.get(&of).await?.expect(200)?;
        assert_eq!(
            listed["items"].as_array().map(Vec::len),
            Some(3),
            "{backend:?}: {listed}"
        );

        // The key goes, its schedules end; a rotated key's go over to its successor.
        let key = format!("/api/v1/keys/{}", text(&made, "id"));
        let rotated = rest
            .post(&format!("{key}/rotate"), &json!({}))
            .await?
            .expect(201)?;
        let path = &paths[0].0;
        let schedule = rest.get(path).await?.expect(200)?;
        assert_eq!(
            (&schedule["key_id"], &schedule["enabled"]),
            (&rotated["id"], &json!(true))
        );
        let key = format!("/api/v1/keys/{}", text(&rotated, "id"));
        rest.delete(&key).await?.expect(200)?;
        put_back(&stack, "run_all").await?;
        wait_for("the schedule's end", async || {
            let schedule = rest.get(path).await.ok()?.json();
            let disabled = schedule["enabled"] == false && schedule["disabled_reason"] == "key_revoked";
            disabled.then_some(())
        })
        .await?;
        assert_eq!(target.seen().len(), 4, "{backend:?}");
    }
    Ok(())
}
