//! The variables in a dashboard's queries, and what they are replaced with.

use regex::Regex;
use std::{collections::BTreeMap, sync::LazyLock};

/// The range of rates: four scrapes, as Grafana would choose it for a scrape interval of 15 s.
const RATE_INTERVAL: &str = "1m";
/// A step of a graph.
const INTERVAL: &str = "15s";
/// The range of time that a dashboard shows; short, so that a stack that has just begun to run has data in it.
const RANGE_SECONDS: u64 = 300;

/// `$name`, `${name}`, `${name:format}` and `[[name]]`; a regular expression's `$` is followed by none of these.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::[^}]*)?\}|\$([A-Za-z_][A-Za-z0-9_]*)|\[\[([A-Za-z_][A-Za-z0-9_]*)(?::[^\]]*)?\]\]")
        .expect("a constant pattern")
});

/// Values by name.
#[derive(Clone, Debug)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Those that Grafana defines itself.
    pub(super) fn built_in() -> Self {
        let values = [
            ("__rate_interval", RATE_INTERVAL.to_owned()),
            ("__interval", INTERVAL.to_owned()),
            ("__interval_ms", "15000".to_owned()),
            ("__auto", INTERVAL.to_owned()),
            ("__range", format!("{RANGE_SECONDS}s")),
            ("__range_s", RANGE_SECONDS.to_string()),
            ("__range_ms", (RANGE_SECONDS * 1000).to_string()),
        ];
        Self(
            values
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        )
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The text with all variables replaced, and the names of those that are not defined.
    pub(super) fn replace(&self, text: &str) -> (String, Vec<String>) {
        let mut unknown = Vec::new();
        let replaced = VARIABLE.replace_all(text, |found: &regex::Captures<'_>| {
            let name = (1..=3)
                .find_map(|group| found.get(group))
                .map_or("", |name| name.as_str());
            self.0.get(name).cloned().unwrap_or_else(|| {
                unknown.push(name.to_owned());
                found[0].to_owned()
            })
        });
        (replaced.into_owned(), unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::Variables;

    #[test]
    fn every_way_to_write_a_variable() {
        let mut variables = Variables::built_in();
        variables.set("service", ".+");
        let text =
            r#"rate(x{a=~"$service", b=~"${service:regex}", c=~"[[service]]", d=~"y$"}[$__rate_interval])"#;
        let (text, unknown) = variables.replace(text);
        assert_eq!(text, r#"rate(x{a=~".+", b=~".+", c=~".+", d=~"y$"}[1m])"#);
        assert!(unknown.is_empty());
    }

    #[test]
    fn an_undefined_variable_is_told() {
        assert_eq!(Variables::built_in().replace("$nothing").1, ["nothing"]);
    }
}
