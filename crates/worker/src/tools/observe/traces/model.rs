//! Traces as these tools think of them, whoever kept them.

use crate::sources::Matcher;
use std::{collections::BTreeMap, sync::Arc};

/// Names and values.
pub(crate) type Attributes = Vec<(String, String)>;

/// A trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    /// Its spans, in any order.
    pub(crate) spans: Vec<Span>,
}

/// A span.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Span {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) service: Arc<str>,
    pub(crate) operation: String,
    /// `server`, `client`, …; empty where it was not told.
    pub(crate) kind: String,
    /// Microseconds since 1970.
    pub(crate) start: i64,
    /// Microseconds.
    pub(crate) duration: i64,
    /// That it failed, and what is said of it; may be empty.
    pub(crate) error: Option<String>,
    pub(crate) attributes: Attributes,
    /// The attributes of whatever made it.
    pub(crate) resource: Arc<Attributes>,
}

impl Span {
    /// Microseconds since 1970.
    pub(crate) fn end(&self) -> i64 {
        self.start.saturating_add(self.duration)
    }

    /// Its service and its operation.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.service, self.operation)
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.attributes.iter().chain(self.resource.iter());
        all.filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Trace {
    /// Whether somebody may see it of whom these attributes are asked: each stands on at least one span, and nowhere
    /// with another value. What belongs to two tenants is for neither.
    pub(crate) fn is_open_to(&self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|matcher| {
            let mut values = self.spans.iter().flat_map(|span| span.values(&matcher.name));
            values.next().is_some_and(|value| value == matcher.value)
                && values.all(|value| value == matcher.value)
        })
    }

    /// The span that stands for the whole: the longest of those that have no parent here, or else the first.
    pub(crate) fn root(&self) -> Option<&Span> {
        let known: std::collections::HashSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        let has_parent = |span: &Span| {
            span.parent
                .as_deref()
                .is_some_and(|parent| known.contains(parent))
        };
        let roots = self.spans.iter().filter(|span| !has_parent(span));
        let longest = roots.max_by_key(|span| (span.duration, -span.start));
        longest.or_else(|| self.spans.iter().min_by_key(|span| span.start))
    }

    /// When its first span began, microseconds since 1970.
    pub(crate) fn start(&self) -> i64 {
        self.spans.iter().map(|span| span.start).min().unwrap_or_default()
    }

    /// From the beginning of its first span to the end of its last, microseconds.
    pub(crate) fn duration(&self) -> i64 {
        let end = self.spans.iter().map(Span::end).max().unwrap_or_default();
        end.saturating_sub(self.start())
    }

    /// How many spans each service has.
    pub(crate) fn services(&self) -> BTreeMap<&str, usize> {
        let mut services = BTreeMap::new();
        for span in &self.spans {
            *services.entry(&*span.service).or_default() += 1;
        }
        services
    }

    /// How many spans failed.
    pub(crate) fn errors(&self) -> usize {
        self.spans.iter().filter(|span| span.error.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(spans: &[&[(&str, &str)]]) -> Trace {
        let span = |attributes: &&[(&str, &str)]| Span {
            attributes: attributes
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            ..Span::default()
        };
        Trace {
            spans: spans.iter().map(span).collect(),
            ..Trace::default()
        }
    }

    #[test]
    fn a_trace_is_open_to_whom_alone_it_belongs() {
        let matcher = |name: &str, value: &str| Matcher {
            name: name.into(),
            value: value.into(),
        };
        let acme = [matcher("tenant_id", "acme")];
        assert!(trace(&[&[("tenant_id", "acme")], &[]]).is_open_to(&acme));
        assert!(!trace(&[&[("other", "acme")], &[]]).is_open_to(&acme));
        assert!(!trace(&[&[("tenant_id", "acme")], &[("tenant_id", "globex")]]).is_open_to(&acme));
        assert!(!trace(&[&[("tenant_id", "globex")], &[("tenant_id", "acme")]]).is_open_to(&acme));
        assert!(!trace(&[]).is_open_to(&acme));
        let two = [matcher("tenant_id", "acme"), matcher("region", "eu")];
        assert!(!trace(&[&[("tenant_id", "acme")]]).is_open_to(&two));
        assert!(trace(&[&[("tenant_id", "acme")], &[("region", "eu")]]).is_open_to(&two));
        assert!(trace(&[]).is_open_to(&[]));
    }

    #[test]
    fn what_the_process_says_counts_too() {
        let mut shared = trace(&[&[("tenant_id", "acme")]]);
        shared.spans[0].resource = Arc::new(vec![("tenant_id".into(), "globex".into())]);
        let acme = Matcher {
            name: "tenant_id".into(),
            value: "acme".into(),
        };
        assert!(!shared.is_open_to(&[acme]));
    }
}
