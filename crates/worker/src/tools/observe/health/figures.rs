//! Figures that Prometheus has, by name.

use crate::{
    outcome::{Code, Failure},
    sources::{Access, promql, time},
    tools::observe::answer,
};
use domain::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The label that tells which of the figures of one query a sample is.
const FIGURE: &str = "figure";

/// How much of a label's value is told, in characters.
const MAX_VALUE: usize = 200;

/// A sample of an instant query.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Sample {
    /// Its labels.
    pub(in super::super) labels: BTreeMap<String, String>,
    /// Its value; never NaN.
    pub(in super::super) value: f64,
}

impl Sample {
    /// A label's value; empty without it.
    pub(in super::super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Its labels but for those that every sample of its query has.
    pub(in super::super) fn told(&self, hidden: &[&str]) -> Value {
        let told = self
            .labels
            .iter()
            .filter(|(name, value)| !hidden.contains(&name.as_str()) && *name != FIGURE && !value.is_empty());
        told.map(|(name, value)| (name.clone(), json!(answer::cut(value, MAX_VALUE))))
            .collect()
    }
}

/// Several queries in one: each sample tells by a label which of them it answers.
#[derive(Default)]
pub(in super::super) struct Figures(Vec<String>);

impl Figures {
    /// Adds a query by a name.
    pub(in super::super) fn add(&mut self, name: &str, query: &str) -> &mut Self {
        self.0.push(format!(
            r#"label_replace({query}, "{FIGURE}", {}, "", "")"#,
            quoted(name)
        ));
        self
    }

    /// The samples by the names of their queries. A query without samples has no entry.
    ///
    /// # Errors
    /// [`Failure`]
    pub(in super::super) async fn ask(
        &self,
        access: &Access,
        at: Time,
    ) -> Result<BTreeMap<String, Vec<Sample>>, Failure> {
        let mut found: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        if self.0.is_empty() {
            return Ok(found);
        }
        for sample in vector(access, &self.0.join(" or "), at).await? {
            let name = sample.label(FIGURE).to_owned();
            found.entry(name).or_default().push(sample);
        }
        Ok(found)
    }
}

/// What a query gives at a time, restricted to what the caller may see; without what is NaN.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn vector(access: &Access, query: &str, at: Time) -> Result<Vec<Sample>, Failure> {
    let query = promql::enforce(query, access.matchers())?;
    // Some of these queries are longer than a URL may be.
    let form = [("query", query), ("time", time::unix(at))];
    let answer = access.post_form("/api/v1/query", &form).await?;
    let samples = match answer["data"]["resultType"].as_str() {
        Some("vector") => answer["data"]["result"].as_array().map(Vec::as_slice),
        Some("scalar") => Some(std::slice::from_ref(&answer["data"])),
        _ => None,
    };
    let unexpected = || {
        Failure::new(
            Code::SourceError,
            "the answer to an instant query holds no samples",
        )
    };
    let samples = samples.ok_or_else(unexpected)?;
    Ok(samples.iter().filter_map(sample).collect())
}

fn sample(answered: &Value) -> Option<Sample> {
    let labels = answered["metric"].as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let value = answered.get("value").or_else(|| answered.get("result"))?;
    let value: f64 = value[1].as_str()?.parse().ok()?;
    (!value.is_nan()).then(|| Sample {
        labels: labels.collect(),
        value,
    })
}

/// A text as PromQL and Alertmanager quote it.
pub(in super::super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sources::Kind,
        tools::observe::testing::{self, Fake},
    };
    use domain::Scopes;

    fn access(fake: &Fake, tenant: &str, scopes: &Scopes) -> Access {
        let sources = testing::sources([("metrics", Kind::Prometheus, &fake.url)]);
        let who = crate::sources::Who {
            tenant,
            key_name: "k",
            scopes,
        };
        sources.pick(Kind::Prometheus, None, &who).unwrap()
    }

    #[tokio::test]
    async fn figures_of_one_query_are_told_apart_and_restricted() {
        let fake = Fake::start().await;
        fake.on(
            "/api/v1/query",
            json!({"status": "success", "data": {"resultType": "vector", "result": [
                {"metric": {"figure": "rate"}, "value": [1, "2.5"]},
                {"metric": {"figure": "p95", "path": "/a"}, "value": [1, "NaN"]},
                {"metric": {"figure": "p99"}, "value": [1, "+Inf"]},
            ]}}),
        );
        let mut figures = Figures::default();
        figures
            .add("rate", "sum(rate(a_total[5m]))")
            .add("p95", "max by (path) (b)");
        let tenant = access(&fake, "acme", &Scopes::of_a_tenant());
        let found = figures.ask(&tenant, testing::now()).await.unwrap();
        assert_eq!(found["rate"][0].value, 2.5);
        assert_eq!(found["p99"][0].value, f64::INFINITY);
        assert!(!found.contains_key("p95"));
        let asked = fake.last();
        assert_eq!(asked.param("query").matches(r#"tenant_id="acme""#).count(), 2);
        assert!(asked.param("query").contains(r#", "figure", "p95", "", "")"#));
        assert_eq!(asked.param("time"), "1793620800.000");
    }
}
