use super::*;
use crate::{
    context::{Request, RequestId, Sampling, spanless},
    settings::Field,
    traces,
};
use opentelemetry::trace::TraceContextExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

const INFO: ServiceInfo = ServiceInfo {
    name: "rest-api",
    version: "1.2.3",
};

/// What was written, once the writer's thread has written it.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(shape: Shape, level: &str, fields: &[Field], f: impl FnOnce()) -> String {
    let output = Output::default();
    let (writer, guard) = Writer::new(output.clone()).unwrap();
    let lines = Lines::new(shape, Fields::of(fields), writer);
    let subscriber = subscriber(Directives::new(level).unwrap(), lines, traces::testing::tracer());
    tracing::subscriber::with_default(subscriber, f);
    drop(guard);
    String::from_utf8(output.0.lock().clone()).unwrap()
}

pub(crate) fn as_json(level: &str, f: impl FnOnce()) -> Vec<Value> {
    let text = logged(Shape::json(&INFO, "staging"), level, &Field::DEFAULT, f);
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn request() -> (Request, opentelemetry::Context) {
    let request = Request::new(RequestId::parse("req-1").unwrap(), None, Sampling::Head);
    request.set_tenant("acme".into());
    let cx = opentelemetry::Context::new().with_value(request.clone());
    let cx = spanless(&cx, request.trace_id(), Default::default());
    (request, cx)
}

#[test]
fn a_line_is_one_json_object_with_every_field() {
    let (request, cx) = request();
    let lines = as_json("info", || {
        let _request = cx.clone().attach();
        let error = std::io::Error::other("disk\nfull");
        tracing::warn!(
            target: "rest_api::store",
            count = 3,
            share = 0.5,
            ok = true,
            r#type = "a \"b\"",
            level = "fake",
            error = &error as &dyn std::error::Error,
            nothing = f64::NAN,
            "written\n{}",
            "twice"
        );
    });
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(
        chrono::DateTime::parse_from_rfc3339(timestamp).is_ok() && timestamp.ends_with('Z'),
        "{timestamp}"
    );
    let mut rest = line.clone();
    rest.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(
        rest,
        json!({
            "level": "WARN", "service": "rest-api", "version": "1.2.3", "environment": "staging",
            "target": "rest_api::store", "message": "written\ntwice",
            "trace_id": request.trace_id().to_string(), "span_id": cx.span().span_context().span_id().to_string(),
            "request_id": "req-1", "tenant": "acme",
            "count": 3, "share": 0.5, "ok": true, "type": "a \"b\"", "event.level": "fake",
            "error": "disk\nfull", "nothing": null,
        })
    );
}

#[test]
fn outside_a_request_there_are_no_ids() {
    let lines = as_json("info", || tracing::info!("started"));
    assert_eq!(lines.len(), 1);
    for absent in ["trace_id", "span_id", "request_id", "tenant"] {
        assert!(lines[0].get(absent).is_none(), "{absent}");
    }
}

#[test]
fn optional_fields_come_when_listed_and_the_others_stay() {
    let (_, cx) = request();
    let text = logged(
        Shape::json(&INFO, "staging"),
        "info",
        &[Field::Source, Field::Thread],
        || {
            let _request = cx.attach();
            tracing::info!("x");
        },
    );
    let line: Value = serde_json::from_str(&text).unwrap();
    assert!(line["source"].as_str().unwrap().contains("tests.rs:"));
    assert!(line.get("thread").is_some() && line.get("tenant").is_none());
    assert!(line.get("service").is_some() && line.get("span_id").is_some());
}

#[test]
fn a_value_that_logs_while_it_is_printed_does_no_harm() {
    struct Chatty;
    impl std::fmt::Debug for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!("inner");
            f.write_str("chatty")
        }
    }
    let lines = as_json("info", || tracing::info!(value = ?Chatty, "outer"));
    // Whether the inner one is written is for `tracing` to say; the outer one is whole in any case.
    let outer = lines.last().unwrap();
    assert_eq!(
        (&outer["message"], &outer["value"]),
        (&json!("outer"), &json!("chatty"))
    );
}

#[test]
fn what_tells_tenants_contents_is_logged_by_no_directive() {
    let lines = as_json("trace,rmcp=trace", || {
        tracing::debug!(target: "rmcp::service", "a request with its arguments");
        tracing::info!(target: "rmcp::service", "said");
        tracing::trace!(target: "rmcp_like", "said");
    });
    let said: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(said, ["said", "said"]);
}

#[test]
fn only_the_debugged_request_logs_more_and_only_from_our_own_code() {
    let (debugged, debugged_cx) = request();
    let (_, other_cx) = request();
    let say = |who: &'static str| {
        tracing::debug!(target: "rest_api", who, "own");
        tracing::debug!(target: "h2", who, "peer");
    };
    let lines = as_json("info", || {
        say("before");
        debugged.set_debug();
        {
            let _request = debugged_cx.attach();
            say("debugged");
        }
        {
            let _request = other_cx.attach();
            say("other");
        }
        drop(debugged);
        say("after");
    });
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (&line["who"], &line["message"]))
        .collect();
    assert_eq!(seen, [(&json!("debugged"), &json!("own"))]);
}

#[test]
fn the_level_changes_at_once() {
    let directives = Directives::new("info").unwrap();
    let output = Output::default();
    let (writer, guard) = Writer::new(output.clone()).unwrap();
    let lines = Lines::new(Shape::json(&INFO, "test"), Fields::of(&[]), writer);
    let subscriber = subscriber(directives.clone(), lines, traces::testing::tracer());
    tracing::subscriber::with_default(subscriber, || {
        for level in ["info", "warn", "info,telemetry=debug"] {
            directives.set(level).unwrap();
            tracing::info!(level_was = level, "info");
            tracing::debug!(level_was = level, "debug");
        }
    });
    drop(guard);
    let text = String::from_utf8(output.0.lock().clone()).unwrap();
    let messages: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages, ["info", "info", "debug"]);
}

#[test]
fn a_line_for_people_is_one_line_and_without_control_characters() {
    let (_, cx) = request();
    let text = logged(
        Shape::Pretty { colour: false },
        "info",
        &[Field::RequestId],
        || {
            let _request = cx.attach();
            tracing::info!(name = "a\x1b[2Jb\nc", "two\nlines");
        },
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.contains(" INFO telemetry::logs::tests two\u{fffd}lines"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("request_id=req-1"), "{text}");
}
