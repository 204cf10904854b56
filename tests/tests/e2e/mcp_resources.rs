//! Executions as resources, news of resources, completion and messages over MCP, in both eras of the protocol.
#![expect(
    deprecated,
    reason = "clients of older versions subscribe one by one and set logging levels"
)]

use crate::{Outcome, text, world};
use e2e::{Backend, Era, Json, PATIENCE, mcp::Client, rest::Rest, stack::REST_API, wait_for};
use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, LoggingLevel, ReadResourceRequestParams, Reference,
    ResourceContents, ServerNotification, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// A resource's text, and where in its whole it stands.
async fn read(client: &Client, uri: &str) -> anyhow::Result<(String, Json)> {
    let read = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    let Some(ResourceContents::TextResourceContents { text, meta, .. }) = read.contents.into_iter().next()
    else {
        anyhow::bail!("{uri}: no text")
    };
    let place = meta.map(|meta| meta["devops-mcp/page"].clone());
    Ok((text, place.unwrap_or_default()))
}

/// Queues a run and gives its id.
async fn enqueue(rest: &Rest, tool: &str, arguments: &Json) -> anyhow::Result<String> {
    let path = format!("/api/v1/tools/{tool}/execute");
    let body = json!({ "arguments": arguments });
    let asynchronous = [("prefer", "respond-async")];
    let queued = rest
        .send(http::Method::POST, &path, &asynchronous, Some(&body))
        .await?;
    Ok(text(&queued.expect(202)?, "id").to_owned())
}

async fn until_over(rest: &Rest, id: &str) -> anyhow::Result<Json> {
    wait_for("the execution to be over", async || {
        let execution = rest.get(&format!("/api/v1/executions/{id}")).await.ok()?.json();
        execution["finished_at"].is_string().then_some(execution)
    })
    .await
}

#[tokio::test]
async fn the_pages_of_a_result_are_the_whole_of_it() -> Outcome {
    for backend in Backend::available() {
        let (stack, key, rest, target) = world(backend).await?;
        let tool = json!({"name": "echo", "description": "Says it again.", "method": "POST", "url": target.url("/echo")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        let id = enqueue(&rest, "echo", &json!({"said": "é🦀日".repeat(20_000)})).await?;
        let execution = until_over(&rest, &id).await?;
        assert_eq!(execution["status"], "succeeded", "{execution}");
        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            let uri = format!("execution://{id}");
            let state: Json = serde_json::from_str(&read(&client, &uri).await?.0)?;
            assert_eq!(
                (&state["status"], &state["tool"], &state["attempts"]),
                (&json!("succeeded"), &json!("echo"), &json!(1)),
                "{era:?}"
            );
            let result = &state["result"];
            let size = result["size_bytes"].as_u64().unwrap_or_default();
            let page = result["page_bytes"].as_u64().unwrap_or_default();
            assert!(size > 2 * page, "{result}");

            let (mut linked, mut next) = (String::new(), Some(text(result, "uri").to_owned()));
            while let Some(uri) = next {
                let (part, place) = read(&client, &uri).await?;
                assert!(
                    part.len() as u64 <= page + 3 && place["total_bytes"] == size,
                    "{place}"
                );
                linked.push_str(&part);
                next = place["next"].as_str().map(str::to_owned);
            }
            let mut stepped = String::new();
            for n in 0..size.div_ceil(page) {
                let uri = format!("{uri}/result?offset={}", n * page);
                stepped.push_str(&read(&client, &uri).await?.0);
            }
            assert!(linked == stepped && linked.len() as u64 == size, "{era:?}");
            assert_eq!(serde_json::from_str::<Json>(&linked)?, execution["result"]);

            let listed = client.list_all_resources().await?;
            assert!(listed.iter().any(|resource| resource.uri == uri), "{listed:?}");
            let beyond = ReadResourceRequestParams::new(format!("{uri}/result?offset={size}"));
            let error = client.read_resource(beyond).await.expect_err("beyond the end");
            assert!(error.to_string().contains("-32602"), "{error}");
            client.close().await;
        }

        // Another tenant's executions are not there.
        let theirs = stack.tenant("globex", "all").await?;
        let client = stack.mcp(&theirs, Era::Modern).await?;
        for uri in [format!("execution://{id}"), format!("execution://{id}/result")] {
            let error = client.read_resource(ReadResourceRequestParams::new(uri)).await;
            assert!(error.expect_err("not theirs").to_string().contains("-32602"));
        }
        let listed = client.list_all_resources().await?;
        let theirs = listed
            .iter()
            .any(|resource| resource.uri.starts_with("execution://"));
        assert!(!theirs, "{listed:?}");
        client.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn clients_of_both_eras_hear_of_a_context_changed_over_rest() -> Outcome {
    for backend in Backend::available() {
        let (stack, key, rest, _target) = world(backend).await?;
        let made = rest
            .post("/api/v1/contexts", &json!({"name": "watched"}))
            .await?
            .expect(201)?;
        let id = text(&made, "id");
        // Another key, and where there can be one, another replica of rest-api.
        let replica = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(stack.replica(REST_API).await?),
        };
        let url = replica
            .as_ref()
            .map_or_else(|| stack.http(REST_API), |(_, url)| url.clone());
        let other = Rest::new(&url, Some(&stack.key("acme", "all").await?));
        let uri = format!("context://{id}");
        let (old, new) = (
            stack.mcp(&key, Era::Legacy).await?,
            stack.mcp(&key, Era::Modern).await?,
        );
        old.subscribe(SubscribeRequestParams::new(&uri)).await?;
        let filter = SubscriptionFilter::builder().resource_subscription(&uri).build();
        let mut stream = new.listen(filter).await?;
        let append = async || {
            let items = json!({"items": [{"role": "user", "content": "news"}]});
            other
                .post(&format!("/api/v1/contexts/{id}/items"), &items)
                .await?
                .expect(201)
        };
        append().await?;
        let mut told = async || match tokio::time::timeout(PATIENCE, stream.next()).await?? {
            Some(ServerNotification::ResourceUpdatedNotification(told)) => Ok(told.params.uri),
            other => anyhow::bail!("{other:?}"),
        };
        assert_eq!(told().await?, uri);
        // rest-api looks by itself, too, but only after seconds: one of many changes must have been told before.
        let mut at_once = false;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            append().await?;
            let begun = Instant::now();
            assert_eq!(told().await?, uri);
            at_once |= begun.elapsed() < Duration::from_secs(2);
            if at_once {
                break;
            }
        }
        assert!(at_once, "{backend:?}: changes are found, not told");
        // The session's own stream may be opened a moment after it has begun.
        wait_for("the session to hear", async || {
            append().await.ok()?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            (!old.heard.updates().is_empty()).then_some(())
        })
        .await?;
        assert!(old.heard.updates().iter().all(|told| *told == uri));

        // What another tenant has cannot be subscribed to: it is not there.
        let theirs = stack
            .mcp(&stack.tenant("globex", "all").await?, Era::Legacy)
            .await?;
        let refused = theirs.subscribe(SubscribeRequestParams::new(&uri)).await;
        assert!(
            refused
                .expect_err("not theirs")
                .to_string()
                .contains("no such context")
        );
        for client in [old, new, theirs] {
            client.close().await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_an_execution_is_told_and_its_id_is_completed() -> Outcome {
    for backend in Backend::available() {
        let (stack, key, rest, target) = world(backend).await?;
        let tool =
            json!({"name": "held", "description": "Waits.", "method": "GET", "url": target.url("/held")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        let id = enqueue(&rest, "held", &json!({})).await?;
        let uri = format!("execution://{id}");
        let client = stack.mcp(&key, Era::Modern).await?;
        let filter = SubscriptionFilter::builder().resource_subscription(&uri).build();
        let mut stream = client.listen(filter).await?;
        wait_for("the run to arrive", async || {
            (!target.seen().is_empty()).then_some(())
        })
        .await?;
        target.release();
        let status =
            async || -> anyhow::Result<Json> { Ok(serde_json::from_str(&read(&client, &uri).await?.0)?) };
        tokio::time::timeout(PATIENCE, async {
            // It may have been seen as queued, then as running.
            while text(&status().await?, "status") != "succeeded" {
                let told = stream.next().await?;
                assert!(
                    matches!(told, Some(ServerNotification::ResourceUpdatedNotification(_))),
                    "{told:?}"
                );
            }
            anyhow::Ok(())
        })
        .await??;

        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            for (template, typed) in [
                ("execution://{id}", id.as_str()),
                ("execution://{id}", "hel"),
                ("execution://{id}/result{?offset}", ""),
            ] {
                let ask = CompleteRequestParams::new(
                    Reference::for_resource(template),
                    ArgumentInfo::new("id", typed),
                );
                let found = client.complete(ask).await?.completion;
                assert_eq!(
                    (found.values.as_slice(), found.total, found.has_more),
                    (std::slice::from_ref(&id), Some(1), Some(false)),
                    "{era:?} {typed}"
                );
            }
            client.close().await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_session_hears_of_its_calls_as_loud_as_it_wants() -> Outcome {
    let (stack, key, rest, target) = world(Backend::Sqlite).await?;
    for (name, path) in [("fine", "/echo"), ("broken", "/status/500")] {
        let tool = json!({"name": name, "description": "A tool.", "method": "GET", "url": target.url(path)});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    }
    let client = stack.mcp(&key, Era::Legacy).await?;
    client.wait_for_tool("broken").await?;
    // Without being asked it hears of what went wrong; its own stream may be opened a moment after it has begun.
    wait_for("the failure to be told", async || {
        client.call("fine", &json!({"q": "hunter2"})).await.ok()?;
        client.call("broken", &json!({"q": "hunter2"})).await.ok()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        (!client.heard.messages().is_empty()).then_some(())
    })
    .await?;
    let told = client.heard.messages();
    assert!(
        told.iter().all(|message| text(message, "tool") == "broken"),
        "{told:?}"
    );
    assert_eq!(text(&told[0], "error"), "http_status", "{told:?}");
    assert!(!json!(told).to_string().contains("hunter2"), "{told:?}");

    client
        .set_level(SetLevelRequestParams::new(LoggingLevel::Info))
        .await?;
    client.call("fine", &json!({})).await?;
    wait_for("the success to be told", async || {
        let told = client.heard.messages();
        told.iter()
            .any(|message| text(message, "tool") == "fine")
            .then_some(())
    })
    .await?;
    client.close().await;
    Ok(())
}
