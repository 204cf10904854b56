//! `query_metrics`: PromQL, at a moment or over a range.

use super::{
    answer::{self, Answer},
    series,
};
use crate::{
    outcome::{Code, Failure},
    sources::{
        Access, Answered, Kind, promql,
        time::{self, Range},
    },
    tools::built_in::{BuiltIn, Desk},
};
use domain::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(400 * 86_400);
/// How many points of a series are asked for, where the caller names no step: enough for its peaks to be there.
const RESOLUTION: u32 = 121;
/// The most points of a series that may be asked for.
const MAX_RESOLUTION: u64 = 2000;
const POINTS: u32 = 20;
const MAX_POINTS: u32 = 60;
/// A longer query is posted, for not everything in between takes long addresses.
const MAX_IN_ADDRESS: usize = 1500;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// PromQL
    query: String,
    /// Makes it a range: RFC 3339, Unix seconds or -1h
    start: Option<String>,
    /// Default now
    end: Option<String>,
    /// E.g. 5m; chosen by default
    step: Option<String>,
    /// When, without a range; default now
    time: Option<String>,
    /// Points a series, at most 60; default 20
    #[schemars(range(min = 1, max = 60))]
    points: Option<u32>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "query_metrics";
    const TITLE: &'static str = "Query metrics";
    const DESCRIPTION: &'static str = "Runs PromQL: one value a series, or with start or end a range, each series \
        summarised (min, max, avg, last, few points). The 50 biggest series are shown; aggregate for fewer.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Prometheus, arguments.source.as_deref(), &desk.who)?;
        let query = promql::enforce(&arguments.query, access.matchers())?;
        let mut answer = Answer::from(&access);
        match arguments.start.is_none() && arguments.end.is_none() {
            true => instant(&access, query, &arguments, desk.now, &mut answer).await?,
            false => range(&access, query, &arguments, desk.now, &mut answer).await?,
        }
        Ok(answer.finish("series"))
    }
}

async fn instant(
    access: &Access,
    query: String,
    arguments: &Arguments,
    now: Time,
    answer: &mut Answer,
) -> Result<(), Failure> {
    if arguments.step.is_some() {
        return Err(invalid("a step needs a start or an end"));
    }
    let at = arguments
        .time
        .as_deref()
        .map_or(Ok(now), |time| time::parse(time, now))?;
    let parameters = [("query", query), ("time", time::unix(at)), timeout(access)];
    let answered = ask(access, "/api/v1/query", &parameters).await?;
    let data = series::data(access, answered, answer)?;
    let kind = data["resultType"].as_str().unwrap_or_default();
    answer.set("type", kind).set("time", answer::time(at));
    let points = match kind {
        "scalar" => {
            let value = data["result"][1].as_str().and_then(|value| value.parse().ok());
            answer.set("value", value.map_or(Value::Null, answer::number));
            return Ok(());
        }
        "string" => {
            let text = data["result"][1].as_str().unwrap_or_default();
            answer.set("value", answer::cut(text, 1000));
            return Ok(());
        }
        // `x[5m]` has the points that were scraped.
        "matrix" => Some(shown(arguments)?),
        _ => None,
    };
    tell(access, data, points, answer)
}

async fn range(
    access: &Access,
    query: String,
    arguments: &Arguments,
    now: Time,
    answer: &mut Answer,
) -> Result<(), Failure> {
    if arguments.time.is_some() {
        return Err(invalid("time is for one moment; a range has start and end"));
    }
    let points = shown(arguments)?;
    let (start, end) = (arguments.start.as_deref(), arguments.end.as_deref());
    let range = Range::parse(start, end, HOUR, LONGEST, now)?;
    let step = step(arguments.step.as_deref(), &range)?;
    let parameters = [
        ("query", query),
        ("start", time::unix(range.start)),
        ("end", time::unix(range.end)),
        ("step", format!("{}.{:03}", step.as_secs(), step.subsec_millis())),
        timeout(access),
    ];
    let answered = ask(access, "/api/v1/query_range", &parameters).await?;
    let data = series::data(access, answered, answer)?;
    answer
        .set("type", "range")
        .set("start", answer::time(range.start))
        .set("end", answer::time(range.end))
        .set("step", time::short(step));
    let taken = range.length().as_millis() / step.as_millis().max(1) + 1;
    if taken > points as u128 {
        answer.note(format!(
            "min, max and avg are of up to {taken} points a series; those shown are means"
        ));
    }
    tell(access, data, Some(points), answer)
}

fn tell(access: &Access, data: Answered, points: Option<usize>, answer: &mut Answer) -> Result<(), Failure> {
    let is_histogram = |entry: &Value| !entry["histogram"].is_null() || !entry["histograms"].is_null();
    let histograms = data["result"]
        .as_array()
        .is_some_and(|list| list.iter().any(is_histogram));
    let series = data.part("/result").read(|list| series::read(access, list))?;
    if series.is_empty() {
        answer.note(match promql::selector(access.matchers()) {
            None => "nothing matches; list_metrics finds names".to_owned(),
            Some(selector) => {
                format!("nothing matches of what you may see, {selector}; list_metrics finds names")
            }
        });
    }
    if histograms {
        answer.note("native histograms are shown as their number of observations; use histogram_quantile()");
    }
    series::tell(answer, series, points);
    Ok(())
}

/// How many points of a series are shown.
fn shown(arguments: &Arguments) -> Result<usize, Failure> {
    let points = arguments.points.unwrap_or(POINTS);
    if !(1..=MAX_POINTS).contains(&points) {
        return Err(invalid("points must be 1 to 60"));
    }
    Ok(points as usize)
}

fn step(told: Option<&str>, range: &Range) -> Result<Duration, Failure> {
    let Some(told) = told else {
        return Ok(time::step(range, RESOLUTION));
    };
    let seconds = told.trim().parse().ok().map(Duration::from_secs);
    let step = seconds.map_or_else(|| time::duration(told), Ok)?;
    if step.is_zero() {
        return Err(invalid("the step must be longer than nothing"));
    }
    if range.length().as_millis() / step.as_millis().max(1) > u128::from(MAX_RESOLUTION) {
        return Err(invalid("the step makes more than 2000 points; take a longer one"));
    }
    Ok(step)
}

/// It need not go on working when nobody waits any more.
fn timeout(access: &Access) -> (&'static str, String) {
    ("timeout", format!("{}ms", access.settings().timeout.as_millis()))
}

async fn ask(access: &Access, path: &str, parameters: &[(&str, String)]) -> Result<Answered, Failure> {
    let length: usize = parameters.iter().map(|(_, value)| value.len()).sum();
    if length > MAX_IN_ADDRESS {
        access.post_form(path, parameters).await
    } else {
        access.get(path, parameters).await
    }
}

fn invalid(message: &str) -> Failure {
    Failure::new(Code::InvalidArguments, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, sources},
    };
    use serde_json::json;

    const INSTANT: &str = "/api/v1/query";
    const RANGE: &str = "/api/v1/query_range";

    fn success(kind: &str, result: &Value) -> Value {
        json!({ "status": "success", "data": { "resultType": kind, "result": result } })
    }

    #[tokio::test]
    async fn one_moment_has_a_value_a_series() {
        let fake = Fake::start().await;
        let result = json!([
            { "metric": { "__name__": "up", "job": "b" }, "value": [1_793_620_800.123, "0.123456"] },
            { "metric": { "__name__": "up", "job": "a" }, "value": [1_793_620_800.123, "NaN"] },
            { "metric": { "__name__": "up", "job": "c" }, "value": [1_793_620_800.123, "7"] },
        ]);
        let mut answered = success("vector", &result);
        answered["warnings"] = json!(["partial response"]);
        fake.on(INSTANT, answered);
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({ "query": "up", "time": "-5m" }))
            .await
            .unwrap();
        let series = json!([
            { "labels": { "__name__": "up", "job": "c" }, "value": 7 },
            { "labels": { "__name__": "up", "job": "b" }, "value": 0.1235 },
            { "labels": { "__name__": "up", "job": "a" }, "value": "NaN" },
        ]);
        let expected = json!({
            "source": "main",
            "type": "vector",
            "time": "2026-11-02T11:55:00Z",
            "series": series,
            "notes": ["partial response"],
        });
        assert_eq!(answer, expected);
        let asked = fake.last();
        assert_eq!((asked.method.as_str(), asked.param("query")), ("GET", "up"));
        assert_eq!(
            (asked.param("time"), asked.param("timeout")),
            ("1793620500.000", "2000ms")
        );
    }

    #[tokio::test]
    async fn a_range_is_summarised() {
        let fake = Fake::start().await;
        let values: Vec<Value> = (0..120)
            .map(|i| {
                json!([
                    1_793_617_200 + i * 30,
                    if i == 60 {
                        "500".into()
                    } else {
                        (i % 2).to_string()
                    }
                ])
            })
            .collect();
        fake.on(
            RANGE,
            success("matrix", &json!([{ "metric": { "job": "a" }, "values": values }])),
        );
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let arguments = json!({ "query": "rate(x[5m])", "start": "-1h", "points": 4 });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        assert_eq!(
            (&answer["type"], &answer["step"]),
            (&json!("range"), &json!("30s"))
        );
        let series = &answer["series"][0];
        assert_eq!(
            (&series["min"], &series["max"], &series["last"]),
            (&json!(0), &json!(500), &json!(1))
        );
        assert_eq!(series["max_at"], "2026-11-02T11:30:00Z");
        let points = series["points"].as_array().unwrap();
        assert_eq!(points.len(), 4);
        assert_eq!(points[0], json!(["2026-11-02T11:00:00Z", 0.5]));
        let asked = fake.last();
        assert_eq!(
            (asked.param("start"), asked.param("step")),
            ("1793617200.000", "30.000")
        );
    }

    #[tokio::test]
    async fn what_a_tenant_asks_is_restricted_however_long_it_is() {
        let fake = Fake::start().await;
        fake.on("/api/v1/query*", success("vector", &json!([])));
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let long = format!("up or up{{job=\"{}\"}}", "x".repeat(2000));
        for query in ["up", &long] {
            let answer = call_for::<Tool>(&sources, "acme", json!({ "query": query }))
                .await
                .unwrap();
            assert!(
                answer["notes"][0]
                    .as_str()
                    .unwrap()
                    .contains(r#"{tenant_id="acme"}"#),
                "{answer}"
            );
            let asked = fake.last();
            let enforced = asked.param("query").matches(r#"tenant_id="acme""#).count();
            assert_eq!(enforced, query.matches("up").count());
            assert_eq!(asked.method, if query == "up" { "GET" } else { "POST" });
        }
        let unknown = call_for::<Tool>(&sources, "rival", json!({ "query": "up" }))
            .await
            .unwrap_err();
        assert_eq!(unknown.code, Code::UnknownSource);
    }

    #[tokio::test]
    async fn many_series_are_cut_and_told() {
        let fake = Fake::start().await;
        let series = |i: u32| {
            let values: Vec<Value> = (0..60)
                .map(|t| json!([1_793_617_200 + t * 60, format!("{i}.{t}")]))
                .collect();
            json!({ "metric": { "instance": format!("10.0.0.{i}:9090"), "pad": "x".repeat(100) }, "values": values })
        };
        let all: Vec<Value> = (0..120).map(series).collect();
        fake.on(RANGE, success("matrix", &all.into()));
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let arguments = json!({ "query": "x", "start": "-1h", "points": 60 });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        assert!(answer.to_string().len() <= answer::MAX_BYTES);
        let shown = answer["series"].as_array().unwrap();
        assert_eq!(answer["truncated"], json!({ "shown": shown.len(), "of": 120 }));
        assert_eq!(shown[0]["labels"]["instance"], "10.0.0.119:9090");
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_refused() {
        let fake = Fake::start().await;
        let told = json!({ "status": "error", "errorType": "bad_data", "error": "1:3: parse error: unexpected end" });
        fake.on_status("/api/v1/query", 400, told.to_string());
        let slow =
            json!({ "status": "error", "errorType": "timeout", "error": "query timed out in expression" });
        fake.on_status("/api/v1/query_range", 503, slow.to_string());
        let sources = sources([("main", Kind::Prometheus, &fake.url)]);
        let failed = async |arguments: Value| call::<Tool>(&sources, arguments).await.unwrap_err();
        for arguments in [
            json!({ "query": "" }),
            json!({ "query": "up", "time": "soon" }),
            json!({ "query": "up", "step": "5m" }),
            json!({ "query": "up", "start": "-1h", "time": "now" }),
            json!({ "query": "up", "start": "-1h", "end": "-2h" }),
            json!({ "query": "up", "start": "-1h", "step": "0s" }),
            json!({ "query": "up", "start": "-1d", "step": "1s" }),
            json!({ "query": "up", "start": "-1h", "points": 61 }),
            json!({ "query": "up", "unknown": 1 }),
            json!({}),
        ] {
            assert_eq!(
                failed(arguments.clone()).await.code,
                Code::InvalidArguments,
                "{arguments}"
            );
        }
        assert!(fake.asked().is_empty());
        let failure = failed(json!({ "query": "up(" })).await;
        assert_eq!(failure.code, Code::InvalidArguments);
        assert!(
            failure.message.contains("1:3: parse error"),
            "{}",
            failure.message
        );
        assert_eq!(
            failed(json!({ "query": "up", "start": "-1h" })).await.code,
            Code::Timeout
        );
        let failure = failed(json!({ "query": "up", "source": "other" })).await;
        assert_eq!(failure.code, Code::UnknownSource);
        assert!(failure.message.contains("main"), "{}", failure.message);
    }

    #[tokio::test]
    async fn it_endures_a_bad_source() {
        endures::<Tool>(Kind::Prometheus, INSTANT, json!({ "query": "up" })).await;
        endures::<Tool>(Kind::Prometheus, RANGE, json!({ "query": "up", "start": "-1h" })).await;
    }
}
