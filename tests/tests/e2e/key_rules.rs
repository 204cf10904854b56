//! Keys that are limited to tools, and to arguments of them.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Stack, Target,
    rest::Rest,
    stack::{MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use serde_json::json;

async fn key(rest: &Rest, ask: &Json) -> anyhow::Result<(String, String)> {
    let made = rest.post("/api/v1/keys", ask).await?.expect(201)?;
    assert_eq!(made["tools"], ask["tools"]);
    Ok((text(&made, "id").to_owned(), text(&made, "secret").to_owned()))
}

#[tokio::test]
async fn a_key_sees_and_calls_only_what_its_rules_name() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let stack = Stack::builder(backend)
            .services(&[REST_API, WORKER, MCP_SERVER])
            .allow_private()
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        for name in ["web_get", "web_restart", "db_drop"] {
            let tool = json!({"name": name, "description": "d", "url": target.url("/echo/{team}")});
            rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        }
        let red = json!({"properties": {"team": {"const": "red"}}, "required": ["team"]});
        let rules = json!([{"tools": "*_get"}, {"tools": "web_*", "arguments": red}]);
        let scopes = ["tools:read", "tools:execute", "tools:manage", "keys:manage"];
        let ask = json!({"name": "limited", "scopes": scopes, "tools": rules});
        let (id, secret) = key(&rest, &ask).await?;
        let limited = rest.with_key(Some(&secret));

        let listed = limited.get("/api/v1/tools").await?.expect(200)?;
        let names: Vec<_> = listed["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|tool| text(tool, "name"))
            .collect();
        assert_eq!(names, ["web_get", "web_restart"]);
        limited
            .get("/api/v1/tools/db_drop")
            .await?
            .problem(404, "not_found")?;
        limited
            .delete("/api/v1/tools/db_drop")
            .await?
            .problem(404, "not_found")?;
        let tool = json!({"name": "other", "description": "d", "url": target.url("/")});
        limited
            .post("/api/v1/tools", &tool)
            .await?
            .problem(403, "tool_rules_exceeded")?;

        let call = async |caller: &Rest, tool: &str, team: &str| {
            let body = json!({"arguments": {"team": team}});
            caller.post(&format!("/api/v1/tools/{tool}/execute"), &body).await
        };
        call(&limited, "web_get", "any").await?.expect(200)?;
        call(&limited, "web_restart", "red").await?.expect(200)?;
        let refused = call(&limited, "web_restart", "s3cret").await?;
        refused.problem(403, "arguments_not_allowed")?;
        assert!(
            refused.text.contains("/team") && !refused.text.contains("s3cret"),
            "{}",
            refused.text
        );
        call(&limited, "db_drop", "red")
            .await?
            .problem(404, "not_found")?;
        let hidden = call(&rest, "db_drop", "red").await?.expect(200)?;
        let path = format!("/api/v1/executions/{}", text(&hidden, "id"));
        limited.get(&path).await?.problem(404, "not_found")?;
        assert_eq!(target.seen().len(), 3, "{backend:?}");

        for era in Era::ALL {
            let client = stack.mcp(&secret, era).await?;
            wait_for("the tools to be listed", async || {
                let listed = client.list_all_tools().await.ok()?;
                let lists = |name: &str| listed.iter().any(|tool| tool.name == name);
                (lists("web_restart") && !lists("db_drop")).then_some(())
            })
            .await?;
            client.close().await;
        }

        let shown = rest.get(&format!("/api/v1/keys/{id}")).await?.expect(200)?;
        assert_eq!(shown["tools"], rules);
        let rotated = rest
            .post(&format!("/api/v1/keys/{id}/rotate"), &json!({}))
            .await?
            .expect(201)?;
        assert_eq!(rotated["tools"], rules);
    }
    Ok(())
}

#[tokio::test]
async fn no_key_hands_out_or_takes_away_more_than_it_has() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .set(REST_API, "LIMITS__KEYS_PER_TENANT", "6")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let scopes = json!(["keys:manage", "tools:execute"]);
    let ask = |tools: Json| json!({"name": "k", "scopes": scopes, "tools": tools});
    let (_, secret) = key(&rest, &ask(json!([{"tools": "web_*"}]))).await?;
    let limited = rest.with_key(Some(&secret));
    key(&limited, &ask(json!([{"tools": "web_get"}]))).await?;
    for more in [
        Json::Null,
        json!([{"tools": "*"}]),
        json!([{"tools": "web_get"}, {"tools": "db"}]),
    ] {
        limited
            .post("/api/v1/keys", &ask(more))
            .await?
            .problem(403, "tool_rules_exceeded")?;
    }
    for (bad, field) in [
        (json!([{"tools": "a b"}]), "tools[0].tools"),
        (
            json!([{"tools": "a", "arguments": {"type": "objekt"}}]),
            "tools[0].arguments",
        ),
    ] {
        let problem = rest.post("/api/v1/keys", &ask(bad)).await?;
        assert_eq!(problem.problem(400, "invalid_argument")?["field"], field);
    }

    let (unlimited, _) = key(&rest, &ask(Json::Null)).await?;
    let (strong, _) = key(
        &rest,
        &json!({"name": "s", "scopes": ["debug"], "tools": [{"tools": "web_*"}]}),
    )
    .await?;
    for (id, code) in [(&unlimited, "tool_rules_exceeded"), (&strong, "missing_scope")] {
        let path = format!("/api/v1/keys/{id}");
        limited.delete(&path).await?.problem(403, code)?;
        let rotate = limited.post(&format!("{path}/rotate"), &json!({})).await?;
        rotate.problem(403, code)?;
    }
    rest.delete(&format!("/api/v1/keys/{strong}"))
        .await?
        .expect(200)?;

    // Four are active: the tenant's own, and three of those above.
    for _ in 0..2 {
        key(&rest, &ask(Json::Null)).await?;
    }
    let refused = rest.post("/api/v1/keys", &ask(Json::Null)).await?;
    refused.problem(409, "limit_reached")?;
    let path = format!("/api/v1/keys/{unlimited}/rotate");
    rest.post(&path, &json!({"overlap": "1h"}))
        .await?
        .problem(409, "limit_reached")?;
    rest.post(&path, &json!({})).await?.expect(201)?;
    Ok(())
}
