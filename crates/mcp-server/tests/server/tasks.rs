//! Calls that become tasks, in both forms.

use crate::support::{ALL, House, LEGACY, eventually, replica, until};
use domain::{TenantId, ToolRule, ToolRules};
use serde_json::{Value, json};
use std::time::Duration;

fn tasks() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}})
}

fn slow() -> Value {
    json!({"name": "slow", "arguments": {"a": 1}})
}

async fn house(after: Duration) -> House {
    let house = House::with(|settings| settings.tasks.after = after).await;
    for tool in ["echo", "boom", "slow"] {
        house.rest.register(house.tenant, tool);
    }
    house.until_tools(10).await;
    house
}

impl House {
    async fn task(&self, key: &str, method: &str, id: &str) -> Value {
        self.able(key, &tasks(), method, json!({"taskId": id})).await
    }

    /// The replica ends, and another, which has never heard of anything, takes its place.
    async fn move_to_another_replica(&mut self) {
        let there = replica(self.rest_address, |_| ()).await;
        self.url = format!("http://{}/mcp", there.http);
        self.mcp = there;
        self.until_tools(10).await;
    }
}

#[tokio::test]
async fn what_takes_long_becomes_a_task_that_any_replica_knows() {
    let mut house = house(Duration::from_millis(50)).await;
    let echo = json!({"name": "echo", "arguments": {"a": 1}});
    let at_once = house.able(&house.key, &tasks(), "tools/call", echo).await;
    assert_eq!(
        at_once["result"]["structuredContent"],
        json!({"a": 1}),
        "{at_once}"
    );

    let made = house.able(&house.key, &tasks(), "tools/call", slow()).await;
    assert_eq!(
        (&made["result"]["resultType"], &made["result"]["status"]),
        (&json!("task"), &json!("working")),
        "{made}"
    );
    let id = made["result"]["taskId"].as_str().unwrap().to_owned();
    house
        .rest
        .change(&id, |execution| execution.progress = Some("half".into()));
    house.move_to_another_replica().await;
    let working = house.task(&house.key, "tasks/get", &id).await;
    assert_eq!(
        (&working["result"]["status"], &working["result"]["statusMessage"]),
        (&json!("working"), &json!("half")),
        "{working}"
    );
    house.rest.stop(house.rest_address).await;
    house.rest.finish(&id, &json!({"done": true}));
    house.rest.serve(house.rest_address).await;
    until("rest-api is there again", async || {
        house.task(&house.key, "tasks/get", &id).await["result"].is_object()
    })
    .await;
    let over = house.task(&house.key, "tasks/get", &id).await;
    assert_eq!(over["result"]["status"], "completed", "{over}");
    assert_eq!(
        over["result"]["result"]["structuredContent"],
        json!({"done": true})
    );
    let ack = house.task(&house.key, "tasks/cancel", &id).await;
    assert_eq!(ack["result"]["resultType"], "complete", "{ack}");
}

#[tokio::test]
async fn tasks_are_cancelled_and_are_their_tenants_alone() {
    let house = house(Duration::from_millis(50)).await;
    let made = house.able(&house.key, &tasks(), "tools/call", slow()).await;
    let id = made["result"]["taskId"].as_str().unwrap().to_owned();
    let theirs = house.rest.key(TenantId::new(), ALL);
    let rule = ToolRule {
        tools: "echo".into(),
        arguments: None,
    };
    let limited = house
        .rest
        .limited_key(house.tenant, ALL, ToolRules::limited(vec![rule]).unwrap());
    for key in [&theirs, &limited] {
        for method in ["tasks/get", "tasks/cancel"] {
            let answer = house.task(key, method, &id).await;
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
        }
    }
    for nobodys in ["x", &domain::ExecutionId::new().to_string()] {
        let answer = house.task(&house.key, "tasks/get", nobodys).await;
        assert_eq!(answer["error"]["data"]["code"], "not_found", "{answer}");
    }
    house.task(&house.key, "tasks/cancel", &id).await;
    let over = house.task(&house.key, "tasks/get", &id).await;
    assert_eq!(over["result"]["status"], "cancelled", "{over}");
    // A tool's own error is a result; what waits for an approval works.
    let failed = house
        .able(&house.key, &tasks(), "tools/call", json!({"name": "boom"}))
        .await;
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    house
        .rest
        .register_with(house.tenant, "drop", |tool| tool.destructive = true);
    house.until_tools(11).await;
    let waits = house
        .able(&house.key, &tasks(), "tools/call", json!({"name": "drop"}))
        .await;
    assert_eq!(waits["result"]["status"], "working", "{waits}");
    assert!(
        waits["result"]["statusMessage"]
            .as_str()
            .unwrap()
            .contains("/approve")
    );
}

#[tokio::test]
async fn a_client_that_leaves_before_it_knows_of_its_task_has_cancelled() {
    let house = house(Duration::from_secs(60)).await;
    let mut params = slow();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = tasks();
    let request = house.post(&house.url, &house.key, "tools/call", params).send();
    let request = tokio::spawn(request);
    eventually("the run is queued", || !house.rest.all_executions().is_empty()).await;
    request.abort();
    eventually("the run is cancelled", || {
        house.rest.all_executions()[0].status == "cancelled"
    })
    .await;
}

#[tokio::test]
async fn progress_is_told_while_a_call_is_no_task_yet() {
    let house = house(Duration::from_secs(60)).await;
    let mut params = slow();
    params["_meta"] = json!({"progressToken": 5, "io.modelcontextprotocol/clientCapabilities": tasks()});
    let request = house.post(&house.url, &house.key, "tools/call", params).send();
    let answered = tokio::spawn(async { request.await.unwrap().text().await.unwrap() });
    eventually("the run is queued", || !house.rest.all_executions().is_empty()).await;
    let id = house.rest.all_executions()[0].id.clone();
    house
        .rest
        .change(&id, |execution| execution.progress = Some("half".into()));
    house.rest.finish(&id, &json!({"done": true}));
    let stream = answered.await.unwrap();
    let told = stream.find("notifications/progress").unwrap();
    assert!(stream[told..].contains("half"), "{stream}");
    assert_eq!(
        answer(&stream)["result"]["structuredContent"],
        json!({"done": true})
    );
}

/// A client of 2025-11-25 that does tasks, which the SDK's does not.
struct Old<'a> {
    house: &'a House,
    session: String,
}

/// The answer in a stream: the message that is no notification.
fn answer(stream: &str) -> Value {
    let messages = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut messages = messages.filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok());
    messages
        .find(|message| message.get("id").is_some())
        .unwrap_or_else(|| panic!("no answer in {stream}"))
}

impl<'a> Old<'a> {
    async fn open(house: &'a House) -> (Self, Value) {
        let mut old = Self {
            house,
            session: String::new(),
        };
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = old.post(&body).await;
        old.session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let initialized = answer(&response.text().await.unwrap());
        old.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
        (old, initialized["result"].clone())
    }

    async fn post(&self, body: &Value) -> reqwest::Response {
        let mut request = self
            .house
            .http
            .post(&self.house.url)
            .bearer_auth(&self.house.key)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string());
        if !self.session.is_empty() {
            request = request
                .header("mcp-session-id", &self.session)
                .header("mcp-protocol-version", LEGACY);
        }
        request.send().await.unwrap()
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        answer(&self.post(&body).await.text().await.unwrap())
    }

    async fn call(&self, tool: &str) -> Value {
        let params = json!({"name": tool, "arguments": {"a": 1}, "task": {"ttl": 60_000}});
        self.ask("tools/call", params).await
    }
}

#[tokio::test]
async fn clients_of_2025_11_25_ask_for_tasks_and_fetch_their_results_from_any_replica() {
    let mut house = house(Duration::from_secs(60)).await;
    let (old, initialized) = Old::open(&house).await;
    assert!(
        initialized["capabilities"]["tasks"]["requests"]["tools"]["call"].is_object(),
        "{initialized}"
    );
    let list = old.ask("tools/list", json!({})).await;
    for tool in list["result"]["tools"].as_array().unwrap() {
        let built_in = tool["name"].as_str().unwrap().starts_with("context_");
        assert_eq!(
            tool["execution"]["taskSupport"] == "optional",
            !built_in,
            "{tool}"
        );
    }
    // Without the wish a call is a call.
    let plain = old
        .ask("tools/call", json!({"name": "echo", "arguments": {"task": 1}}))
        .await;
    assert_eq!(
        plain["result"]["structuredContent"],
        json!({"task": 1}),
        "{plain}"
    );
    assert_eq!(old.call("context_list").await["error"]["code"], -32601);
    assert_eq!(old.call("no-such-tool").await["error"]["code"], -32602);

    let made = old.call("slow").await;
    let task = &made["result"]["task"];
    assert_eq!(
        (&task["status"], task["ttl"].is_u64()),
        (&json!("working"), true),
        "{made}"
    );
    let id = task["taskId"].as_str().unwrap().to_owned();
    house.move_to_another_replica().await;
    let (old, _) = Old::open(&house).await;
    let about = || json!({"taskId": id});
    let shown = old.ask("tasks/get", about()).await;
    assert_eq!(shown["result"]["status"], "working", "{shown}");
    let (result, ()) = tokio::join!(old.ask("tasks/result", about()), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.rest.finish(&id, &json!({"done": true}));
    });
    assert_eq!(
        result["result"]["structuredContent"],
        json!({"done": true}),
        "{result}"
    );
    let related = &result["result"]["_meta"]["io.modelcontextprotocol/related-task"]["taskId"];
    assert_eq!(related, &json!(id));
    let list = old.ask("tasks/list", json!({})).await;
    let listed = list["result"]["tasks"].as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|task| task["taskId"] == id && task["status"] == "completed"),
        "{list}"
    );
    let over = old.ask("tasks/cancel", about()).await;
    assert_eq!(over["error"]["code"], -32602, "{over}");
}

#[tokio::test]
async fn tasks_of_2025_11_25_are_cancelled_and_fail() {
    let house = house(Duration::from_secs(60)).await;
    let (old, _) = Old::open(&house).await;
    let id = old.call("slow").await["result"]["task"]["taskId"].clone();
    let cancelled = old.ask("tasks/cancel", json!({"taskId": id})).await;
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
    let id = old.call("boom").await["result"]["task"]["taskId"].clone();
    let failed = old.ask("tasks/get", json!({"taskId": id})).await;
    assert_eq!(failed["result"]["status"], "failed", "{failed}");
    let result = old.ask("tasks/result", json!({"taskId": id})).await;
    assert_eq!(
        result["result"]["structuredContent"]["error"]["code"], "http_status",
        "{result}"
    );
    assert_eq!(
        old.ask("tasks/get", json!({"taskId": "x"})).await["error"]["code"],
        -32602
    );
    assert_eq!(
        old.ask("tasks/nonsense", json!({})).await["error"]["code"],
        -32601
    );
}
