//! Asks one query.

use super::{
    super::{Expression, Language, Purpose},
    Backends,
    backends::{jaeger, loki},
};

/// What came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// How many series, streams or traces.
    pub(super) series: usize,
    /// One of them, or why there is none.
    pub(super) sample: String,
}

/// A rule's result, told apart from those of other rules of the same name by the labels that it gives.
fn recorded(name: &str, given: &[(String, String)]) -> String {
    let matchers: Vec<String> = given
        .iter()
        .map(|(label, value)| format!("{label}={value:?}"))
        .collect();
    format!("{name}{{{}}}", matchers.join(","))
}

/// Asks as a panel would, a rule's result by the name that it is recorded under.
pub(super) async fn ask(expression: &Expression, backends: &Backends) -> anyhow::Result<Answer> {
    let instant = match expression.purpose {
        Purpose::Panel { instant } => instant,
        Purpose::Annotation => false,
        Purpose::Variable(_) | Purpose::Record(_) | Purpose::Alert | Purpose::Document => true,
    };
    let found: Vec<String> = match (expression.language, &expression.purpose) {
        (Language::PromQl, purpose) => {
            let prometheus = backends.prometheus();
            let series = match purpose {
                Purpose::Record(name) => prometheus.query(&recorded(name, &expression.given)).await?,
                _ if instant => prometheus.query(&expression.text).await?,
                _ => prometheus.query_range(&expression.text).await?,
            };
            series.into_iter().map(|one| one.value).collect()
        }
        (Language::LogQl, _) => {
            let series = loki(&backends.loki_url, &expression.text, instant).await?;
            series.into_iter().map(|one| one.value).collect()
        }
        (Language::Jaeger, _) => {
            let target = serde_json::from_str(&expression.text)?;
            jaeger(&backends.jaeger_url, &target).await?
        }
    };
    Ok(Answer {
        series: found.len(),
        sample: found.into_iter().next().unwrap_or_else(|| "no data".to_owned()),
    })
}
