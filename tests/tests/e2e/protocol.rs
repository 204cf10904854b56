//! What breaks the protocol itself is refused with the protocol's own errors.

use crate::Outcome;
use e2e::{
    Backend, Era, Json, Stack,
    raw::{self, META},
    rest::Answer,
    stack::{MCP_SERVER, REST_API},
};
use serde_json::json;

/// The code of a JSON-RPC error.
fn rpc_error(answer: &Answer) -> anyhow::Result<(u16, i64, Json)> {
    let response = raw::response(answer)?;
    let error = &response["error"];
    let code = error["code"]
        .as_i64()
        .ok_or_else(|| anyhow::anyhow!("no error: {}", answer.text))?;
    Ok((answer.status.as_u16(), code, error.clone()))
}

#[tokio::test]
async fn what_breaks_the_protocol() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, MCP_SERVER])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let raw = stack.raw(&key);

    // An unsupported version, in header and body; then in the body alone.
    let params = |version: &str| {
        json!({"_meta": {
            format!("{META}protocolVersion"): version, format!("{META}clientCapabilities"): {},
        }})
    };
    let list = |header: &str, body: &str| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params(body)});
        raw.post()
            .header("mcp-protocol-version", header)
            .header("mcp-method", "tools/list")
            .json(&message)
    };
    let answer = Answer::read(list("2099-01-01", "2099-01-01").send().await?).await?;
    let (status, code, error) = rpc_error(&answer)?;
    assert_eq!((status, code), (400, -32022), "{error}");
    let supported = error["data"]["supported"].to_string();
    assert!(
        Era::ALL.iter().all(|era| supported.contains(era.version())),
        "{error}"
    );
    let answer = Answer::read(list(Era::Modern.version(), "2099-01-01").send().await?).await?;
    assert_eq!(rpc_error(&answer)?.0, 400);

    // A header that contradicts the body.
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "context_delete", "arguments": {"id": "x"}, "_meta": params(Era::Modern.version())["_meta"],
    }});
    let request = raw
        .post()
        .header("mcp-protocol-version", Era::Modern.version())
        .header("mcp-method", "tools/call");
    let answer = Answer::read(
        request
            .header("mcp-name", "context_get")
            .json(&call)
            .send()
            .await?,
    )
    .await?;
    let (status, code, _) = rpc_error(&answer)?;
    assert_eq!((status, code), (400, -32020));

    let (status, code, _) = rpc_error(&raw.call("tools/destroy", json!({})).await?)?;
    assert_eq!((status, code), (404, -32601));
    let (_, code, _) = rpc_error(
        &raw.call("resources/read", json!({"uri": "context://nope"}))
            .await?,
    )?;
    assert_eq!(code, -32602);

    // Origin and Host.
    let answer = Answer::read(
        raw.modern("tools/list", json!({}))
            .header("origin", "https://evil.example")
            .send()
            .await?,
    )
    .await?;
    answer.problem(403, "forbidden_origin")?;
    let answer = Answer::read(
        raw.modern("tools/list", json!({}))
            .header("host", "evil.example")
            .send()
            .await?,
    )
    .await?;
    answer.problem(403, "forbidden_host")?;
    stack
        .wait_metric(
            MCP_SERVER,
            "http_requests_total",
            &[("path", "/mcp"), ("status", "403")],
            |n| n == 2.0,
        )
        .await?;

    // A legacy client of an unknown version is offered one that there is.
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {"name": "old", "version": "0"},
    }});
    let answer = Answer::read(raw.post().json(&initialize).send().await?).await?;
    let offered = raw::response(&answer)?["result"]["protocolVersion"].clone();
    assert_eq!(offered, json!(Era::Legacy.version()), "{}", answer.text);
    Ok(())
}
