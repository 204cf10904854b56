//! What an agent is shown of a tool's result: the tool's selection, and its bound.

use crate::{Outcome, text};
use e2e::{Backend, Era, Json, Stack, Target, mcp};
use serde_json::json;

#[tokio::test]
async fn an_agent_is_shown_the_selection_and_the_whole_is_kept() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let stack = Stack::builder(backend).allow_private().start().await?;
        let key = stack.tenant("acme", "all").await?;
        let rest = stack.rest(&key);
        let register = async |name: &str, options: Json| {
            let mut tool = json!({"name": name, "description": "d", "url": target.url("/echo/{n}")});
            for (option, value) in options.as_object().into_iter().flatten() {
                tool[option] = value.clone();
            }
            rest.post("/api/v1/tools", &tool).await
        };
        for (bad, told) in [
            (json!({"selection": "body.["}), "selection"),
            (json!({"selection": "size(body)"}), "selection"),
            (json!({"selection": "[".repeat(4096)}), "selection"),
            (json!({"max_result_bytes": 1}), "max_result_bytes"),
            (json!({"retry": {"max_attempts": 0}}), "retry.max_attempts"),
        ] {
            let problem = register("bad", bad).await?.problem(400, "invalid_argument")?;
            assert_eq!(problem["field"], told, "{problem}");
        }
        for unknown in [json!({"selektion": "body"}), json!({"retry": {"attempts": 3}})] {
            register("bad", unknown).await?.problem(422, "invalid_body")?;
        }

        let options = json!({
            "selection": "body.{way: method, where: uri}", "max_result_bytes": 1000,
            "retry": {"max_attempts": 2, "initial_backoff_ms": 10, "max_backoff_ms": 20},
            "places": {"page": {"in": "query", "name": "number", "style": "form"}},
        });
        let tool = register("picked", options.clone()).await?.expect(201)?;
        for (option, value) in options.as_object().into_iter().flatten() {
            assert_eq!(&tool[option], value, "{option}");
        }
        register("missed", json!({"selection": "body.missing"}))
            .await?
            .expect(201)?;

        let selected = json!({"way": "GET", "where": "/echo/1"});
        let call = json!({"arguments": {"n": 1}});
        let path = "/api/v1/tools/picked/execute";
        let whole = rest.post(path, &call).await?.expect(200)?;
        assert_eq!(whole["result"]["body"]["uri"], "/echo/1", "{whole}");
        let shown = rest
            .post(&format!("{path}?view=selected"), &call)
            .await?
            .expect(200)?;
        assert_eq!(
            (&shown["result"], &shown["not_selected"]),
            (&selected, &Json::Null)
        );
        let path = format!("/api/v1/executions/{}", text(&whole, "id"));
        let shown = rest.get(&format!("{path}?view=selected")).await?.expect(200)?;
        assert_eq!(shown["result"], selected);
        let path = "/api/v1/tools/missed/execute?view=selected";
        let shown = rest.post(path, &call).await?.expect(200)?;
        assert_eq!(shown["result"]["body"]["uri"], "/echo/1");
        assert!(text(&shown, "not_selected").contains("finds nothing"), "{shown}");

        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            client.wait_for_tool("picked").await?;
            client.wait_for_tool("missed").await?;
            assert_eq!(
                client.structured("picked", &json!({"n": 1})).await?,
                selected,
                "{era:?}"
            );
            let whole = client.call("missed", &json!({"n": 1})).await?;
            assert!(mcp::text(&whole).contains("finds nothing"), "{era:?}: {whole:?}");
            client.close().await;
        }
    }
    Ok(())
}
