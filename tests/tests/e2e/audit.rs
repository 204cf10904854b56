//! The audit log: who called what, how it ended, and who was not let in; over both doors, and through restarts.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Stack, Target,
    raw::response,
    rest::Rest,
    stack::{MCP_SERVER, REST_API},
    wait_for,
};
use serde_json::json;
use std::{collections::HashSet, time::Duration};

const SECRET: &str = "hunter2-and-nothing-else";

/// The records that a query finds, once there are so many.
async fn records(rest: &Rest, query: &str, at_least: usize) -> anyhow::Result<Vec<Json>> {
    wait_for(&format!("{at_least} records of {query}"), async || {
        let listed = rest.get(&format!("/api/v1/audit?limit=200&{query}")).await.ok()?;
        let found = listed.json()["items"].as_array()?.clone();
        (found.len() >= at_least).then_some(found)
    })
    .await
}

/// All services, with the settings of the audit log that a test can wait for.
async fn world(backend: Backend) -> anyhow::Result<(Stack, Target)> {
    let mut builder = Stack::builder(backend).allow_private();
    for service in [REST_API, MCP_SERVER] {
        builder =
            builder
                .set(service, "AUDIT__ARGUMENTS", "redacted")
                .set(service, "AUDIT__REJECTED_EVERY", "1s");
    }
    Ok((builder.start().await?, Target::start().await?))
}

#[tokio::test]
async fn calls_over_mcp_and_changes_over_rest_are_told_without_what_is_secret() -> Outcome {
    for backend in Backend::available() {
        let (stack, target) = world(backend).await?;
        let key = stack.tenant("acme", "all").await?;
        let rest = stack.rest(&key);
        let tool =
            json!({"name": "deploy", "description": "d", "method": "POST", "url": target.url("/echo")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        let arguments = json!({"service": "web", "password": SECRET});
        let mut executions = HashSet::new();
        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            client.wait_for_tool("deploy").await?;
            client.structured("deploy", &arguments).await?;
            client.structured("context_list", &json!({})).await?;
            let failed = client.call("context_get", &json!({"id": "no such"})).await?;
            assert_eq!(failed.is_error, Some(true), "{era:?}");
            client.close().await;
        }
        let calls = records(&rest, "tool=deploy", 2).await?;
        for call in &calls {
            let shown = (&call["door"], &call["outcome"], &call["key_name"], &call["count"]);
            assert_eq!(
                shown,
                (&json!("mcp"), &json!("ok"), &json!("e2e"), &json!(1)),
                "{call}"
            );
            assert_eq!(call["arguments_hash"], calls[0]["arguments_hash"]);
            assert_eq!(call["arguments_hash"].as_str().map_or(0, str::len), 64, "{call}");
            let kept: Json = serde_json::from_str(text(call, "arguments"))?;
            assert_eq!(kept, json!({"service": "web", "password": "[redacted]"}));
            let execution = rest
                .get(&format!("/api/v1/executions/{}", text(call, "execution_id")))
                .await?;
            assert_eq!(execution.expect(200)?["tool"], "deploy");
            executions.insert(text(call, "execution_id").to_owned());
            assert!(call["duration_ms"].as_f64().unwrap_or_default() > 0.0, "{call}");
            let of_trace = format!("trace_id={}", text(call, "trace_id"));
            assert_eq!(records(&rest, &of_trace, 1).await?.len(), 1, "{of_trace}");
        }
        assert_eq!((calls.len(), executions.len()), (2, 2));
        let failed = records(&rest, "tool=context_get&outcome=error", 2).await?;
        assert!(
            failed[0]["code"].is_string() && failed[0]["execution_id"].is_null(),
            "{failed:?}"
        );

        // Over REST: what changes something, whatever comes of it, and nothing else.
        let made = rest
            .post("/api/v1/contexts", &json!({"name": SECRET}))
            .await?
            .expect(201)?;
        let path = format!("/api/v1/contexts/{}", text(&made, "id"));
        rest.get(&path).await?.expect(200)?;
        rest.delete(&path).await?.expect(204)?;
        rest.delete(&path).await?.problem(404, "not_found")?;
        let run = json!({ "arguments": arguments });
        let run = rest
            .post("/api/v1/tools/deploy/execute", &run)
            .await?
            .expect(200)?;
        let reader = stack.key("acme", "contexts:read,tools:read").await?;
        let denied = rest.with_key(Some(&reader));
        denied
            .post("/api/v1/contexts", &json!({"name": "x"}))
            .await?
            .problem(403, "missing_scope")?;
        denied.get("/api/v1/audit").await?.problem(403, "missing_scope")?;

        let deleted = records(&rest, "tool=DELETE%20/api/v1/contexts/%7Bid%7D", 2).await?;
        let outcomes: Vec<_> = deleted
            .iter()
            .map(|r| (text(r, "outcome"), text(r, "code")))
            .collect();
        assert_eq!(outcomes, [("error", "not_found"), ("ok", "")]);
        let posted = records(&rest, "tool=POST%20/api/v1/contexts", 2).await?;
        assert_eq!(posted[0]["outcome"], "denied");
        assert_ne!(posted[0]["arguments_hash"], posted[1]["arguments_hash"]);
        let over_rest = records(&rest, "tool=deploy", 3).await?;
        assert_eq!(
            (
                &over_rest[0]["door"],
                &over_rest[0]["execution_id"],
                &over_rest[0]["arguments_hash"]
            ),
            (&json!("rest"), &run["id"], &calls[0]["arguments_hash"])
        );
        let all = records(&rest, "", 1).await?;
        assert!(
            all.iter()
                .all(|record| !text(record, "action").starts_with("GET"))
        );
        assert!(!json!(all).to_string().contains(SECRET));

        // Pages, and who may not see any of it.
        let first = rest.get("/api/v1/audit?limit=2").await?.expect(200)?;
        let next = format!("/api/v1/audit?limit=200&cursor={}", text(&first, "next_cursor"));
        let rest_of_it = rest.get(&next).await?.expect(200)?;
        let shown = |page: &Json| page["items"].as_array().map_or(0, Vec::len);
        assert!(shown(&first) == 2 && shown(&rest_of_it) >= all.len() - 2);
        rest.get("/api/v1/audit?outcome=fine")
            .await?
            .problem(400, "invalid_argument")?;
        let stranger = stack.rest(&stack.tenant("globex", "all").await?);
        let id = text(&calls[0], "key_id");
        for query in ["", &format!("key_id={id}"), "tool=deploy", "outcome=error"] {
            let theirs = stranger
                .get(&format!("/api/v1/audit?{query}"))
                .await?
                .expect(200)?;
            assert_eq!(theirs["items"], json!([]), "{query}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_bad_keys_is_a_few_records_with_the_right_count() -> Outcome {
    for backend in Backend::available() {
        let (stack, _target) = world(backend).await?;
        let key = stack
            .tenant("acme", "audit:read,keys:manage,contexts:read")
            .await?;
        let rest = stack.rest(&key);
        let platform = stack.rest(&stack.tenant("ops", "audit:read,platform:observe").await?);
        let stranger = || domain::api_key::Secret::generate().expose().to_owned();
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let rest = rest.clone();
            senders.spawn(async move {
                for _ in 0..100 {
                    let refused = rest.with_key(Some(&stranger())).get("/api/v1/contexts").await?;
                    refused.problem(401, "invalid_key")?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = senders.join_next().await {
            done??;
        }
        for _ in 0..20 {
            let refused = stack.raw("dmcp_typo").call("tools/list", json!({})).await?;
            refused.problem(401, "malformed_key")?;
        }
        let told = async |door: &str, code: &str, expected: i64| {
            wait_for(&format!("{expected} rejections over {door}"), async || {
                let found = records(&platform, "tool=authenticate", 1).await.ok()?;
                let found: Vec<_> = found
                    .into_iter()
                    .filter(|r| r["door"] == door && r["code"] == code)
                    .collect();
                let count: i64 = found.iter().filter_map(|r| r["count"].as_i64()).sum();
                assert!(count <= expected, "{found:?}");
                (count == expected).then_some(found)
            })
            .await
        };
        let flood = told("rest", "invalid", 1000).await?;
        // A kind each for the first 32 of a second, and one for the rest of it.
        assert!(flood.len() <= 33 * 20, "{}", flood.len());
        assert!(
            flood
                .iter()
                .all(|r| r["own"] == false && r["outcome"] == "denied")
        );
        assert!(flood.iter().any(|r| r["address"] == "127.0.0.1"), "{flood:?}");
        let typos = told("mcp", "malformed", 20).await?;
        assert!(
            typos.iter().all(|r| r["key_name"] == ""),
            "it may be a secret of another kind: {typos:?}"
        );
        assert_eq!(records(&rest, "tool=authenticate", 0).await?, Vec::<Json>::new());

        // Whose key was revoked hears of it at both doors.
        let made = rest
            .post(
                "/api/v1/keys",
                &json!({"name": "old", "scopes": ["contexts:read"]}),
            )
            .await?
            .expect(201)?;
        let (id, secret) = (text(&made, "id"), text(&made, "secret"));
        rest.delete(&format!("/api/v1/keys/{id}")).await?;
        wait_for("the key to be refused", async || {
            let refused = rest.with_key(Some(secret)).get("/api/v1/contexts").await.ok()?;
            (refused.status == 401).then_some(())
        })
        .await?;
        stack
            .raw(secret)
            .call("tools/list", json!({}))
            .await?
            .problem(401, "invalid_key")?;
        let own = wait_for("both doors to tell", async || {
            let found = records(&rest, &format!("key_id={id}&tool=authenticate"), 2)
                .await
                .ok()?;
            let doors: HashSet<_> = found.iter().map(|r| text(r, "door").to_owned()).collect();
            (doors.len() == 2).then_some(found)
        })
        .await?;
        for record in &own {
            assert_eq!(
                (&record["code"], &record["own"]),
                (&json!("revoked"), &json!(true)),
                "{record}"
            );
            assert!(!secret.is_empty() && !record.to_string().contains(secret));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_waits_in_mcp_server_survives_rest_api_and_a_restart_of_its_own() -> Outcome {
    for backend in Backend::available() {
        let (mut stack, _target) = world(backend).await?;
        let key = stack.tenant("acme", "all").await?;
        let (rest, raw) = (stack.rest(&key), stack.raw(&key));
        let call = async |expected: &mut usize| {
            let call = json!({"name": "context_list", "arguments": {}});
            // What the door refused while rest-api was away is no call.
            if let Ok(answer) = raw.call("tools/call", call).await
                && answer.status == 200
                && response(&answer).is_ok()
            {
                *expected += 1;
            }
        };
        let mut expected = 0;
        for _ in 0..20 {
            call(&mut expected).await;
        }
        assert_eq!(expected, 20);
        stack.process_mut(REST_API).kill();
        for _ in 0..20 {
            call(&mut expected).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        stack.process_mut(REST_API).start().await?;
        let kept = records(&rest, "tool=context_list", expected).await?;
        assert_eq!(kept.len(), expected, "each once");

        stack.wait_connected(MCP_SERVER, &stack.http(MCP_SERVER)).await?;
        let before = expected;
        for _ in 0..300 {
            call(&mut expected).await;
            if expected > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(expected > before, "calls are served again");
        let mcp_server = stack.process_mut(MCP_SERVER);
        mcp_server.signal("-TERM")?;
        mcp_server.ended(Duration::from_secs(60)).await?;
        assert_eq!(
            records(&rest, "tool=context_list", expected).await?.len(),
            expected
        );
    }
    Ok(())
}
