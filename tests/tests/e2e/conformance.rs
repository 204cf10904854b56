//! The official conformance suite against mcp-server's own stack, and what it does not look at closely.

use crate::Outcome;
use anyhow::Context;
use e2e::{
    Backend, Era, Json, Stack,
    conformance::{LEGACY, MODERN, Suite},
    process::{Process, free_port},
    raw::{self, Raw},
    rest::Answer,
    stack::REST_API,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    time::Instant,
};

/// How often the suite may run before a scenario that it lets fail counts as failed.
const ROUNDS: u32 = 3;

/// A real rest-api, and mcp-server's stack around the suite's fixtures, which is given a real key.
struct House {
    // Before the stack, in whose directory its log is.
    _server: Process,
    stack: Stack,
    port: u16,
    key: String,
}

impl House {
    async fn start() -> anyhow::Result<Self> {
        let builder = Stack::builder(Backend::Sqlite).services(&[REST_API]);
        let stack = builder.start().await?;
        let key = stack.tenant("acme", "all").await?;
        let port = free_port();
        let environment = BTreeMap::from([
            ("CONFORMANCE_KEY".to_owned(), key.clone()),
            (
                "DEVOPS_MCP__HTTP__ADDRESS".to_owned(),
                format!("127.0.0.1:{port}"),
            ),
            ("DEVOPS_MCP__REST_API__URL".to_owned(), stack.grpc(REST_API)),
            (
                "DEVOPS_MCP__MONITORING__TRACING__ENABLED".to_owned(),
                "false".to_owned(),
            ),
        ]);
        let mut server = Process::new("conformance", stack.directory(), environment)?;
        server.start().await?;
        Ok(Self {
            _server: server,
            stack,
            port,
            key,
        })
    }

    fn url(&self) -> String {
        format!("http://localhost:{}/mcp", self.port)
    }

    /// A call with the key, in the modern era; its result, or its error.
    async fn ask(&self, method: &str, params: Json) -> anyhow::Result<Json> {
        let raw = Raw::new(&self.url(), Some(&self.key));
        let response = raw::response(&raw.call(method, params).await?)?;
        let result = response.get("result").or_else(|| response.get("error"));
        result.cloned().context("neither result nor error")
    }
}

/// Says it past the test harness, which keeps to itself what passing tests print.
fn say(what: &str) {
    // Nobody may be reading.
    let _ = writeln!(io::stderr(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scored_scenario_passes() -> Outcome {
    let suite = match Suite::find().await {
        Ok(suite) => suite,
        // Where all is set up for it, nothing is left out.
        Err(error) if env::var_os("CI").is_some() || env::var_os("CONFORMANCE_DIR").is_some() => {
            return Err(error);
        }
        Err(error) => {
            say(&format!(
                "LEFT OUT: the MCP conformance suite ({error:#}; or set CONFORMANCE_DIR)"
            ));
            return Ok(());
        }
    };
    let house = House::start().await?;
    for (era, scored) in [(Era::Legacy, &LEGACY[..]), (Era::Modern, &MODERN)] {
        let clock = Instant::now();
        let output = |round: u32| house.stack.directory().join(format!("{}-{round}", era.version()));
        let mut report = suite.run(&house.url(), era, &output(0)).await?;
        // For how long the suite waits is fixed: on a busy machine it may look away before what it wants to see comes.
        // What is wrong is wrong every time.
        for round in 1..ROUNDS {
            let Err(error) = report.require(scored) else { break };
            say(&format!(
                "MCP conformance {}: once more, {error:#}",
                era.version()
            ));
            report = suite.run(&house.url(), era, &output(round)).await?;
        }
        let others = report
            .require(scored)
            .with_context(|| format!("revision {}", era.version()))?;
        let (passed, failed): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, scenario)| scenario.passed());
        say(&format!(
            "MCP conformance {}: {} of {} scored scenarios pass; of those not scored {} ({:.0?})",
            era.version(),
            scored.len(),
            scored.len(),
            passed.len(),
            clock.elapsed()
        ));
        for (name, scenario) in failed {
            say(&format!(
                "  not scored, without success: {name}{}",
                scenario.faults()
            ));
        }
    }
    Ok(())
}

/// The suite runs against the stack that guards the product: without that, its passing says little.
#[tokio::test]
async fn the_suite_meets_the_guarded_stack() -> Outcome {
    let house = House::start().await?;
    let stranger = Raw::new(&house.url(), Some("dmcp_nobody"));
    let answer = stranger.call("tools/list", json!({})).await?;
    assert_eq!(answer.status, 401, "{}", answer.text);
    let raw = Raw::new(&house.url(), None);
    for (header, value, status) in [
        ("host", "evil.example", 403),
        ("origin", "http://evil.example", 403),
        ("origin", "http://localhost:6274", 200),
    ] {
        let request = raw.modern("tools/list", json!({})).header(header, value);
        let answer = Answer::read(request.send().await?).await?;
        assert_eq!(answer.status, status, "{header}: {value}: {}", answer.text);
    }
    Ok(())
}

/// What the suite takes on trust: that an answer is the one that was given, and that a list of completions fits.
#[tokio::test]
async fn answers_reach_the_tool_that_asked() -> Outcome {
    let house = House::start().await?;
    let accepted = |content: Json| json!({ "action": "accept", "content": content });

    // Asked once: unknown answers are left aside, and what is no answer is asked for again.
    let tool = "test_input_required_result_elicitation";
    let answers = json!({ "user_name": accepted(json!({ "name": "Ada" })), "other": accepted(json!({})) });
    let result = house
        .ask("tools/call", json!({ "name": tool, "inputResponses": answers }))
        .await?;
    assert_eq!(result["content"][0]["text"], "Hello, Ada!");
    for answer in [
        json!(1),
        accepted(json!({ "name": 1 })),
        json!({ "action": "decline" }),
    ] {
        let params = json!({ "name": tool, "inputResponses": { "user_name": answer } });
        let result = house.ask("tools/call", params).await?;
        assert_eq!(result["resultType"], "input_required", "{answer}");
    }

    // Asked twice: the first answer travels in the state, which nobody else can make.
    let tool = "test_input_required_result_multi_round";
    let first = house.ask("tools/call", json!({ "name": tool })).await?;
    let round = |state: &Json, answers: Json| json!({ "name": tool, "requestState": state, "inputResponses": answers });
    let answers = json!({ "step1": accepted(json!({ "name": "Ada" })) });
    let second = house
        .ask("tools/call", round(&first["requestState"], answers))
        .await?;
    let answers = json!({ "step2": accepted(json!({ "color": "green" })) });
    let last = house
        .ask("tools/call", round(&second["requestState"], answers.clone()))
        .await?;
    assert_eq!(last["content"][0]["text"], "Ada likes green");
    let forged = house
        .ask("tools/call", round(&json!("e30.AAAA"), answers))
        .await?;
    assert_eq!(forged["code"], -32602, "{forged}");

    let reference = json!({ "type": "ref/prompt", "name": "test_prompt_with_arguments" });
    let argument = json!({ "name": "arg1", "value": "par" });
    let completed = house
        .ask(
            "completion/complete",
            json!({ "ref": reference, "argument": argument }),
        )
        .await?;
    assert_eq!(
        completed["completion"]["values"],
        json!(["paris", "park", "party"])
    );
    Ok(())
}

/// The suite is content with plain JSON for its concurrent calls. Here each is a stream, with its own notifications only.
#[tokio::test]
async fn concurrent_streams_do_not_mix() -> Outcome {
    let house = House::start().await?;
    let raw = Raw::new(&house.url(), Some(&house.key));
    let stream = async |token: &'static str| {
        let params = json!({ "name": "test_tool_with_progress", "_meta": { "progressToken": token } });
        let answer = raw.call("tools/call", params).await?;
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(raw::response(&answer)?["result"]["content"][0]["text"], "done");
        let events = answer.text.lines().filter_map(|line| line.strip_prefix("data:"));
        let messages = events.filter_map(|data| serde_json::from_str::<Json>(data).ok());
        let told = messages.filter(|message| message["method"] == "notifications/progress");
        let told: Vec<Json> = told.map(|message| message["params"].clone()).collect();
        assert!(
            told.iter().all(|params| params["progressToken"] == token),
            "{told:?}"
        );
        let progress: Vec<_> = told.iter().map(|params| params["progress"].as_f64()).collect();
        assert_eq!(progress, [Some(0.0), Some(50.0), Some(100.0)]);
        anyhow::Ok(())
    };
    tokio::try_join!(stream("a"), stream("b"), stream("c"))?;
    Ok(())
}
