//! What a key's rules leave of the tools.

use crate::support::{ALL, House};
use domain::{ToolRule, ToolRules};
use serde_json::{Value, json};

#[tokio::test]
async fn a_limited_key_sees_and_calls_only_its_tools() {
    let house = House::start().await;
    for tool in ["echo", "boom"] {
        house.rest.register(house.tenant, tool);
    }
    house.until_tools(9).await;
    let mine = json!({"properties": {"name": {"pattern": "^mine-"}}});
    let rules = [
        ("ec*", None),
        ("context_list", None),
        ("context_create", mine.as_object().cloned()),
    ];
    let rule = |(tools, arguments): (&str, _)| ToolRule {
        tools: tools.to_owned(),
        arguments,
    };
    let rules = ToolRules::limited(rules.map(rule).into()).unwrap();
    let key = house.rest.limited_key(house.tenant, ALL, rules);
    let (_, list) = house.modern(&key, "tools/list", json!({})).await;
    let names = list["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["name"]);
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["context_create", "context_list", "echo"]
    );

    let echoed = house.call(&key, "echo", json!({"a": 1})).await;
    assert_eq!(echoed["result"]["structuredContent"], json!({"a": 1}));
    let made = |name: &str| json!({"name": name});
    let allowed = house.call(&key, "context_create", made("mine-1")).await;
    assert_eq!(allowed["result"]["isError"], false, "{allowed}");
    let refused = house.call(&key, "context_create", made("yours")).await;
    assert_eq!(
        refused["result"]["structuredContent"]["error"]["code"],
        "arguments_not_allowed"
    );
    // What it may not see is not there: the answers differ in the name only.
    let mut answers = Vec::new();
    for hidden in ["boom", "context_delete", "no-such-tool"] {
        let params = json!({"name": hidden, "arguments": {}});
        let (status, answer): (u16, Value) = house.modern(&key, "tools/call", params).await;
        answers.push((status, answer.to_string().replace(hidden, "X")));
    }
    assert!(answers.iter().all(|answer| *answer == answers[2]), "{answers:?}");
    assert!(answers[2].1.contains("unknown_tool"));
    assert_eq!(house.rest.all_executions().len(), 1);
}
