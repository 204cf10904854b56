//! Which sets of tools a client wants: `?toolsets=metrics,logs` on the URL of each of its requests. What it did not ask for
//! it neither sees nor calls, so that its model has less to choose from.

use axum::extract::Query;
use chassis::Problem;
use domain::tool::Toolset;
use http::{StatusCode, Uri};
use std::collections::BTreeSet;

/// The query's name.
const QUERY: &str = "toolsets";

/// The sets that a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toolsets(Option<BTreeSet<Toolset>>);

impl Toolsets {
    /// Those that the URL names; all, when it names none.
    ///
    /// # Errors
    /// When a word is no set's name.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        // A query that cannot be read asks for nothing of ours.
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Ok(Self::default());
        };
        let mut asked = pairs.iter().filter(|(name, _)| name == QUERY).peekable();
        if asked.peek().is_none() {
            return Ok(Self::default());
        }
        let words = asked.flat_map(|(_, words)| words.split(','));
        let sets = words.map(|word| word.trim().parse()).collect::<Result<_, _>>();
        let unknown = |error: domain::tool::built_in::UnknownToolset| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "unknown_toolset",
                format!("{QUERY}: {error}"),
            )
        };
        Ok(Self(Some(sets.map_err(unknown)?)))
    }

    /// Whether a tool of this name is in one of them.
    pub(crate) fn hold(&self, tool: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|sets| sets.contains(&Toolset::of(tool)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Result<Toolsets, Problem> {
        Toolsets::of(&uri.parse().expect("a URI"))
    }

    #[test]
    fn a_url_names_sets_and_without_any_it_is_all() {
        for all in ["/mcp", "/mcp?", "/mcp?session=1"] {
            assert_eq!(of(all).expect("all"), Toolsets::default(), "{all}");
            assert!(of(all).expect("all").hold("query_logs"));
        }
        for some in [
            "/mcp?toolsets=metrics,tools",
            "/mcp?x=1&toolsets=metrics%2Ctools",
            "/mcp?toolsets=metrics&toolsets=+tools",
        ] {
            let sets = of(some).expect("sets");
            assert!(sets.hold("query_metrics") && sets.hold("weather"), "{some}");
            assert!(!sets.hold("query_logs") && !sets.hold("context_get"), "{some}");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        for bad in ["/mcp?toolsets=metrics,everything", "/mcp?toolsets="] {
            let problem = of(bad).expect_err("no set");
            assert_eq!(
                (problem.status(), problem.code()),
                (StatusCode::BAD_REQUEST, "unknown_toolset")
            );
            assert!(problem.detail().contains("health"), "{}", problem.detail());
        }
    }
}
