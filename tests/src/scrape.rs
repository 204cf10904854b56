//! Reads `/metrics`.

use anyhow::Context;
use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` and `_count` where they stand.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// What a service exposed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The samples, in the order of the text.
    pub samples: Vec<Sample>,
    /// The text itself.
    pub text: String,
}

impl Scrape {
    /// Scrapes the service at `base` (`http://host:port`).
    ///
    /// # Errors
    /// When it does not answer, or with something else.
    pub async fn of(base: &str) -> anyhow::Result<Self> {
        let answer = crate::http_client()
            .get(format!("{base}/metrics"))
            .send()
            .await?
            .error_for_status()?;
        Self::parse(&answer.text().await?)
    }

    /// Parses the Prometheus text format.
    ///
    /// # Errors
    /// When a line is none of it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|l| sample(l).with_context(|| format!("not a sample: {l}")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            samples,
            text: text.to_owned(),
        })
    }

    /// The samples of `name` that have all of `labels`.
    pub fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        })
    }

    /// Their sum; 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether there is any sample of `name`, or of the histogram of that name.
    pub fn has(&self, name: &str) -> bool {
        let count = format!("{name}_count");
        self.samples
            .iter()
            .any(|sample| sample.name == name || sample.name == count)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_at(line.find(' ')?),
    };
    let value = value.split_whitespace().next()?;
    let value = if value == "+Inf" {
        f64::INFINITY
    } else {
        value.parse().ok()?
    };
    let (name, labels) = match head.split_once('{') {
        Some((name, rest)) => (name, self::labels(rest.strip_suffix('}')?)?),
        None => (head, BTreeMap::new()),
    };
    Some(Sample {
        name: name.trim().to_owned(),
        labels,
        value,
    })
}

fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in rest.char_indices() {
            match (escaped, c) {
                (false, '\\') => escaped = true,
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (true, 'n') => (value.push('\n'), escaped = false).0,
                (_, c) => (value.push(c), escaped = false).0,
            }
        }
        labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
        text = &rest[end? + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_with_their_labels() {
        let text = "# HELP a_total A.\na_total{path=\"/{id}\",q=\"say \\\"hi\\\", \\\\\"} 3\nb 1.5\nc_bucket{le=\"+Inf\"} 2 1700\n";
        let scrape = Scrape::parse(text).unwrap();
        assert_eq!(
            scrape.sum("a_total", &[("path", "/{id}"), ("q", "say \"hi\", \\")]),
            3.0
        );
        assert_eq!(scrape.sum("b", &[]), 1.5);
        assert_eq!(scrape.sum("c_bucket", &[("le", "+Inf")]), 2.0);
        assert!(Scrape::parse("no number").is_err());
    }
}
