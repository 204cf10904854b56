//! `deploy/prometheus/catalogue.yaml`: the metrics of other programs that our queries use, as those programs were
//! seen to expose them.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The file, from the root of the clone.
pub const PATH: &str = "deploy/prometheus/catalogue.yaml";

const HEAD: &str = "\
# Metrics of other programs that our dashboards, rules and runbooks use: scrape job → metric → type and labels, `job`
# and `instance` left out. Captured from the running programs, not written by hand:
#   cargo run --package e2e --bin stack-check -- capture --prometheus http://127.0.0.1:9090
# (several, of different versions of those programs: with a comma; the labels are those that all have). What no Prometheus
# has just now stays as it is. `rare` is added by hand to what is there only once it has happened.
";

/// What is known of another program's metric.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Prometheus's word for it: `counter`, `gauge`, `histogram`, `summary`, `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
    /// Whether it is there only once what it counts has happened: no telling from a program that is well.
    #[serde(default)]
    pub rare: bool,
}

/// Metrics by the scrape job that exposes them. A histogram stands under its own name, without `_bucket`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Catalogue {
    /// Job → metric → entry.
    pub jobs: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl Catalogue {
    /// Reads the clone's; an empty one where there is none yet.
    ///
    /// # Errors
    /// When the file is not such a catalogue.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(PATH);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path)?;
        yaml_serde::from_str(&text).context(PATH)
    }

    /// Writes it to the clone, sorted, a metric a line: the same metrics give the same text.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        fs::write(root.join(PATH), self.text()).context(PATH)
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (job, metrics) in &self.jobs {
            text.push_str(&format!("{job}:\n"));
            for (name, Entry { kind, labels, rare }) in metrics {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                let labels = labels.join(", ");
                let rare = if *rare { ", rare: true" } else { "" };
                text.push_str(&format!(
                    "  {name}: {{ type: {kind}, labels: [{labels}]{rare} }}\n"
                ));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalogue, Entry};

    #[test]
    fn what_is_written_is_read_again() {
        let entry = Entry {
            kind: "gauge".to_owned(),
            labels: ["db", "server"].map(str::to_owned).into(),
            rare: false,
        };
        let bare = Entry {
            kind: "counter".to_owned(),
            labels: [].into(),
            rare: true,
        };
        let mut catalogue = Catalogue::default();
        let job = catalogue.jobs.entry("redis".to_owned()).or_default();
        job.insert("redis_db_keys".to_owned(), entry);
        job.insert("redis_commands_total".to_owned(), bare);
        assert_eq!(
            yaml_serde::from_str::<Catalogue>(&catalogue.text()).ok(),
            Some(catalogue)
        );
    }
}
