//! How a tool's request is put together, tried again, and its answer cut to size: what most tools leave at its default.

use crate::Invalid;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The most arguments that a tool may give places to.
pub const MAX_PLACES: usize = 256;
/// The most attempts that a tool's policy may allow.
pub const MAX_ATTEMPTS: u32 = 20;
/// The longest wait between two attempts, milliseconds: a day.
pub const MAX_BACKOFF_MS: u64 = 24 * 3600 * 1000;
/// The longest selection, bytes.
pub const MAX_SELECTION_BYTES: usize = 4096;
/// The least and the most that `max_result_bytes` may be.
pub const RESULT_BYTES: std::ops::RangeInclusive<u32> = 256..=3 << 20;

/// What a tool may declare beside its address and schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolOptions {
    /// Where arguments go that are not in the URL; one that is not named goes where the method puts it: into the query,
    /// or into the body as a property.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, Place>,
    /// How a body is written.
    #[serde(skip_serializing_if = "BodyFormat::is_json")]
    pub body: BodyFormat,
    /// What is done when an attempt fails; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// A JMESPath expression over the result (`status`, `headers`, `body`): what an agent is shown of it. The whole
    /// result is kept all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// The most bytes of JSON text that an agent is shown of a result, after the selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_result_bytes: Option<u32>,
    /// The tool is another MCP server's; `None`: an HTTP API. Nobody but the product itself says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamTool>,
}

/// Which tool of which other MCP server is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTool {
    /// The server's name, as the tenant registered it.
    pub server: String,
    /// The tool's name there.
    pub tool: String,
}

/// Where an argument goes, and under which name if not its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "in", rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// Into the query.
    Query {
        /// The parameter's name there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How a list or an object is written.
        #[serde(default)]
        style: QueryStyle,
    },
    /// Into a header of its own.
    Header {
        /// The header's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Into the body, as a property.
    Body {
        /// The property's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// It is the body.
    WholeBody,
}

/// How a list or an object stands in a query (OpenAPI's `style` and `explode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryStyle {
    /// `a=1&a=2`; an object's properties stand as parameters of their own.
    #[default]
    Form,
    /// `a=1,2`.
    Comma,
    /// `a=1%202`.
    Space,
    /// `a=1|2`.
    Pipe,
    /// `a[x]=1&a[y]=2`; a list with its places, `a[0]=1&a[1]=2`.
    DeepObject,
    /// The value as JSON text.
    Json,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`; nested values as `a[b]=c`, lists with their places: `a[0]=c`.
    Form,
}

impl BodyFormat {
    fn is_json(&self) -> bool {
        *self == Self::Json
    }
}

/// How often, and after which waits, an attempt that failed is followed by another. Only what is safe is tried again:
/// see [`super::ToolSpec::runs_twice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included: 1 to [`MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// The wait after the first attempt, milliseconds; it doubles with every further one.
    pub initial_backoff_ms: u64,
    /// The longest wait, milliseconds.
    pub max_backoff_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_backoff_ms: 1_000,
            max_backoff_ms: 60_000,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after attempt number `attempt` (1, 2, …). `random` of 0 to 1 spreads the wait over its upper half,
    /// so that what failed together does not come back together.
    pub fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self
            .initial_backoff_ms
            .saturating_mul(1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX));
        let longest = Duration::from_millis(doubled.min(self.max_backoff_ms));
        longest.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    fn check(&self) -> Result<(), Invalid> {
        if !(1..=MAX_ATTEMPTS).contains(&self.max_attempts) {
            let expected = format!("1 to {MAX_ATTEMPTS}");
            return Err(Invalid::new("retry.max_attempts", expected));
        }
        if self.initial_backoff_ms == 0 || self.initial_backoff_ms > self.max_backoff_ms {
            let expected = "at least 1 and at most max_backoff_ms";
            return Err(Invalid::new("retry.initial_backoff_ms", expected));
        }
        if self.max_backoff_ms > MAX_BACKOFF_MS {
            let expected = format!("at most {MAX_BACKOFF_MS}");
            return Err(Invalid::new("retry.max_backoff_ms", expected));
        }
        Ok(())
    }
}

impl ToolOptions {
    /// Holds them to their bounds. Whether the selection parses is for who runs it to check.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        if self.places.len() > MAX_PLACES {
            return Err(Invalid::new("places", format!("at most {MAX_PLACES}")));
        }
        for (argument, place) in &self.places {
            if let Place::Header { name } = place {
                let name = name.as_deref().unwrap_or(argument);
                super::check_header(&format!("places.{argument}"), name, "x")?;
            }
        }
        let whole = self.places.values().filter(|p| **p == Place::WholeBody).count();
        if whole > 1 {
            return Err(Invalid::new(
                "places",
                "one argument at most that is the whole body",
            ));
        }
        if let Some(retry) = &self.retry {
            retry.check()?;
        }
        if self
            .selection
            .as_ref()
            .is_some_and(|s| s.is_empty() || s.len() > MAX_SELECTION_BYTES)
        {
            let expected = format!("1 to {MAX_SELECTION_BYTES} bytes of JMESPath");
            return Err(Invalid::new("selection", expected));
        }
        if self.max_result_bytes.is_some_and(|n| !RESULT_BYTES.contains(&n)) {
            let expected = format!("{} to {} bytes", RESULT_BYTES.start(), RESULT_BYTES.end());
            return Err(Invalid::new("max_result_bytes", expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_spread() {
        let policy = RetryPolicy {
            max_attempts: 20,
            initial_backoff_ms: 100,
            max_backoff_ms: 1_000,
        };
        let waits = |random| [1, 2, 3, 4, 5, 70].map(|attempt| policy.backoff(attempt, random).as_millis());
        assert_eq!(waits(1.0), [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(waits(0.0), [50, 100, 200, 400, 500, 500]);
    }

    #[test]
    fn options_are_held_to_their_bounds_and_default_to_nothing() {
        assert_eq!(serde_json::to_string(&ToolOptions::default()).unwrap(), "{}");
        let options = |text: &str| serde_json::from_str::<ToolOptions>(text).unwrap();
        let good = options(
            r#"{"places": {"page": {"in": "query", "name": "page[n]"}, "all": {"in": "whole_body"}}}"#,
        );
        assert_eq!(good.check(), Ok(()));
        for (bad, field) in [
            (
                r#"{"places": {"h": {"in": "header", "name": "Host"}}}"#,
                "places.h",
            ),
            (
                r#"{"places": {"a": {"in": "whole_body"}, "b": {"in": "whole_body"}}}"#,
                "places",
            ),
            (r#"{"retry": {"max_attempts": 0}}"#, "retry.max_attempts"),
            (r#"{"selection": ""}"#, "selection"),
            (r#"{"max_result_bytes": 1}"#, "max_result_bytes"),
        ] {
            assert_eq!(options(bad).check().unwrap_err().field, field);
        }
    }
}
