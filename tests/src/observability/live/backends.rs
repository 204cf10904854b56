//! Clients of the programs of the monitoring stack.

use crate::Json;
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How far back panels look.
const RANGE: Duration = Duration::from_secs(300);
/// The step of graphs.
const STEP: &str = "15";

/// Where the stack answers.
#[derive(Clone, Debug, clap::Args)]
pub struct Backends {
    /// Prometheus
    #[arg(
        long = "prometheus",
        env = "PROMETHEUS_URL",
        default_value = "http://127.0.0.1:9090"
    )]
    pub prometheus_url: String,
    /// Loki
    #[arg(long = "loki", env = "LOKI_URL", default_value = "http://127.0.0.1:3100")]
    pub loki_url: String,
    /// Jaeger
    #[arg(long = "jaeger", env = "JAEGER_URL", default_value = "http://127.0.0.1:16686")]
    pub jaeger_url: String,
    /// How long to wait for data
    #[arg(long, default_value = "3m")]
    pub patience: humantime::Duration,
}

impl Backends {
    /// Prometheus.
    #[must_use]
    pub fn prometheus(&self) -> Prometheus {
        Prometheus::new(&self.prometheus_url)
    }

    /// How long what is empty is asked again.
    #[must_use]
    pub fn patience(&self) -> Duration {
        *self.patience
    }
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct OneSeries {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its last value, as text; a log's last line.
    pub value: String,
}

/// A Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    base: String,
}

impl Prometheus {
    /// That at `http://host:port`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Json> {
        let answer = get(&format!("{}/api/v1/{path}", self.base), query).await?;
        Ok(answer["data"].clone())
    }

    /// The series that a query has now; those whose value is not a number are left out, as a panel shows nothing for
    /// them.
    ///
    /// # Errors
    /// When Prometheus does not answer or refuses the query.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<OneSeries>> {
        let data = self.get("query", &[("query", query)]).await?;
        Ok(series(&data))
    }

    /// The same over the last minutes.
    ///
    /// # Errors
    /// As above.
    pub async fn query_range(&self, query: &str) -> anyhow::Result<Vec<OneSeries>> {
        let (start, end) = range();
        let (start, end) = (start.as_secs().to_string(), end.as_secs().to_string());
        let asked = [("query", query), ("start", &start), ("end", &end), ("step", STEP)];
        Ok(series(&self.get("query_range", &asked).await?))
    }

    /// The label sets of a metric.
    ///
    /// # Errors
    /// As above.
    pub async fn series(&self, name: &str) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
        let found = self
            .query(&format!("last_over_time({{__name__=\"{name}\"}}[10m])"))
            .await?;
        Ok(found.into_iter().map(|one| one.labels).collect())
    }

    /// The names of all series that match.
    ///
    /// # Errors
    /// As above.
    pub async fn names(&self, selector: &str) -> anyhow::Result<Vec<String>> {
        let data = self
            .get("label/__name__/values", &[("match[]", selector)])
            .await?;
        serde_json::from_value(data).context("names of metrics")
    }

    /// The type of every metric that is scraped.
    ///
    /// # Errors
    /// As above.
    pub async fn kinds(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let data = self.get("metadata", &[]).await?;
        let metrics = data.as_object().context("Prometheus has no metadata")?.iter();
        Ok(metrics
            .filter_map(|(name, entries)| Some((name.clone(), entries[0]["type"].as_str()?.to_owned())))
            .collect())
    }

    /// The rules as the API has them, of all groups.
    ///
    /// # Errors
    /// As above.
    pub async fn rules(&self) -> anyhow::Result<Vec<Json>> {
        let data = self.get("rules", &[]).await?;
        let groups = data["groups"]
            .as_array()
            .context("Prometheus has no rule groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }
}

/// The series of a LogQL query: over the last minutes, or of this moment where it is a number that is asked for.
pub(super) async fn loki(base: &str, query: &str, instant: bool) -> anyhow::Result<Vec<OneSeries>> {
    let is_log = query.trim_start().starts_with('{');
    let (start, end) = range();
    let (start, end) = (start.as_nanos().to_string(), end.as_nanos().to_string());
    let answer = if instant && !is_log {
        get(&format!("{base}/loki/api/v1/query"), &[("query", query)]).await?
    } else {
        let asked = [("query", query), ("start", &start), ("end", &end), ("step", STEP)];
        get(&format!("{base}/loki/api/v1/query_range"), &asked).await?
    };
    Ok(series(&answer["data"]))
}

/// What a search in Jaeger finds, a line each.
pub(super) async fn jaeger(base: &str, target: &Json) -> anyhow::Result<Vec<String>> {
    let (_, end) = range();
    if target["queryType"] == "dependencyGraph" {
        let end = end.as_millis().to_string();
        let asked = [("endTs", end.as_str()), ("lookback", "3600000")];
        let answer = get(&format!("{base}/api/dependencies"), &asked).await?;
        let edges = answer["data"].as_array().context("Jaeger has no dependencies")?;
        let shown = |edge: &Json| format!("{} → {}", edge["parent"], edge["child"]);
        return Ok(edges.iter().map(shown).collect());
    }
    let word = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
    if target["queryType"] != "search" {
        let id = match word("query") {
            id if id.is_empty() => any_trace(base).await?,
            id => id,
        };
        let answer = get(&format!("{base}/api/traces/{id}"), &[]).await?;
        return Ok(traces(&answer));
    }
    let tags: BTreeMap<String, String> = word("tags")
        .split_whitespace()
        .filter_map(|tag| tag.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    let mut asked = vec![
        ("service", word("service")),
        ("limit", target["limit"].as_u64().unwrap_or(20).to_string()),
        ("lookback", "1h".to_owned()),
        ("start", (end.as_micros() - 3_600_000_000).to_string()),
        ("end", end.as_micros().to_string()),
        ("operation", word("operation")),
        ("minDuration", word("minDuration")),
        ("maxDuration", word("maxDuration")),
    ];
    if !tags.is_empty() {
        asked.push(("tags", serde_json::to_string(&tags)?));
    }
    let asked: Vec<(&str, &str)> = asked
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    Ok(traces(&get(&format!("{base}/api/traces"), &asked).await?))
}

/// The id of some trace, as a person would choose one.
async fn any_trace(base: &str) -> anyhow::Result<String> {
    let asked = [("service", "rest-api"), ("limit", "1"), ("lookback", "1h")];
    let found = get(&format!("{base}/api/traces"), &asked).await?;
    let id = found["data"][0]["traceID"].as_str();
    Ok(id.context("Jaeger has no trace of rest-api")?.to_owned())
}

fn traces(answer: &Json) -> Vec<String> {
    let traces = answer["data"].as_array().into_iter().flatten();
    let shown = |trace: &Json| {
        let spans = trace["spans"].as_array().map_or(0, Vec::len);
        format!(
            "{} ({spans} spans)",
            trace["traceID"].as_str().unwrap_or_default()
        )
    };
    traces.map(shown).collect()
}

/// The last minutes.
fn range() -> (Duration, Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.saturating_sub(RANGE), now)
}

/// The JSON that a GET answers with.
async fn get(url: &str, query: &[(&str, &str)]) -> anyhow::Result<Json> {
    let mut address = reqwest::Url::parse(url).with_context(|| url.to_owned())?;
    address.query_pairs_mut().extend_pairs(query);
    let answer = crate::http_client().get(address).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{url}: {status}: {}", text.trim());
    serde_json::from_str(&text).with_context(|| format!("{url} answered no JSON"))
}

/// The series in the `data` of Prometheus's and Loki's answers, of whatever type.
fn series(data: &Json) -> Vec<OneSeries> {
    let result = &data["result"];
    if data["resultType"] == "scalar" || data["resultType"] == "string" {
        let value = result[1].as_str().unwrap_or_default().to_owned();
        return vec![OneSeries {
            labels: BTreeMap::new(),
            value,
        }];
    }
    let one = |series: &Json| {
        let labels = [&series["metric"], &series["stream"]];
        let labels = labels.into_iter().find(|labels| labels.is_object());
        let labels = labels.and_then(|labels| serde_json::from_value(labels.clone()).ok());
        let values = series["values"].as_array().into_iter().flatten().rev();
        let mut values = values
            .chain([&series["value"]])
            .filter_map(|pair| pair[1].as_str());
        let value = values.find(|value| *value != "NaN")?;
        Some(OneSeries {
            labels: labels.unwrap_or_default(),
            value: value.to_owned(),
        })
    };
    result.as_array().into_iter().flatten().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::series;
    use serde_json::json;

    #[test]
    fn what_is_not_a_number_is_no_data() {
        let data = json!({"resultType": "matrix", "result": [
            {"metric": {"a": "1"}, "values": [[1, "NaN"], [2, "5"], [3, "NaN"]]},
            {"metric": {"a": "2"}, "values": [[1, "NaN"]]},
        ]});
        let found = series(&data);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].value.as_str(), found[0].labels["a"].as_str()),
            ("5", "1")
        );
    }

    #[test]
    fn every_type_of_answer() {
        let vector = json!({"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]});
        let scalar = json!({"resultType": "scalar", "result": [1, "2"]});
        let streams = json!({"resultType": "streams", "result": [{"stream": {"service": "x"}, "values": [["1", "2"]]}]});
        for data in [vector, scalar, streams] {
            assert_eq!(series(&data)[0].value, "2", "{data}");
        }
    }
}
