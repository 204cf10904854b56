//! Contexts over MCP, in both eras of the protocol.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Stack,
    mcp::{self, Client},
    stack::{MCP_SERVER, REST_API},
};
use rmcp::model::{ReadResourceRequestParams, ResourceContents};
use serde_json::json;

const TOOLS: [&str; 7] = [
    "context_append",
    "context_create",
    "context_delete",
    "context_get",
    "context_list",
    "context_search",
    "context_update",
];

async fn stack(backend: Backend) -> anyhow::Result<(Stack, String)> {
    let stack = Stack::builder(backend)
        .services(&[REST_API, MCP_SERVER])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    Ok((stack, key))
}

#[tokio::test]
async fn an_agent_keeps_finds_and_deletes_a_context() -> Outcome {
    for backend in Backend::available() {
        let (stack, key) = stack(backend).await?;
        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            let what = format!("{backend:?} {era:?}");
            let made = client
                .structured(
                    "context_create",
                    &json!({
                        "name": format!("Incident {era:?}"), "type": "incident", "metadata": {"n": 9_007_199_254_740_993_i64},
                        "items": [{"role": "user", "content": format!("marmalade in the {era:?} era")}],
                    }),
                )
                .await?;
            let id = text(&made["context"], "id").to_owned();
            let more =
                json!({"id": id, "items": [{"role": "assistant", "content": "noted"}], "if_version": 1});
            assert_eq!(
                client.structured("context_append", &more).await?["sequences"],
                json!([2]),
                "{what}"
            );

            let found = client
                .structured("context_search", &json!({"query": format!("marmalade {era:?}")}))
                .await?;
            assert_eq!(found["hits"][0]["context"]["id"], json!(id), "{what}: {found}");
            let read = client.structured("context_get", &json!({"id": id})).await?;
            assert_eq!(
                read["context"]["metadata"],
                json!({"n": 9_007_199_254_740_993_i64}),
                "{what}"
            );
            assert_eq!(
                (&read["items"][1]["content"], &read["truncated"]),
                (&json!("noted"), &json!(false)),
                "{what}"
            );
            let listed = client
                .structured("context_list", &json!({"type": "incident", "limit": 1}))
                .await?;
            assert_eq!(listed["contexts"][0]["id"], json!(id), "{what}");
            let archived = client
                .structured("context_update", &json!({"id": id, "status": "archived"}))
                .await?;
            assert_eq!(archived["context"]["status"], "archived", "{what}");

            // The same context over REST.
            let over_rest = stack
                .rest(&key)
                .get(&format!("/api/v1/contexts/{id}"))
                .await?
                .expect(200)?;
            assert_eq!(
                (&over_rest["status"], &over_rest["item_count"]),
                (&json!("archived"), &json!(2)),
                "{what}"
            );

            resources(&client, &id, &what).await?;
            client.structured("context_delete", &json!({"id": id})).await?;
            let gone = client.call("context_get", &json!({"id": id})).await?;
            assert_eq!(gone.is_error, Some(true), "{what}");
            assert_eq!(
                gone.structured_content.unwrap_or_default()["error"]["code"],
                "not_found",
                "{what}"
            );
            client.close().await;
        }
    }
    Ok(())
}

async fn resources(client: &Client, id: &str, what: &str) -> Outcome {
    let uri = format!("context://{id}");
    let templates = client.list_all_resource_templates().await?;
    assert!(
        templates
            .iter()
            .any(|t| t.uri_template.starts_with("context://{")),
        "{what}: {templates:?}"
    );
    let listed = client.list_all_resources().await?;
    assert!(
        listed.iter().any(|resource| resource.uri == uri),
        "{what}: {listed:?}"
    );
    let read = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    let content = read.contents.iter().find_map(|contents| match contents {
        ResourceContents::TextResourceContents { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert!(
        content.is_some_and(|text| text.contains("marmalade")),
        "{what}: {content:?}"
    );
    let missing = ReadResourceRequestParams::new(format!("context://{}", uuid::Uuid::now_v7()));
    assert!(client.read_resource(missing).await.is_err(), "{what}");
    Ok(())
}

#[tokio::test]
async fn tools_are_listed_with_schemas_and_hints_and_only_where_the_key_may() -> Outcome {
    let (stack, _) = stack(Backend::Sqlite).await?;
    let key = stack.key("acme", "contexts:read,contexts:write").await?;
    let reader = stack.key("acme", "contexts:read").await?;
    for era in Era::ALL {
        let client = stack.mcp(&key, era).await?;
        let tools = client.list_all_tools().await?;
        let mut names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        names.sort_unstable();
        assert_eq!(names, TOOLS, "{era:?}");
        for tool in &tools {
            let name = &tool.name;
            assert_eq!(tool.input_schema["type"], "object", "{name}");
            let hints = tool.annotations.clone().unwrap_or_default();
            let reads = ["context_get", "context_list", "context_search"].contains(&name.as_ref());
            assert_eq!(hints.read_only_hint, Some(reads), "{name}");
            assert_eq!(hints.destructive_hint, Some(name == "context_delete"), "{name}");
        }
        let reading = stack.mcp(&reader, era).await?;
        let names: Vec<_> = reading
            .list_all_tools()
            .await?
            .into_iter()
            .map(|tool| tool.name.into_owned())
            .collect();
        assert_eq!(names.len(), 3, "{era:?}: {names:?}");
        let refused = reading.call("context_create", &json!({"name": "x"})).await?;
        let error = refused.structured_content.unwrap_or_default();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["required_scope"]),
            (&json!("missing_scope"), &json!("contexts:write"))
        );
    }
    Ok(())
}

#[tokio::test]
async fn large_answers_are_cut_and_say_so() -> Outcome {
    let (stack, key) = stack(Backend::Sqlite).await?;
    let client = stack.mcp(&key, Era::Modern).await?;
    let items: Vec<Json> = (0..6)
        .map(|i| json!({"role": "tool", "content": format!("{i}{}", "x".repeat(30_000))}))
        .collect();
    let made = client
        .structured("context_create", &json!({"name": "large", "items": items}))
        .await?;
    let id = text(&made["context"], "id");
    let (mut seen, mut cursor, mut calls) = (Vec::new(), None::<String>, 0);
    loop {
        let mut arguments = json!({"id": id});
        if let Some(cursor) = &cursor {
            arguments["cursor"] = json!(cursor);
        }
        let result = client.call("context_get", &arguments).await?;
        assert!(
            mcp::text(&result).len() < 100_000,
            "{} bytes",
            mcp::text(&result).len()
        );
        let page = result.structured_content.unwrap_or_default();
        seen.extend(
            page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| item["sequence"].as_i64()),
        );
        calls += 1;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        assert_eq!(page["truncated"], json!(cursor.is_some()), "{page}");
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert!(calls > 1, "180 kB came in one answer");

    // One item that is larger than the answer may be is cut, and the way to the rest is told.
    let big = json!({"id": id, "items": [{"role": "tool", "content": "y".repeat(300_000)}]});
    client.structured("context_append", &big).await?;
    let cut = client
        .structured(
            "context_get",
            &json!({"id": id, "newest_first": true, "limit": 1}),
        )
        .await?;
    let shown = text(&cut["items"][0], "content").len();
    assert!(
        shown < 100_000 && cut["truncated"] == json!(true) && cut["note"].is_string(),
        "{shown} bytes"
    );
    let whole = json!({"id": id, "newest_first": true, "limit": 1, "max_bytes": 400_000});
    let whole = client.structured("context_get", &whole).await?;
    assert_eq!(text(&whole["items"][0], "content").len(), 300_000);
    Ok(())
}

#[tokio::test]
async fn a_legacy_session_survives_on_another_replica_and_dies_when_ended() -> Outcome {
    // Two mcp-servers on one rest-api share sessions through Redis alone.
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let (mut stack, key) = stack(Backend::Postgres).await?;
    let client = stack.mcp(&key, Era::Legacy).await?;
    client.list_all_tools().await?;
    // A restart forgets everything in memory, as another replica never knew it.
    stack.process_mut(MCP_SERVER).kill();
    stack.process_mut(MCP_SERVER).start().await?;
    stack.wait_connected(MCP_SERVER, &stack.http(MCP_SERVER)).await?;
    let made = client
        .structured("context_create", &json!({"name": "still here"}))
        .await?;
    assert_eq!(made["context"]["name"], "still here");
    Ok(())
}
