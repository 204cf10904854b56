//! Resources that are watched, completed and listed, in both eras.
#![expect(
    deprecated,
    reason = "clients of older versions subscribe one by one and set logging levels"
)]

use crate::support::{ALL, House, PATIENCE, call, eventually, legacy, modern, until};
use domain::TenantId;
use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, ReadResourceRequestParams, Reference, ResourceContents,
    ServerNotification, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::timeout;

impl House {
    /// A new context's id.
    async fn context(&self, name: &str) -> String {
        let made = self
            .call(&self.key, "context_create", json!({"name": name}))
            .await;
        let id = &made["result"]["structuredContent"]["context"]["id"];
        id.as_str().unwrap().to_owned()
    }

    async fn until_watched(&self, count: usize) {
        eventually(&format!("{count} watches"), || {
            self.rest.watches.load(Ordering::SeqCst) == count
        })
        .await;
    }
}

fn watching(uris: &[String]) -> SubscriptionFilter {
    SubscriptionFilter::builder()
        .resource_subscriptions(uris.iter().cloned())
        .build()
}

#[tokio::test]
async fn a_session_hears_of_what_it_subscribed_to_until_it_takes_that_back() {
    let house = House::start().await;
    let (watched, other) = (house.context("watched").await, house.context("other").await);
    let client = house.client(legacy()).await;
    let uri = format!("context://{watched}");
    for _ in 0..2 {
        client.subscribe(SubscribeRequestParams::new(&uri)).await.unwrap();
    }
    house.until_watched(1).await;
    let updates = &client.service().updates;
    // Its own stream may be opened a moment after it has initialized: it is told again then.
    until("the session hears", async || {
        house.rest.touch(&other);
        house.rest.touch(&watched);
        tokio::time::sleep(Duration::from_millis(20)).await;
        !updates.lock().is_empty()
    })
    .await;
    assert!(updates.lock().iter().all(|updated| *updated == uri));

    client
        .unsubscribe(UnsubscribeRequestParams::new(&uri))
        .await
        .unwrap();
    house.until_watched(0).await;
    client.subscribe(SubscribeRequestParams::new(&uri)).await.unwrap();
    house.until_watched(1).await;
    client.cancel().await.unwrap();
    house.until_watched(0).await;
}

#[tokio::test]
async fn a_stream_hears_of_its_resources_and_of_their_end() {
    let house = House::start().await;
    let ids = [house.context("a").await, house.context("b").await];
    let uris = ids.clone().map(|id| format!("context://{id}"));
    let client = house.client(modern()).await;
    let mut stream = client.listen(watching(&uris)).await.unwrap();
    assert_eq!(stream.acknowledged().resource_subscriptions, Some(uris.to_vec()));
    house.until_watched(2).await;
    let mut told = async || match timeout(PATIENCE, stream.next()).await.unwrap().unwrap() {
        Some(ServerNotification::ResourceUpdatedNotification(told)) => told.params.uri,
        other => panic!("{other:?}"),
    };
    // Of each once, for what changed before it was followed.
    let first = [told().await, told().await];
    assert!(uris.iter().all(|uri| first.contains(uri)), "{first:?}");
    house.rest.touch(&ids[1]);
    assert_eq!(told().await, uris[1]);
    house.rest.remove(&ids[0]);
    assert_eq!(told().await, uris[0]);
    house.until_watched(1).await;
    house.rest.touch(&ids[1]);
    assert_eq!(told().await, uris[1]);
    drop(stream);
    house.until_watched(0).await;
}

#[tokio::test]
async fn changes_that_happen_while_rest_api_is_away_are_told_afterwards() {
    let house = House::start().await;
    let id = house.context("kept").await;
    let uri = format!("context://{id}");
    let client = house.client(modern()).await;
    let mut stream = client.listen(watching(std::slice::from_ref(&uri))).await.unwrap();
    house.until_watched(1).await;
    let mut told = async || {
        let told = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        assert!(
            matches!(&told, Some(ServerNotification::ResourceUpdatedNotification(told)) if told.params.uri == uri),
            "{told:?}"
        );
    };
    told().await;
    house.rest.stop(house.rest_address).await;
    house.rest.touch(&id);
    house.rest.serve(house.rest_address).await;
    told().await;
}

/// The id of a run that is not over.
async fn running(house: &House) -> String {
    house.rest.register(house.tenant, "slow");
    house.until_tools(8).await;
    let call = json!({"name": "slow", "arguments": {"city": "Oslo"}});
    let left = house.post(&house.url, &house.key, "tools/call", call).send();
    tokio::select! {
        answer = left => panic!("it has ended: {answer:?}"),
        () = eventually("the run has begun", || house.rest.run_begun.load(Ordering::SeqCst) == 1) => {}
    }
    house.rest.all_executions()[0].id.clone()
}

async fn read(client: &rmcp::Peer<rmcp::RoleClient>, uri: &str) -> String {
    let read = client
        .read_resource(ReadResourceRequestParams::new(uri))
        .await
        .unwrap();
    match &read.contents[..] {
        [ResourceContents::TextResourceContents { text, .. }] => text.clone(),
        other => panic!("one text: {other:?}"),
    }
}

#[tokio::test]
async fn an_execution_is_listed_read_followed_and_its_result_read_in_pages() {
    let house = House::with(|settings| {
        (settings.results.default_bytes, settings.results.max_bytes) = (1024, 1024);
    })
    .await;
    let id = running(&house).await;
    let uri = format!("execution://{id}");
    let (old, new) = (house.client(legacy()).await, house.client(modern()).await);
    old.subscribe(SubscribeRequestParams::new(&uri)).await.unwrap();
    let mut stream = new.listen(watching(std::slice::from_ref(&uri))).await.unwrap();
    for client in [&old, &new] {
        let listed = client.list_all_resources().await.unwrap();
        assert!(listed.iter().any(|resource| resource.uri == uri), "{listed:?}");
        let state: Value = serde_json::from_str(&read(client, &uri).await).unwrap();
        assert_eq!(
            (&state["status"], &state["arguments"]),
            (&json!("running"), &json!({"city": "Oslo"}))
        );
        let no_result = ReadResourceRequestParams::new(format!("{uri}/result"));
        assert!(client.read_resource(no_result).await.is_err());
    }
    let result = json!({"text": "é🦀".repeat(1000)});
    house.rest.finish(&id, &result);
    house.rest.change(&id, |execution| {
        execution.result_bytes = result.to_string().len() as u64
    });
    let told = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    assert!(
        matches!(told, Some(ServerNotification::ResourceUpdatedNotification(_))),
        "{told:?}"
    );
    for client in [&old, &new] {
        let state: Value = serde_json::from_str(&read(client, &uri).await).unwrap();
        assert_eq!(state["result"]["page_bytes"], 1024, "{state}");
        let mut whole = String::new();
        for offset in (0..result.to_string().len()).step_by(1024) {
            whole += &read(client, &format!("{uri}/result?offset={offset}")).await;
        }
        assert_eq!(whole, result.to_string());
    }
    let theirs = house
        .client_of(&house.rest.key(TenantId::new(), ALL), modern())
        .await;
    for uri in [&uri, &format!("{uri}/result")] {
        let error = theirs
            .read_resource(ReadResourceRequestParams::new(uri))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("-32602"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_ones_own_cannot_be_subscribed_to() {
    let house = House::start().await;
    let id = house.context("ours").await;
    let uri = format!("context://{id}");
    let theirs = house.rest.key(TenantId::new(), ALL);
    let old = house.client_of(&theirs, legacy()).await;
    let error = old
        .subscribe(SubscribeRequestParams::new(&uri))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("-32002"), "{error}");
    let new = house.client_of(&theirs, modern()).await;
    let mut stream = new.listen(watching(&[uri])).await.unwrap();
    let ended = timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(format!("{ended:?}").contains("-32602"), "{ended:?}");

    let blind = house.rest.key(house.tenant, "tools:read");
    let old = house.client_of(&blind, legacy()).await;
    let uri = format!("context://{id}");
    let error = old.subscribe(SubscribeRequestParams::new(uri)).await.unwrap_err();
    assert!(error.to_string().contains("contexts:read"), "{error}");
    assert_eq!(house.rest.watches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn subscriptions_are_bounded_per_session_and_tenant() {
    let house = House::with(|settings| {
        settings.subscriptions.max_per_session = 2;
        settings.subscriptions.max_per_tenant = 3;
    })
    .await;
    let mut uris = Vec::new();
    for name in ["a", "b", "c"] {
        uris.push(format!("context://{}", house.context(name).await));
    }
    let (one, two) = (house.client(legacy()).await, house.client(legacy()).await);
    for uri in &uris[..2] {
        one.subscribe(SubscribeRequestParams::new(uri)).await.unwrap();
    }
    let full = one
        .subscribe(SubscribeRequestParams::new(&uris[2]))
        .await
        .unwrap_err();
    assert!(full.to_string().contains("this session"), "{full}");
    two.subscribe(SubscribeRequestParams::new(&uris[0]))
        .await
        .unwrap();
    let full = two
        .subscribe(SubscribeRequestParams::new(&uris[1]))
        .await
        .unwrap_err();
    assert!(full.to_string().contains("this tenant"), "{full}");
    one.unsubscribe(UnsubscribeRequestParams::new(&uris[0]))
        .await
        .unwrap();
    house.until_watched(2).await;
    two.subscribe(SubscribeRequestParams::new(&uris[1]))
        .await
        .unwrap();
    assert!(house.metrics().contains("mcp_resource_subscriptions_active"));
}

#[tokio::test]
async fn a_revoked_keys_streams_and_subscriptions_end() {
    let house = House::start().await;
    let uri = format!("context://{}", house.context("watched").await);
    let key = house.rest.key(house.tenant, ALL);
    let old = house.client_of(&key, legacy()).await;
    old.subscribe(SubscribeRequestParams::new(&uri)).await.unwrap();
    let params = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let request = house.post(&house.url, &key, "subscriptions/listen", params);
    let mut stream = request.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    house.until_watched(2).await;
    house.rest.revoke(&key);
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    timeout(PATIENCE, ended).await.expect("the stream ends");
    house.until_watched(0).await;
}

#[tokio::test]
async fn ids_are_completed_in_both_eras_for_those_who_may_see_them() {
    let house = House::start().await;
    let (incident, release) = (house.context("Incident 7").await, house.context("release").await);
    let ask = |template: &str, argument: &str, typed: &str| {
        CompleteRequestParams::new(
            Reference::for_resource(template),
            ArgumentInfo::new(argument, typed),
        )
    };
    for mode in [modern(), legacy()] {
        let client = house.client(mode).await;
        let found = client
            .complete(ask("context://{id}", "id", "inc"))
            .await
            .unwrap()
            .completion;
        assert_eq!(found.values, [incident.as_str()]);
        assert_eq!((found.total, found.has_more), (Some(1), Some(false)));
        let found = client
            .complete(ask("context://{id}", "id", &release))
            .await
            .unwrap();
        assert_eq!(found.completion.values, [release.as_str()]);
        for (template, argument) in [("file:///{path}", "path"), ("context://{id}", "name")] {
            let error = client.complete(ask(template, argument, "")).await.unwrap_err();
            assert!(error.to_string().contains("-32602"), "{error}");
        }
    }
    let theirs = house.rest.key(TenantId::new(), ALL);
    let client = house.client_of(&theirs, modern()).await;
    let found = client.complete(ask("context://{id}", "id", "")).await.unwrap();
    assert!(found.completion.values.is_empty());
    let blind = house.rest.key(house.tenant, "tools:read");
    let client = house.client_of(&blind, legacy()).await;
    let error = client
        .complete(ask("context://{id}", "id", ""))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("contexts:read"), "{error}");
}

#[tokio::test]
async fn a_client_hears_of_its_calls_from_the_level_on_that_it_set() {
    let house = House::start().await;
    for tool in ["echo", "boom"] {
        house.rest.register(house.tenant, tool);
    }
    house.until_tools(9).await;
    let client = house.client(legacy()).await;
    client
        .set_level(rmcp::model::SetLevelRequestParams::new(
            rmcp::model::LoggingLevel::Info,
        ))
        .await
        .unwrap();
    let messages = &client.service().messages;
    // Its own stream may be opened a moment after it has initialized.
    until("the session hears", async || {
        client
            .call_tool(call("boom", json!({"secret": "hunter2"})))
            .await
            .unwrap();
        messages.lock().len() > 1
    })
    .await;
    let told = messages.lock().clone();
    assert!(
        told.iter().all(|message| message.contains("http_status")),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|message| message.contains("hunter2")),
        "{told:?}"
    );

    let told = async |level: Option<&str>| {
        let mut params = json!({"name": "echo", "arguments": {}});
        if let Some(level) = level {
            params["_meta"] = json!({"io.modelcontextprotocol/logLevel": level});
        }
        let request = house.post(&house.url, &house.key, "tools/call", params);
        let answer = request.send().await.unwrap().text().await.unwrap();
        answer.matches("notifications/message").count()
    };
    assert_eq!(told(Some("debug")).await, 2, "it began and ended");
    assert_eq!(told(Some("info")).await, 1);
    assert_eq!(told(Some("warning")).await, 0);
    assert_eq!(told(None).await, 0, "nobody asked");
}
