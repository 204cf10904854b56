//! Which of the imported tools is given which credentials.

use crate::error::Result;
use domain::{Invalid, tool::Credentials};
use openapi::{Note, PlannedTool, Scheme, SchemeKind};
use std::collections::BTreeMap;

/// The credentials that an import is given.
#[derive(Debug, Default)]
pub enum Given {
    /// None.
    #[default]
    None,
    /// For every tool that wants some; for all of them where the document says nothing about security.
    Any(Credentials),
    /// By the names of the document's security schemes.
    ByScheme(BTreeMap<String, Credentials>),
}

/// A security scheme that some of the tools' endpoints want satisfied.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The scheme.
    pub scheme: Scheme,
    /// How many tools name it.
    pub tools: usize,
    /// Whether credentials were given for it.
    pub given: bool,
}

/// What each tool is given, in the tools' order.
pub(super) struct Assigned<'a> {
    pub(super) of_tools: Vec<OfTool<'a>>,
    pub(super) wanted: Vec<Wanted>,
}

/// What one tool is given.
#[derive(Default)]
pub(super) struct OfTool<'a> {
    pub(super) credentials: Option<&'a Credentials>,
    /// Why it is not given what it could have been.
    pub(super) withheld: Option<Note>,
}

/// Credentials go to one origin only, the server that was asked for or the document's own: a document that names
/// another server for one operation must not be sent the keys of the first.
///
/// # Errors
/// When credentials are given for a scheme that none of the tools has, or cannot be sent.
pub(super) fn assign<'a>(
    tools: &[PlannedTool],
    origin: Option<&str>,
    given: &'a Given,
) -> Result<Assigned<'a>> {
    let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
    for scheme in tools.iter().flat_map(|tool| tool.security.iter().flatten()) {
        let entry = wanted.entry(&scheme.name).or_insert_with(|| Wanted {
            scheme: scheme.clone(),
            tools: 0,
            given: false,
        });
        entry.tools += 1;
        entry.given = match given {
            Given::None => false,
            Given::Any(_) => scheme.kind.is_usable(),
            Given::ByScheme(by_scheme) => by_scheme.contains_key(&scheme.name),
        };
    }
    match given {
        Given::None => {}
        Given::Any(credentials) => credentials.check()?,
        Given::ByScheme(by_scheme) => {
            for (name, credentials) in by_scheme {
                if !wanted.contains_key(name.as_str()) {
                    let expected = "names of security schemes that the chosen operations have";
                    return Err(Invalid::new("credentials", expected).into());
                }
                credentials.check()?;
            }
        }
    }
    let silent = wanted.is_empty();
    let of_tools = tools
        .iter()
        .map(|tool| match pick(tool, given, silent) {
            Some(_) if origin != Some(tool.origin.as_str()) => OfTool {
                credentials: None,
                withheld: Some(withheld(tool)),
            },
            credentials => OfTool {
                credentials,
                withheld: None,
            },
        })
        .collect();
    Ok(Assigned {
        of_tools,
        wanted: wanted.into_values().collect(),
    })
}

fn pick<'a>(tool: &PlannedTool, given: &'a Given, silent: bool) -> Option<&'a Credentials> {
    // One header is all that a tool's credentials can be.
    let mut single = tool.security.iter().filter_map(|wanted| match &wanted[..] {
        [scheme] if !matches!(scheme.kind, SchemeKind::Unusable(_)) => Some(scheme),
        _ => None,
    });
    match given {
        Given::None => None,
        Given::Any(credentials) => (silent || single.next().is_some()).then_some(credentials),
        Given::ByScheme(by_scheme) => single.find_map(|scheme| by_scheme.get(&scheme.name)),
    }
}

fn withheld(tool: &PlannedTool) -> Note {
    Note {
        code: "credentials_withheld",
        text: format!(
            "it calls {}, another server than the document's own, and was given no credentials",
            tool.origin
        ),
    }
}

/// What is said of a tool that had credentials and calls another server from now on.
pub(super) fn left_behind(origin: &str) -> Note {
    Note {
        code: "credentials_removed",
        text: format!(
            "it calls {origin}, another server than before, whose credentials it loses: give it some of its own"
        ),
    }
}
