//! What clients of both eras do.

use crate::support::{House, PATIENCE, call, eventually, legacy, modern, until};
use domain::TenantId;
use rmcp::model::{ReadResourceRequestParams, ResourceContents, ServerNotification, SubscriptionFilter};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

#[tokio::test]
async fn both_eras_list_create_find_and_read() {
    let house = House::start().await;
    house.rest.register(house.tenant, "weather");
    house.until_tools(8).await;
    for (mode, name) in [(modern(), "modern"), (legacy(), "legacy")] {
        let client = house.client(mode).await;
        let tools = client.list_all_tools().await.unwrap();
        let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
        assert!(
            names.is_sorted() && names.contains(&"weather") && names.contains(&"context_search"),
            "{names:?}"
        );

        let items = json!([{"role": "user", "content": format!("the disk of {name} is full")}]);
        let made = client
            .call_tool(call("context_create", json!({"name": name, "items": items})))
            .await
            .unwrap();
        let made = made.structured_content.unwrap();
        let id = made["context"]["id"].as_str().unwrap().to_owned();

        let found = client
            .call_tool(call("context_search", json!({"query": format!("of {name}")})))
            .await
            .unwrap();
        let text = found.content[0].as_text().unwrap().text.clone();
        let found = found.structured_content.unwrap();
        assert_eq!(found["hits"][0]["context"]["id"], json!(id), "{found}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            found,
            "the text is the same"
        );

        let uri = format!("context://{id}");
        let read = client
            .read_resource(ReadResourceRequestParams::new(uri.clone()))
            .await
            .unwrap();
        let ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
            panic!("text")
        };
        assert!(text.contains("is full"), "{text}");
        let resources = client.list_all_resources().await.unwrap();
        assert!(resources.iter().any(|resource| resource.uri == uri));
        assert_eq!(
            client.list_all_resource_templates().await.unwrap()[0].uri_template,
            "context://{id}"
        );
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn registered_tools_run_with_progress_and_fail_for_the_agent() {
    let house = House::start().await;
    for tool in ["echo", "boom"] {
        house.rest.register(house.tenant, tool);
    }
    house.until_tools(9).await;
    for mode in [modern(), legacy()] {
        let client = house.client(mode).await;
        let echoed = client
            .call_tool(call("echo", json!({"a": [1, 2]})))
            .await
            .unwrap();
        assert_eq!(echoed.structured_content.unwrap(), json!({"a": [1, 2]}));
        let execution = house.rest.all_executions().pop().unwrap();
        assert_eq!(
            echoed.meta.unwrap()["devops-mcp/execution"]["id"],
            json!(execution.id)
        );
        let heard = &client.service().progress;
        eventually("progress", || heard.load(Ordering::SeqCst) == 2).await;

        let failed = client.call_tool(call("boom", json!({}))).await.unwrap();
        assert_eq!(failed.is_error, Some(true));
        assert_eq!(
            failed.structured_content.unwrap()["error"]["code"],
            json!("http_status")
        );
        client.cancel().await.unwrap();
    }
    let labels = r#"method="tools/call",tool="boom",error_type="tool_error""#;
    eventually("the failure is measured", || {
        house
            .metrics()
            .lines()
            .any(|l| l.starts_with("mcp_server_operation_duration_seconds_count") && l.contains(labels))
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_or_cancels_ends_the_run() {
    let house = House::start().await;
    house.rest.register(house.tenant, "slow");
    house.until_tools(8).await;

    let gone = house
        .post(
            &house.url,
            &house.key,
            "tools/call",
            json!({"name": "slow", "arguments": {}}),
        )
        .send();
    let rest = &house.rest;
    let begun = |runs| {
        eventually("the run has begun", move || {
            rest.run_begun.load(Ordering::SeqCst) == runs
        })
    };
    tokio::select! {
        answer = gone => panic!("the run has ended: {answer:?}"),
        () = begun(1) => {}
    }
    eventually("the run is dropped", || {
        house.rest.run_dropped.swap(false, Ordering::SeqCst)
    })
    .await;

    let client = house.client(legacy()).await;
    let request = rmcp::model::ClientRequest::CallToolRequest(rmcp::model::CallToolRequest::new(call(
        "slow",
        json!({}),
    )));
    let options = rmcp::service::PeerRequestOptions::no_options();
    let handle = client.send_cancellable_request(request, options).await.unwrap();
    begun(2).await;
    handle.cancel(None).await.unwrap();
    eventually("the run is dropped", || {
        house.rest.run_dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[tokio::test]
async fn clients_of_both_eras_hear_that_their_tools_changed() {
    let house = House::start().await;
    house.until_tools(7).await;
    let old = house.client(legacy()).await;
    let new = house.client(modern()).await;
    let mut stream = new
        .listen(SubscriptionFilter::builder().tools_list_changed().build())
        .await
        .unwrap();
    let heard = || old.service().changes.load(Ordering::SeqCst);
    // The legacy client's own stream is opened at some time after it has initialized; then it hears.
    let registered = AtomicUsize::new(0);
    until("the legacy client hears", async || {
        let n = registered.fetch_add(1, Ordering::SeqCst);
        house.rest.register(TenantId::new(), "not-ours");
        house.rest.register(house.tenant, &format!("ours-{n}"));
        tokio::time::sleep(Duration::from_millis(500)).await;
        heard() > 0
    })
    .await;
    assert!(
        heard() <= registered.load(Ordering::SeqCst),
        "another tenant's tools are no news"
    );
    let told = tokio::time::timeout(PATIENCE, stream.next())
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(told, Some(ServerNotification::ToolListChangedNotification(_))),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_catalogue_outlives_rest_api_and_catches_up() {
    let house = House::start().await;
    house.rest.register(house.tenant, "first");
    house.until_tools(8).await;
    house.rest.stop(house.rest_address).await;
    let tools = |list: Value| list["result"]["tools"].as_array().unwrap().len();
    // The key's verdict is still good for a moment.
    let (status, list) = house.modern(&house.key, "tools/list", json!({})).await;
    assert!(status == 503 || tools(list) == 8);
    house.rest.register(house.tenant, "second");
    house.rest.serve(house.rest_address).await;
    house.until_tools(9).await;
}

#[tokio::test]
async fn the_trace_in_meta_goes_before_the_one_in_the_header() {
    let house = House::start().await;
    let trace = |digit: &str| format!("00-{}-00f067aa0ba902b7-01", digit.repeat(32));
    let params = json!({
        "name": "context_create",
        "arguments": {"name": "traced"},
        "_meta": {"traceparent": trace("a")},
    });
    let request = house.post(&house.url, &house.key, "tools/call", params);
    let answer = request.header("traceparent", trace("b")).send().await.unwrap();
    assert_eq!(answer.headers()["x-trace-id"], "b".repeat(32));
    let passed = house.rest.traceparent.lock().clone().unwrap();
    assert!(passed.contains(&"a".repeat(32)), "{passed}");

    let request = house.post(
        &house.url,
        &house.key,
        "tools/call",
        json!({"name": "context_create", "arguments": {"name": "x"}}),
    );
    request.header("traceparent", trace("b")).send().await.unwrap();
    let passed = house.rest.traceparent.lock().clone().unwrap();
    assert!(passed.contains(&"b".repeat(32)), "{passed}");
}
