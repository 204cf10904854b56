//! The labels that a query's answer has.

use std::collections::BTreeSet;

/// The labels of a vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Labels {
    /// Their names.
    pub(super) names: BTreeSet<String>,
    /// Whether there are no others.
    pub(super) known: bool,
    /// Whether each series has them all: so after an aggregation by them, while a metric's series may lack some.
    pub(super) exact: bool,
}

impl Labels {
    /// Of a metric: some of these.
    pub(super) fn some_of(names: BTreeSet<String>) -> Self {
        Self {
            names,
            known: true,
            exact: false,
        }
    }

    /// All of these.
    pub(super) fn all_of<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        Self {
            names: names.into_iter().cloned().collect(),
            known: true,
            exact: true,
        }
    }

    /// There is no telling.
    pub(super) fn unknown() -> Self {
        Self {
            names: BTreeSet::new(),
            known: false,
            exact: false,
        }
    }

    /// A number, and what has no labels at all.
    pub(super) fn none() -> Self {
        Self::all_of([])
    }

    pub(super) fn may_have(&self, name: &str) -> bool {
        !self.known || self.names.contains(name)
    }

    pub(super) fn with(mut self, name: &str) -> Self {
        self.names.insert(name.to_owned());
        self
    }

    pub(super) fn without<'a>(mut self, names: impl IntoIterator<Item = &'a String>) -> Self {
        for name in names {
            self.names.remove(name);
        }
        self
    }

    /// Of either.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.exact = self.exact && other.exact && self.names == other.names;
        self.known &= other.known;
        self.names.extend(other.names);
        self
    }

    /// For a person.
    pub(super) fn shown(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        format!("{{{}}}", names.join(", "))
    }
}
