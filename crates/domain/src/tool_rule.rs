//! What limits a key to some tools, and to some arguments of them.

use crate::{Invalid, JsonObject, tool::Toolset, validate};
use serde::{Deserialize, Serialize};

/// The most rules of one key.
const MAX_RULES: usize = 64;
/// The most bytes of a rule's schema, as JSON text.
const MAX_SCHEMA_BYTES: usize = 16 * 1024;

/// How a rule begins that names a set of tools.
const SET: char = '@';

/// One permission: these tools, with these arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRule {
    /// A tool's name, a pattern of names in which `*` stands for any characters, or `@` and a [`Toolset`]'s name.
    pub tools: String,
    /// A JSON Schema that the arguments must meet; `None`: any that the tool takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonObject>,
}

/// A key's permissions. A tool may be called when one rule names it and, if that rule has a schema, the arguments meet
/// it. No rules at all: every tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToolRules(Option<Vec<ToolRule>>);

impl ToolRules {
    /// Every tool, with any arguments.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// Only what one of these rules allows; an empty list allows nothing.
    ///
    /// # Errors
    /// When there are too many, or a pattern or schema is out of bounds.
    pub fn limited(rules: Vec<ToolRule>) -> Result<Self, Invalid> {
        if rules.len() > MAX_RULES {
            return Err(Invalid::new("tools", format!("at most {MAX_RULES} rules")));
        }
        for (i, rule) in rules.iter().enumerate() {
            check_pattern(&rule.tools)
                .map_err(|expected| Invalid::new(format!("tools[{i}].tools"), expected))?;
            if let Some(schema) = &rule.arguments {
                validate::object(&format!("tools[{i}].arguments"), schema, MAX_SCHEMA_BYTES)?;
            }
        }
        Ok(Self(Some(rules)))
    }

    /// The rules; `None` when there is no limit.
    pub fn rules(&self) -> Option<&[ToolRule]> {
        self.0.as_deref()
    }

    /// Whether some call of this tool is allowed: what a listing shows.
    pub fn allow(&self, tool: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| rule.names(tool)))
    }

    /// Whether every call of this tool is allowed. Who may change a tool decides what its arguments do, so that a rule
    /// about arguments would not hold him.
    pub fn allow_all(&self, tool: &str) -> bool {
        let whole = |rule: &ToolRule| rule.arguments.is_none() && rule.names(tool);
        self.0.as_ref().is_none_or(|rules| rules.iter().any(whole))
    }

    /// Whether `self` allows no more than `other`, as far as can be told without comparing schemas: every rule of
    /// `self` stands in `other` as it is. Nobody hands out what he has not.
    pub fn within(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(theirs)) => own.iter().all(|rule| rule.within(theirs)),
        }
    }
}

impl ToolRule {
    /// Whether the rule speaks of this tool.
    pub fn names(&self, tool: &str) -> bool {
        match set(&self.tools) {
            Some(set) => Toolset::of(tool) == set,
            None => matches(&self.tools, tool),
        }
    }

    fn within(&self, others: &[Self]) -> bool {
        let covers = |other: &Self| {
            covers(&other.tools, &self.tools)
                && (other.arguments.is_none() || other.arguments == self.arguments)
        };
        others.iter().any(covers)
    }
}

/// The set that a rule names, if it does that.
fn set(pattern: &str) -> Option<Toolset> {
    pattern.strip_prefix(SET)?.parse().ok()
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if let Some(word) = pattern.strip_prefix(SET) {
        return word
            .parse::<Toolset>()
            .map(drop)
            .map_err(|unknown| unknown.to_string());
    }
    let ok = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    if pattern.is_empty() || pattern.len() > 64 || !pattern.chars().all(ok) {
        return Err("1 to 64 letters, digits, '-', '_', '.' or '*', or @ and a set's name".to_owned());
    }
    Ok(())
}

/// Whether a pattern names every tool that another one names.
fn covers(whole: &str, part: &str) -> bool {
    match (set(whole), set(part)) {
        (Some(whole), Some(part)) => whole == part,
        // What a star may stand for is in no set.
        (Some(whole), None) => !part.contains('*') && Toolset::of(part) == whole,
        (None, Some(_)) => whole.bytes().all(|c| c == b'*'),
        // A pattern is a word of the other one where `*` only stands for characters that it may stand for.
        (None, None) => matches(whole, part),
    }
}

/// `*` stands for any characters, also none. Takes time in proportion to the product of the lengths, at most.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            // The star takes one character more.
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_may_name_a_set() {
        let metrics = rules(&["@metrics"]);
        assert!(metrics.allow("query_metrics") && !metrics.allow("query_logs") && !metrics.allow("weather"));
        assert!(rules(&["@tools"]).allow("weather") && !rules(&["@tools"]).allow("query_logs"));
        assert!(metrics.within(&rules(&["*"])) && metrics.within(&metrics));
        assert!(rules(&["query_metrics"]).within(&metrics));
        for more in ["q*", "query_*", "query_logs", "@logs", "*"] {
            assert!(!rules(&[more]).within(&metrics), "{more}");
            assert!(!rules(&[more]).within(&rules(&["@tools"])), "{more}");
        }
        assert!(!metrics.within(&rules(&["query_*"])));
        let unknown = ToolRule {
            tools: "@everything".into(),
            arguments: None,
        };
        assert!(ToolRules::limited(vec![unknown]).is_err());
    }

    fn rules(patterns: &[&str]) -> ToolRules {
        let rule = |p: &&str| ToolRule {
            tools: (*p).to_owned(),
            arguments: None,
        };
        ToolRules::limited(patterns.iter().map(rule).collect()).unwrap()
    }

    #[test]
    fn patterns_name_tools() {
        let ours = rules(&["github_*", "weather", "*_get_*"]);
        for yes in ["github_", "github_issues", "weather", "k8s_get_pods"] {
            assert!(ours.allow(yes), "{yes}");
        }
        for no in ["github", "weather2", "my_weather", "k8s_delete_pods", ""] {
            assert!(!ours.allow(no), "{no}");
        }
        assert!(ToolRules::unlimited().allow("anything") && !rules(&[]).allow("anything"));
    }

    #[test]
    fn a_rule_about_arguments_does_not_allow_all() {
        let rule = |tools: &str, arguments: Option<JsonObject>| ToolRule {
            tools: tools.to_owned(),
            arguments,
        };
        let rules = vec![rule("web_*", Some(JsonObject::new())), rule("*_get", None)];
        let ours = ToolRules::limited(rules).unwrap();
        assert!(ours.allow("web_restart") && !ours.allow_all("web_restart"));
        assert!(ours.allow_all("web_get") && !ours.allow_all("other"));
        assert!(ToolRules::unlimited().allow_all("anything"));
    }

    #[test]
    fn nobody_hands_out_more_than_he_has() {
        assert!(rules(&["github_get_*"]).within(&rules(&["github_*"])));
        assert!(!rules(&["*"]).within(&rules(&["github_*"])));
        assert!(!ToolRules::unlimited().within(&rules(&["*"])));
        assert!(rules(&[]).within(&rules(&["a"])) && rules(&["a"]).within(&ToolRules::unlimited()));
    }

    #[test]
    fn rules_are_bounded() {
        let rule = |tools: &str| ToolRule {
            tools: tools.to_owned(),
            arguments: None,
        };
        assert!(ToolRules::limited(vec![rule("a b")]).is_err());
        assert!(ToolRules::limited(vec![rule("a"); 65]).is_err());
    }
}
