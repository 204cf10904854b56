//! Reads profiles as pprof does: independently of the code that writes them.

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
};

/// Whose code is ours: what an engineer keeps of a profile to see which of it is to be changed.
const OURS: [&str; 8] = [
    "chassis",
    "coordination",
    "domain",
    "mcp_server",
    "proto",
    "rest_api",
    "telemetry",
    "worker",
];

/// A profile with names in place of numbers.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What the values of a sample are, with their units: `("inuse_space", "bytes")`.
    pub types: Vec<(String, String)>,
    /// The samples.
    pub samples: Vec<Sample>,
    /// What lies between two samples, and its unit.
    pub period: (i64, String),
}

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The functions, the innermost first.
    pub stack: Vec<String>,
    /// One value for each type.
    pub values: Vec<i64>,
    /// The labels that are text.
    pub labels: BTreeMap<String, String>,
}

impl Profile {
    /// Reads one as it is served: compressed.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(compressed: &[u8]) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        GzDecoder::new(compressed)
            .read_to_end(&mut bytes)
            .context("a profile is compressed with gzip")?;
        let raw = raw::Profile::decode(bytes.as_slice()).context("a profile in protobuf")?;
        ensure!(
            raw.string_table.first().is_some_and(String::is_empty),
            "the first string is empty"
        );
        let functions: HashMap<u64, &raw::Function> = raw
            .function
            .iter()
            .map(|function| (function.id, function))
            .collect();
        let locations: HashMap<u64, &raw::Location> = raw
            .location
            .iter()
            .map(|location| (location.id, location))
            .collect();
        let samples = raw.sample.iter().map(|sample| {
            let mut stack = Vec::new();
            for id in &sample.location_id {
                let location = locations.get(id).context("a sample at an unknown location")?;
                for line in &location.line {
                    let function = functions
                        .get(&line.function_id)
                        .context("a line of no function")?;
                    stack.push(raw.text(function.name)?);
                }
            }
            ensure!(
                sample.value.len() == raw.sample_type.len(),
                "a sample has one value for each type"
            );
            let labels = sample.label.iter().filter(|label| label.text != 0);
            let labels = labels
                .map(|label| Ok((raw.text(label.key)?, raw.text(label.text)?)))
                .collect::<anyhow::Result<_>>()?;
            Ok(Sample {
                stack,
                values: sample.value.clone(),
                labels,
            })
        });
        let types = raw
            .sample_type
            .iter()
            .map(|kind| Ok((raw.text(kind.kind)?, raw.text(kind.unit)?)));
        let unit = match &raw.period_type {
            Some(kind) => raw.text(kind.unit)?,
            None => String::new(),
        };
        Ok(Self {
            types: types.collect::<anyhow::Result<_>>()?,
            samples: samples.collect::<anyhow::Result<_>>()?,
            period: (raw.period, unit),
        })
    }

    /// How much of `kind` each of our functions accounts for: a sample belongs to the innermost that is ours, whatever it
    /// called for it.
    ///
    /// # Errors
    /// When the profile has no such values.
    pub fn ours(&self, kind: &str) -> anyhow::Result<BTreeMap<String, i64>> {
        let at = self
            .types
            .iter()
            .position(|(name, _)| name == kind)
            .with_context(|| format!("no {kind} among {:?}", self.types))?;
        let mut sums = BTreeMap::new();
        for sample in &self.samples {
            if let Some(function) = sample.stack.iter().find(|name| is_ours(name)) {
                *sums.entry(function.clone()).or_default() += sample.values[at];
            }
        }
        Ok(sums)
    }
}

/// The function with the greatest value, and that.
pub fn top(values: &BTreeMap<String, i64>) -> Option<(&str, i64)> {
    let top = values.iter().max_by_key(|(_, value)| **value);
    top.map(|(name, value)| (name.as_str(), *value))
}

/// By how much each function's value has grown.
pub fn grown(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let growth = |(name, value): (&String, &i64)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), value - before)
    };
    after.iter().map(growth).collect()
}

/// `chassis::faults::x`, `<chassis::ops::X as T>::x`.
fn is_ours(function: &str) -> bool {
    let path = function.trim_start_matches(['<', '&']);
    path.split_once("::")
        .is_some_and(|(program, _)| OURS.contains(&program))
}

/// The messages of pprof's `profile.proto`, as far as they are read here.
mod raw {
    use anyhow::Context;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(super) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
    }

    impl Profile {
        pub(super) fn text(&self, index: i64) -> anyhow::Result<String> {
            let text = self.string_table.get(usize::try_from(index)?);
            text.cloned().context("a string that is not in the table")
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) kind: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) label: Vec<Label>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Label {
        #[prost(int64, tag = "1")]
        pub(super) key: i64,
        #[prost(int64, tag = "2")]
        pub(super) text: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) line: Vec<Line>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Line {
        #[prost(uint64, tag = "1")]
        pub(super) function_id: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Function {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "2")]
        pub(super) name: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_ours_is_told_from_others() {
        for ours in [
            "chassis::faults::planted_leak",
            "<rest_api::api::Api as T>::x",
            "worker::run",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "alloc::vec::from_elem",
            "<alloc::vec::Vec<chassis::X>>::push",
            "main",
            "tokio::x",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
