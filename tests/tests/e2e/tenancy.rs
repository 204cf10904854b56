//! Whatever one tenant runs, waits for or schedules is not there for another, whichever door it tries.

use crate::{Outcome, text};
use e2e::{
    Backend, Json, Stack, Target,
    raw::{META, response},
    stack::REST_API,
    wait_for,
};
use http::Method;
use proto::v1::{
    GetExecutionRequest, ReadResultRequest, RunExecutionRequest, executions_client::ExecutionsClient,
};
use serde_json::json;
use tonic::{Code, Request, Status};

type Executions = ExecutionsClient<tonic::transport::Channel>;

fn of<T>(key: &str, message: T) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {key}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

async fn over_grpc(executions: &mut Executions, key: &str, id: &str) -> Outcome {
    let get = || of(key, GetExecutionRequest { id: id.to_owned() });
    assert_eq!(code(executions.get(get()?).await), Code::NotFound);
    assert_eq!(code(executions.follow(get()?).await), Code::NotFound);
    assert_eq!(code(executions.cancel(get()?).await), Code::NotFound);
    let read = ReadResultRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(code(executions.read_result(of(key, read)?).await), Code::NotFound);
    Ok(())
}

async fn over_mcp(stack: &Stack, key: &str, id: &str) -> Outcome {
    let raw = stack.raw(key);
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    for (method, params) in [
        ("tasks/get", json!({"taskId": id})),
        ("tasks/cancel", json!({"taskId": id})),
        ("resources/read", json!({"uri": format!("execution://{id}")})),
        (
            "resources/read",
            json!({"uri": format!("execution://{id}/result")}),
        ),
    ] {
        let mut params = params;
        params["_meta"][format!("{META}clientCapabilities")] = tasks.clone();
        let answer = response(&raw.call(method, params).await?)?;
        assert!(
            answer["error"]["data"]["code"] == "not_found",
            "{method}: {answer}"
        );
    }
    let template = json!({
        "ref": {"type": "ref/resource", "uri": "execution://{id}"},
        "argument": {"name": "id", "value": ""},
    });
    for (method, params) in [("completion/complete", template), ("resources/list", json!({}))] {
        let answer = raw.call(method, params).await?;
        anyhow::ensure!(
            response(&answer)?["result"].is_object(),
            "{method}: {}",
            answer.text
        );
        assert!(!answer.text.contains(id), "{method}: {}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn what_one_tenant_runs_is_not_there_for_another() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let stack = Stack::builder(backend).allow_private().start().await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let rival = stack.tenant("rival", "all").await?;
        let theirs = stack.rest(&rival);
        let tool = json!({"name": "held", "description": "d", "url": target.url("/held")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        let execute = "/api/v1/tools/held/execute";
        let later = [("prefer", "respond-async"), ("idempotency-key", "k1")];
        let body = json!({"arguments": {"secret": "ours"}});
        let queued = rest
            .send(Method::POST, execute, &later, Some(&body))
            .await?
            .expect(202)?;
        let id = text(&queued, "id").to_owned();
        wait_for("the call to arrive", async || {
            (target.seen().len() == 1).then_some(())
        })
        .await?;
        let schedule = json!({"name": "s", "tool": "held", "cron": "@yearly"});
        let schedule = rest.post("/api/v1/schedules", &schedule).await?.expect(201)?;
        let schedule = format!("/api/v1/schedules/{}", text(&schedule, "id"));

        let path = format!("/api/v1/executions/{id}");
        for path in [path.clone(), format!("{path}/attempts"), schedule.clone()] {
            theirs.get(&path).await?.problem(404, "not_found")?;
        }
        for (deed, body) in [
            ("cancel", json!({})),
            ("replay", json!({"acknowledge_unknown": true})),
            ("approve", json!({"digest": queued["digest"]})),
        ] {
            let refused = theirs.post(&format!("{path}/{deed}"), &body).await?;
            refused.problem(404, "not_found")?;
        }
        let off = json!({"enabled": false});
        theirs.patch(&schedule, &off).await?.problem(404, "not_found")?;
        theirs.delete(&schedule).await?.problem(404, "not_found")?;
        let missing = theirs.send(Method::POST, execute, &later, Some(&body)).await?;
        missing.problem(404, "not_found")?;
        for listing in [
            "/api/v1/executions?tool=held",
            "/api/v1/schedules",
            "/api/v1/tools",
        ] {
            let listed = theirs.get(listing).await?.expect(200)?;
            assert_eq!(listed["items"], Json::Array(Vec::new()), "{listing}");
        }
        let mut executions = Executions::new(stack.channel(REST_API)?);
        over_grpc(&mut executions, &rival, &id).await?;
        over_mcp(&stack, &rival, &id).await?;

        // Their own call under the same idempotency key is theirs.
        theirs.post("/api/v1/tools", &tool).await?.expect(201)?;
        let own = theirs
            .send(Method::POST, execute, &later, Some(&body))
            .await?
            .expect(202)?;
        assert_ne!(text(&own, "id"), id);
        let still = rest.get(&path).await?.expect(200)?;
        assert_eq!(
            (&still["status"], &still["cancel_requested"]),
            (&json!("running"), &json!(false))
        );
        target.release();
    }
    Ok(())
}

/// That a person confirmed a call is for a service to say, not for the caller.
#[tokio::test]
async fn a_caller_cannot_confirm_its_own_call() -> Outcome {
    let target = Target::start().await?;
    let stack = Stack::builder(Backend::Sqlite).allow_private().start().await?;
    let key = stack.tenant("acme", "all").await?;
    let tool = json!({
        "name": "drop", "description": "d", "url": target.url("/drop"), "method": "DELETE", "destructive": true,
    });
    stack.rest(&key).post("/api/v1/tools", &tool).await?.expect(201)?;
    let agent = stack.key("acme", "tools:read,tools:execute").await?;
    let mut executions = Executions::new(stack.channel(REST_API)?);
    for token in [None, Some("a-guess"), Some("")] {
        let run = RunExecutionRequest {
            tool: "drop".into(),
            arguments_json: "{}".into(),
            confirmed: true,
            ..Default::default()
        };
        let mut request = of(&agent, run)?;
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("devops-mcp-service-token", token.parse()?);
        }
        let queued = executions.enqueue(request).await?.into_inner();
        assert_eq!(queued.status, "awaiting_approval", "{token:?}");
    }
    assert_eq!(target.seen().len(), 0);
    Ok(())
}
