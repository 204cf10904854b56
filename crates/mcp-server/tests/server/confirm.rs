//! Destructive tools: a person at the client is asked first.

use crate::support::{ALL, House, call, legacy, modern, replica};
use parking_lot::Mutex;
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient,
    model::{
        CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction,
    },
    service::RequestContext,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A client with somebody in front of it.
#[derive(Clone)]
struct Person {
    says: ElicitResult,
    read: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.capabilities = ClientCapabilities::builder().enable_elicitation().build();
        config
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            panic!("a form")
        };
        self.read.lock().push(message);
        Ok(self.says.clone())
    }
}

async fn house() -> House {
    let house = House::start().await;
    house
        .rest
        .register_with(house.tenant, "drop", |tool| tool.destructive = true);
    house.until_tools(8).await;
    house
}

impl House {
    /// Has a person's client call the tool, and answers what the person read.
    async fn with_person(
        &self,
        mode: ClientLifecycleMode,
        says: ElicitResult,
    ) -> (CallToolResult, Vec<String>) {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.clone()).auth_header(&self.key);
        let transport = StreamableHttpClientTransport::from_config(config);
        let read = Arc::default();
        let person = Person { says, read };
        let client = person
            .clone()
            .serve_with_lifecycle(transport, mode)
            .await
            .unwrap();
        let result = client
            .call_tool(call("drop", json!({"db": "users"})))
            .await
            .unwrap();
        client.cancel().await.unwrap();
        let read = person.read.lock().clone();
        (result, read)
    }
}

fn yes() -> ElicitResult {
    ElicitResult::new(ElicitationAction::Accept).with_content(json!({"confirm": true}))
}

#[tokio::test]
async fn a_person_is_asked_in_both_eras_and_only_a_yes_runs_the_tool() {
    let house = house().await;
    for (runs, mode) in [(1, modern()), (2, legacy())] {
        let (result, read) = house.with_person(mode.clone(), yes()).await;
        assert_eq!(
            result.structured_content,
            Some(json!({"db": "users"})),
            "{result:?}"
        );
        assert_eq!(read.len(), 1);
        assert!(
            read[0].contains("drop") && read[0].contains("\"db\": \"users\""),
            "{read:?}"
        );

        let no = ElicitResult::new(ElicitationAction::Accept).with_content(json!({"confirm": false}));
        for says in [
            ElicitResult::new(ElicitationAction::Decline),
            ElicitResult::new(ElicitationAction::Cancel),
            no,
        ] {
            let (result, _) = house.with_person(mode.clone(), says).await;
            assert_eq!(result.structured_content.unwrap()["error"]["code"], "declined");
        }
        assert_eq!(
            house.rest.all_executions().len(),
            runs,
            "what was declined is not even queued"
        );
    }
}

fn params(arguments: &Value, state: &Value, action: &str) -> Value {
    json!({
        "name": "drop",
        "arguments": arguments,
        "requestState": state,
        "inputResponses": {"confirm": {"action": action, "content": {"confirm": true}}},
    })
}

#[tokio::test]
async fn an_agreement_is_for_one_run_of_one_call_by_one_key() {
    let mut house = house().await;
    let can = json!({"elicitation": {"form": {}}});
    let arguments = json!({"db": "users"});
    let first = json!({"name": "drop", "arguments": arguments});
    let asked = house.able(&house.key, &can, "tools/call", first).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let state = asked["result"]["requestState"].clone();
    let other = house.rest.key(house.tenant, ALL);
    let mut tampered = state.as_str().unwrap().to_owned();
    let last = if tampered.ends_with('A') { "B" } else { "A" };
    tampered.replace_range(tampered.len() - 2..tampered.len() - 1, last);
    for (key, arguments, state) in [
        (&other, arguments.clone(), state.clone()),
        (&house.key, json!({"db": "orders"}), state.clone()),
        (&house.key, arguments.clone(), json!(tampered)),
        (&house.key, arguments.clone(), json!("nonsense")),
        (&house.key, arguments.clone(), Value::Null),
    ] {
        let again = house
            .able(key, &can, "tools/call", params(&arguments, &state, "accept"))
            .await;
        assert_eq!(again["result"]["resultType"], "input_required", "{again}");
    }
    assert!(house.rest.all_executions().is_empty());

    // Any replica takes the answer, and the same answer again is the same run.
    let there = replica(house.rest_address, |_| ()).await;
    let here = std::mem::replace(&mut house.url, format!("http://{}/mcp", there.http));
    house.until_tools(8).await;
    let ran = house
        .able(
            &house.key,
            &can,
            "tools/call",
            params(&arguments, &state, "accept"),
        )
        .await;
    assert_eq!(ran["result"]["structuredContent"], arguments, "{ran}");
    house.url = here;
    let again = house
        .able(
            &house.key,
            &can,
            "tools/call",
            params(&arguments, &state, "accept"),
        )
        .await;
    assert_eq!(again["result"], ran["result"]);
    assert_eq!(house.rest.all_executions().len(), 1);
}

#[tokio::test]
async fn where_nobody_can_be_asked_an_approval_is_waited_for() {
    let house = house().await;
    let waits = house.call(&house.key, "drop", json!({"db": "users"})).await;
    let execution = house.rest.all_executions().pop().unwrap();
    let result = &waits["result"];
    assert_eq!(result["isError"], false, "{waits}");
    let told = &result["structuredContent"];
    assert_eq!(
        (
            &told["status"],
            &told["execution_id"],
            &told["approve"]["body"]["digest"]
        ),
        (
            &json!("awaiting_approval"),
            &json!(execution.id),
            &json!(execution.digest)
        )
    );
    // A key that may go without is not asked, whoever sits there.
    let unattended = house.rest.key(house.tenant, &format!("{ALL},tools:unattended"));
    let can = json!({"elicitation": {}});
    let params = json!({"name": "drop", "arguments": {"db": "users"}});
    let ran = house.able(&unattended, &can, "tools/call", params).await;
    assert_eq!(
        ran["result"]["structuredContent"],
        json!({"db": "users"}),
        "{ran}"
    );
    // Nobody is asked about what would be refused: this key may not run tools at all.
    let reader = house.rest.key(house.tenant, "tools:read");
    let params = json!({"name": "drop", "arguments": {}});
    let refused = house.able(&reader, &can, "tools/call", params).await;
    assert_eq!(
        refused["result"]["structuredContent"]["error"]["code"], "missing_scope",
        "{refused}"
    );
}
