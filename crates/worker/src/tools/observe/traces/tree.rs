//! Who called whom, who worked and who waited.

use super::model::{Span, Trace};
use std::{cmp::Reverse, collections::HashMap};

/// The tree of a trace's spans, by their indexes, with what only the whole tells of each.
pub(crate) struct Tree {
    /// The spans without a parent, in order of their beginnings.
    pub(crate) roots: Vec<usize>,
    /// Each one's parent.
    pub(crate) parent: Vec<Option<usize>>,
    /// Each one's children, in order of their beginnings.
    pub(crate) children: Vec<Vec<usize>>,
    /// Each one's own time, microseconds: what none of its children worked in.
    pub(crate) own: Vec<i64>,
    /// How much of the critical path each is, microseconds: together they make the whole duration of the root that the
    /// path is of.
    pub(crate) critical: Vec<i64>,
    /// How many spans name a parent that is not there.
    pub(crate) orphans: usize,
    /// How many do not lie within their parent's time: asynchronous ones, or those of a clock that goes differently.
    pub(crate) outside: usize,
}

impl Tree {
    /// Makes the tree. What a trace says of itself is believed as far as it makes one: of spans with the same
    /// identifier the first is the parent, and a circle is cut where it began.
    pub(crate) fn of(trace: &Trace) -> Self {
        let (parent, orphans) = parents(trace);
        let mut children = vec![Vec::new(); parent.len()];
        for (index, parent) in parent.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(index);
            }
        }
        let start = |index: &usize| (trace.spans[*index].start, *index);
        children
            .iter_mut()
            .for_each(|children| children.sort_by_key(start));
        let mut roots: Vec<usize> = (0..parent.len()).filter(|i| parent[*i].is_none()).collect();
        roots.sort_by_key(start);
        let is_outside = |index: &usize| {
            let span = &trace.spans[*index];
            parent[*index]
                .is_some_and(|p| span.start < trace.spans[p].start || span.end() > trace.spans[p].end())
        };
        let outside = (0..parent.len()).filter(is_outside).count();
        let own = (0..parent.len())
            .map(|index| own_time(trace, index, &children[index]))
            .collect();
        let critical = critical_path(trace, &roots, &children);
        Self {
            roots,
            parent,
            children,
            own,
            critical,
            orphans,
            outside,
        }
    }

    /// The spans above one, nearest first.
    pub(crate) fn ancestors(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parent[index], |above| self.parent[*above])
    }

    /// All spans from the top to the bottom, each before its children, with how deep it lies.
    pub(crate) fn walk(&self) -> Vec<(usize, usize)> {
        let mut walked = Vec::with_capacity(self.parent.len());
        let mut next: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((index, depth)) = next.pop() {
            walked.push((index, depth));
            next.extend(self.children[index].iter().rev().map(|child| (*child, depth + 1)));
        }
        walked
    }
}

/// Each span's parent, without circles, and how many parents are missing.
fn parents(trace: &Trace) -> (Vec<Option<usize>>, usize) {
    let mut by_id = HashMap::new();
    for (index, span) in trace.spans.iter().enumerate() {
        by_id.entry(span.id.as_str()).or_insert(index);
    }
    let named = |span: &Span| Some(by_id.get(span.parent.as_deref()?).copied());
    let named: Vec<Option<Option<usize>>> = trace.spans.iter().map(named).collect();
    let orphans = named.iter().filter(|parent| matches!(parent, Some(None))).count();
    let mut parent: Vec<Option<usize>> = named.into_iter().map(Option::flatten).collect();
    // 0: not seen; otherwise the walk that saw it.
    let mut seen = vec![0_usize; parent.len()];
    for first in 0..parent.len() {
        let mut at = first;
        while seen[at] == 0 {
            seen[at] = first + 1;
            match parent[at] {
                Some(above) if seen[above] == first + 1 => parent[at] = None,
                Some(above) => at = above,
                None => break,
            }
        }
    }
    (parent, orphans)
}

/// The part of `[start, end]` that lies within a span, as an interval; `None` where that is nothing.
fn within(trace: &Trace, child: usize, (start, end): (i64, i64)) -> Option<(i64, i64)> {
    let span = &trace.spans[child];
    let clipped = (span.start.max(start), span.end().min(end));
    (clipped.0 < clipped.1).then_some(clipped)
}

/// A span's duration without what its children took, time that several took at once counted once.
fn own_time(trace: &Trace, index: usize, children: &[usize]) -> i64 {
    let span = &trace.spans[index];
    let whole = (span.start, span.end());
    let mut covered = 0;
    let mut until = span.start;
    // They are sorted by their beginnings.
    for (start, end) in children.iter().filter_map(|child| within(trace, *child, whole)) {
        covered += (end - start.max(until)).max(0);
        until = until.max(end);
    }
    span.duration - covered
}

/// Walks from the end of the longest root to its beginning, always down into the child that was at work last: whatever
/// was not on this way could have been faster without the trace being so. No part of it is more than a span's own time.
fn critical_path(trace: &Trace, roots: &[usize], children: &[Vec<usize>]) -> Vec<i64> {
    let mut critical = vec![0; trace.spans.len()];
    let longest = |root: &&usize| (trace.spans[**root].duration, Reverse(trace.spans[**root].start));
    let Some(root) = roots.iter().max_by_key(longest) else {
        return critical;
    };
    // A span, its time within its parent's, and its children with theirs: at the end the last to end, and of several
    // that did the longest.
    let open = |index: usize, time: (i64, i64)| {
        let inside =
            |child: &usize| within(trace, *child, time).map(|(start, end)| (end, Reverse(start), *child));
        let mut inside: Vec<(i64, Reverse<i64>, usize)> = children[index].iter().filter_map(inside).collect();
        inside.sort_unstable();
        (index, time, inside)
    };
    let span = &trace.spans[*root];
    let mut stack = vec![open(*root, (span.start, span.end()))];
    // `now`: from there to its end a span has been accounted for.
    while let Some((index, (start, now), inside)) = stack.last_mut() {
        let mut next = std::iter::from_fn(|| inside.pop());
        let Some((child_end, Reverse(child_start), child)) = next.find(|(_, start, _)| start.0 < *now) else {
            critical[*index] += *now - *start;
            stack.pop();
            continue;
        };
        let child_end = child_end.min(*now);
        critical[*index] += *now - child_end;
        *now = child_start;
        stack.push(open(child, (child_start, child_end)));
    }
    critical
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A trace of one service; a span is `(id, parent, start, duration)` and its operation its identifier. A parent `-`
    /// is none, and an identifier that ends with `!` failed.
    pub(in crate::tools::observe::traces) fn trace(spans: &[(&str, &str, i64, i64)]) -> Trace {
        let span = |(id, parent, start, duration): &(&str, &str, i64, i64)| Span {
            id: (*id).into(),
            parent: Some(*parent).filter(|parent| *parent != "-").map(Into::into),
            service: "shop".into(),
            operation: (*id).into(),
            start: *start,
            duration: *duration,
            error: id.ends_with('!').then(String::new),
            ..Span::default()
        };
        Trace {
            id: "0af7651916cd43dd8448eb211c80319c".into(),
            spans: spans.iter().map(span).collect(),
        }
    }

    #[test]
    fn time_that_children_take_at_once_is_counted_once() {
        let tree = Tree::of(&trace(&[
            ("root", "-", 0, 100),
            ("a", "root", 10, 30),
            ("b", "root", 20, 40),
            ("inside b", "root", 25, 5),
            ("c", "root", 80, 10),
        ]));
        assert_eq!(tree.own, [100 - 50 - 10, 30, 40, 5, 10]);
        assert_eq!(tree.children[0], [1, 2, 3, 4]);
        assert_eq!(tree.critical, [30 + 10, 10, 40, 0, 10]);
    }

    #[test]
    fn a_clock_that_goes_differently_is_clipped() {
        let tree = Tree::of(&trace(&[
            ("root", "-", 100, 100),
            ("early", "root", 50, 70),
            ("late", "root", 190, 70),
            ("after", "root", 500, 10),
            ("child of late", "late", 195, 60),
        ]));
        assert_eq!(tree.own, [100 - 20 - 10, 70, 70 - 60, 10, 60]);
        assert_eq!(tree.outside, 3);
        assert_eq!(tree.critical, [70, 20, 5, 0, 5]);
    }

    #[test]
    fn the_critical_path_makes_the_roots_duration_and_no_span_has_more_of_it_than_its_own_time() {
        let trace = trace(&[
            ("root", "-", 0, 100),
            ("a", "root", 0, 60),
            ("b", "root", 50, 50),
            ("c", "a", 10, 30),
            ("d", "b", 60, 40),
            ("e", "b", 55, 45),
        ]);
        let tree = Tree::of(&trace);
        assert_eq!(tree.critical.iter().sum::<i64>(), 100);
        assert!(tree.critical.iter().zip(&tree.own).all(|(path, own)| path <= own));
        assert_eq!(tree.critical, [0, 20, 5, 30, 0, 45]);
    }

    #[test]
    fn circles_and_missing_parents_make_a_tree_all_the_same() {
        let tree = Tree::of(&trace(&[
            ("a", "b", 0, 10),
            ("b", "c", 0, 10),
            ("c", "a", 0, 10),
            ("self", "self", 0, 10),
            ("orphan", "gone", 5, 10),
            ("orphan", "orphan", 6, 1),
        ]));
        assert_eq!(tree.orphans, 1);
        assert_eq!(tree.walk().len(), 6);
        assert_eq!(
            tree.parent[5],
            Some(4),
            "of two with one identifier the first is the parent"
        );
        assert!(tree.walk().contains(&(3, 0)));
    }

    #[test]
    fn a_chain_of_many_thousands_is_no_trouble() {
        let names: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
        let before = |n: usize| n.checked_sub(1).map_or("-", |n| names[n].as_str());
        let spans = names.iter().enumerate().map(|(n, name)| {
            let at = i64::try_from(n).unwrap();
            (name.as_str(), before(n), at, 200_000 - at * 2)
        });
        let spans: Vec<_> = spans.collect();
        let tree = Tree::of(&trace(&spans));
        assert_eq!(tree.walk().last(), Some(&(49_999, 49_999)));
        assert_eq!(tree.critical.iter().sum::<i64>(), 200_000);
    }
}
