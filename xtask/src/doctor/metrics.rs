//! Reads what a service exposes at `/metrics`.

use std::collections::BTreeMap;

/// The metrics of one service at one moment: the sum of each name's samples.
#[derive(Debug)]
pub(super) struct Metrics {
    sums: BTreeMap<String, f64>,
    /// What runs, by `build_info`.
    pub(super) version: Option<String>,
}

impl Metrics {
    /// Parses the text format, OpenMetrics too.
    ///
    /// # Errors
    /// The line that is none of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self {
            sums: BTreeMap::new(),
            version: None,
        };
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, labels, value) = sample(line).ok_or_else(|| line.to_owned())?;
            if name == "build_info" {
                metrics.version = label(labels, "version").map(str::to_owned);
            }
            *metrics.sums.entry(name.to_owned()).or_default() += value;
        }
        Ok(metrics)
    }

    /// The sum of all samples of a name.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        self.sums.get(name).copied()
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }
}

/// A line's name, labels and value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    // An exemplar's labels come after the value.
    let (name, labels, rest) = match line.split_once('{').filter(|(name, _)| !name.contains(' ')) {
        Some((name, rest)) => {
            let end = end_of_labels(rest)?;
            (name, &rest[..end], &rest[end + 1..])
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = rest.split_whitespace().next()?;
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    // Rust reads `+Inf` and `NaN` as they are written here.
    is_name(name).then_some((name, labels, value.parse().ok()?))
}

/// Where the brace is that stands in no label's value.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// A label's value, one that holds no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_exemplars_and_odd_labels() -> Result<(), String> {
        let text = r#"# HELP a x
a_total{path="/{id}",status="2\"0}"} 2
a_total{path="/"} 3 1.5
b_bucket{le="+Inf"} 4 # {trace_id="x"} 0.1 1
build_info{service="w",version="1.2.3"} 1
plain +Inf
# EOF
"#;
        let metrics = Metrics::parse(text)?;
        assert_eq!(metrics.sum("a_total"), Some(5.0));
        assert_eq!(metrics.sum("b_bucket"), Some(4.0));
        assert_eq!(metrics.version.as_deref(), Some("1.2.3"));
        assert_eq!((metrics.sum("c"), metrics.len()), (None, 4));
        Ok(())
    }

    #[test]
    fn a_page_is_no_metrics() {
        for text in ["<html>", "not found", "a{b=\"c\" 1", "a one"] {
            assert_eq!(Metrics::parse(text).map(|_| ()), Err(text.to_owned()));
        }
    }
}
