//! `log_labels`: by what logs can be selected.

use super::{
    answer::Answer,
    logs::{self, RANGE},
};
use crate::{
    outcome::{Code, Failure},
    sources::{
        Access, Answered, Kind, logql,
        time::{self, Range},
    },
    tools::built_in::{BuiltIn, Desk},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How many values of a label are shown where it alone is asked for.
const MAX_VALUES: usize = 300;
/// How many of each are shown where all labels are.
const FEW_VALUES: usize = 15;
/// How many labels are shown with values.
const MAX_LABELS: usize = 20;
/// How many fields are shown.
const MAX_FIELDS: usize = 60;
/// How many requests are on their way at once.
const AT_ONCE: usize = 4;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// All values of this label
    label: Option<String>,
    /// Only of streams in this selector, e.g. {service="worker"}
    query: Option<String>,
    /// Default -1h
    start: Option<String>,
    /// Default now
    end: Option<String>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "log_labels";
    const TITLE: &'static str = "Labels of logs";
    const DESCRIPTION: &'static str = "Lists the labels that select log streams with their values, and the fields that \
        lines can be filtered by (| field=\"value\", those of JSON after | json).";
    const NEEDS: &'static [Kind] = &[Kind::Loki];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Loki, arguments.source.as_deref(), &desk.who)?;
        let (start, end) = (arguments.start.as_deref(), arguments.end.as_deref());
        let look = Look {
            range: Range::parse(start, end, RANGE.0, RANGE.1, desk.now)?,
            selector: match arguments.query.as_deref() {
                Some(query) => Some(logql::enforce_selector(query, access.matchers())?),
                None => logql::selector(access.matchers())?,
            },
            access,
        };
        match arguments.label.as_deref() {
            Some(label) => look.one(label).await,
            None => look.all().await,
        }
    }
}

struct Look {
    access: Access,
    range: Range,
    selector: Option<String>,
}

impl Look {
    fn answer(&self) -> Answer {
        let mut answer = Answer::from(&self.access);
        answer.set("start", time::rfc3339(self.range.start));
        answer.set("end", time::rfc3339(self.range.end));
        answer.set_some("query", self.selector.clone());
        answer
    }

    async fn get(&self, path: &str, selector: Option<&str>) -> Result<Answered, Failure> {
        let mut parameters = vec![
            ("start", time::nanos(self.range.start)),
            ("end", time::nanos(self.range.end)),
        ];
        parameters.extend(selector.map(|selector| ("query", selector.to_owned())));
        self.access
            .get(&format!("/loki/api/v1/{path}"), &parameters)
            .await
    }

    /// Names or values. Where there is none, Loki leaves the list away.
    async fn words(&self, path: &str) -> Result<Vec<String>, Failure> {
        let answer = self.get(path, self.selector.as_deref()).await?;
        let succeeded = answer["status"] == "success";
        let words = answer.part("/data").read(|words| match words {
            Value::Null if succeeded => Some(Vec::new()),
            words => serde_json::from_value(words).ok(),
        });
        words.ok_or_else(logs::not_of_loki)
    }

    /// The values of a label.
    async fn values(&self, label: &str) -> Result<Vec<String>, Failure> {
        self.words(&format!("label/{label}/values")).await
    }

    async fn one(&self, label: &str) -> Result<Value, Failure> {
        if !logql::is_label(label) {
            let message = "a label's name has letters, digits and _ only";
            return Err(Failure::new(Code::InvalidArguments, message));
        }
        let mut values = self.values(label).await?;
        let mut answer = self.answer();
        answer.set("label", label);
        if values.is_empty() {
            answer.note(
                "no stream has this label in this time; without `label` all labels and fields are listed",
            );
        }
        let of = values.len();
        values.truncate(MAX_VALUES);
        if values.len() < of {
            answer.truncated(values.len(), of);
            answer.note("narrow it with `query`, or match by a regular expression: {label=~\"…\"}");
        }
        answer.set("values", values);
        Ok(answer.finish("values"))
    }

    async fn all(&self) -> Result<Value, Failure> {
        let mut names = self.words("labels").await?;
        let of = names.len();
        names.truncate(MAX_LABELS);
        let each = stream::iter(names.clone()).map(|name| async move {
            let values = self.values(&name).await?;
            Ok::<_, Failure>(shown(&name, values))
        });
        let each = each.buffered(AT_ONCE).try_collect::<Vec<_>>();
        let (labels, fields) = tokio::join!(each, self.fields(&names));
        let mut answer = self.answer();
        answer.set("labels", labels?).truncated(names.len(), of);
        if of == 0 {
            answer.note("there are no logs in this time; `start` and `end` choose another");
        }
        match fields {
            Ok(fields) => {
                answer.set("fields", fields);
            }
            // Only newer versions of Loki know them, and they can be turned off there.
            Err(failure) => {
                answer.note(format!("the fields could not be had: {}", failure.message));
            }
        }
        Ok(answer.finish("labels"))
    }

    /// What a sample of the lines can be filtered by, beside the labels.
    async fn fields(&self, labels: &[String]) -> Result<Vec<String>, Failure> {
        let every = labels
            .iter()
            .find(|label| *label == "service_name")
            .or(labels.first());
        let every = every.map(|label| format!("{{{label}=~\".+\"}}"));
        let Some(selector) = self.selector.clone().or(every) else {
            return Ok(Vec::new());
        };
        let answer = self.get("detected_fields", Some(&selector)).await?;
        let fields = answer["fields"].as_array().into_iter().flatten();
        let names = fields.filter_map(|field| field["label"].as_str());
        // A field that has the name of a label is told as such.
        let other = |name: &&str| !name.ends_with("_extracted") && !labels.iter().any(|label| label == name);
        let mut names: Vec<String> = names.filter(other).map(str::to_owned).collect();
        names.sort_unstable();
        names.truncate(MAX_FIELDS);
        Ok(names)
    }
}

/// `{"label": …, "values": […], "more": n}`
fn shown(name: &str, mut values: Vec<String>) -> Value {
    let more = values.len().saturating_sub(FEW_VALUES);
    values.truncate(FEW_VALUES);
    let mut label = serde_json::json!({ "label": name, "values": values });
    if more > 0 {
        label["more"] = more.into();
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::observe::{
        endures::endures,
        testing::{Fake, call, call_for, sources},
    };
    use serde_json::json;

    /// Answers as Loki 3.7 does, shortened.
    async fn loki() -> Fake {
        let fake = Fake::start().await;
        fake.on(
            "/loki/api/v1/labels",
            json!({ "status": "success", "data": ["level", "service", "service_name"] }),
        );
        fake.on_fn("/loki/api/v1/label/*", |asked| match asked.path.as_str() {
            "/loki/api/v1/label/level/values" => json!({ "status": "success", "data": ["error", "info"] }),
            "/loki/api/v1/label/none/values" => json!({ "status": "success" }),
            _ => {
                json!({ "status": "success", "data": (0..400).map(|n| format!("s{n}")).collect::<Vec<_>>() })
            }
        });
        fake.on(
            "/loki/api/v1/detected_fields",
            json!({ "fields": [
                { "label": "trace_id", "type": "string", "cardinality": 40, "parsers": ["json"], "jsonPath": ["trace_id"] },
                { "label": "level_extracted", "type": "string", "cardinality": 2, "parsers": ["json"] },
                { "label": "detected_level", "type": "string", "cardinality": 2, "parsers": null },
                { "label": "level", "type": "string", "cardinality": 2, "parsers": null },
            ], "limit": 1000 }),
        );
        fake
    }

    #[tokio::test]
    async fn labels_come_with_values_and_fields() {
        let fake = loki().await;
        let sources = sources([("logs", Kind::Loki, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(
            answer["labels"][0],
            json!({ "label": "level", "values": ["error", "info"] })
        );
        assert_eq!(
            answer["labels"][1]["values"].as_array().unwrap().len(),
            FEW_VALUES
        );
        assert_eq!(answer["labels"][1]["more"], 400 - FEW_VALUES);
        assert_eq!(answer["fields"], json!(["detected_level", "trace_id"]));
        assert_eq!(answer["start"], "2026-11-02T11:00:00Z");
        let asked = fake.asked();
        assert!(asked.iter().take(1).all(|asked| asked.all("query").is_empty()));
        let fields = asked.iter().find(|asked| asked.path.ends_with("fields")).unwrap();
        assert_eq!(fields.param("query"), r#"{service_name=~".+"}"#);
    }

    #[tokio::test]
    async fn one_label_is_cut_and_says_so() {
        let fake = loki().await;
        let sources = sources([("logs", Kind::Loki, &fake.url)]);
        let arguments = json!({ "label": "service", "query": "{level=\"error\"} # bad", "start": "-2h" });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        assert_eq!(answer["truncated"], json!({ "shown": MAX_VALUES, "of": 400 }));
        assert_eq!(fake.last().param("query"), r#"{level="error"}"#);
        let answer = call::<Tool>(&sources, json!({ "label": "none" })).await.unwrap();
        assert_eq!(answer["values"], json!([]));
        assert_eq!(answer["notes"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_tenant_asks_for_its_own_streams_only() {
        let fake = loki().await;
        let sources = sources([("logs", Kind::Loki, &fake.url)]);
        for arguments in [
            json!({}),
            json!({ "label": "level" }),
            json!({ "query": "{a=\"b\"}" }),
        ] {
            call_for::<Tool>(&sources, "acme", arguments).await.unwrap();
        }
        for asked in fake.asked() {
            let own = asked.param("query").starts_with(r#"{tenant_id="acme""#);
            assert!(own && asked.all("query").len() == 1, "{asked:?}");
        }
        assert_eq!(fake.last().param("query"), r#"{tenant_id="acme", a="b"}"#);
        let failure = call_for::<Tool>(&sources, "globex", json!({})).await.unwrap_err();
        assert_eq!(failure.code, Code::UnknownSource);
    }

    #[tokio::test]
    async fn wrong_input_is_refused_before_anything_is_asked() {
        let fake = loki().await;
        let sources = sources([("logs", Kind::Loki, &fake.url)]);
        for arguments in [
            json!({ "label": "a/../../x" }),
            json!({ "label": "" }),
            json!({ "query": "level=error" }),
            json!({ "query": "{a=\"b\"} |= \"c\"" }),
            json!({ "start": "yesterday" }),
            json!({ "start": "-40d" }),
            json!({ "labels": "a" }),
        ] {
            let failure = call::<Tool>(&sources, arguments.clone()).await.unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
        }
        assert!(fake.asked().is_empty());
    }

    #[tokio::test]
    async fn what_loki_does_to_it() {
        endures::<Tool>(Kind::Loki, "/loki/api/v1/labels", json!({})).await;
        // Without the fields there are still labels.
        let fake = loki().await;
        fake.on_status("/loki/api/v1/detected_fields", 404, "404 page not found");
        let sources = sources([("logs", Kind::Loki, &fake.url)]);
        let answer = call::<Tool>(&sources, json!({})).await.unwrap();
        assert_eq!(answer["labels"].as_array().unwrap().len(), 3);
        assert!(answer["notes"][0].as_str().unwrap().contains("fields"));
    }
}
