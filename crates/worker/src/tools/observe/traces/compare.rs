//! Two traces of one kind, by what was done in them: where the time went.

use super::{model::Trace, ms, tree::Tree};
use crate::tools::observe::answer;
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::HashMap};

/// How many of a path's last steps are shown.
const SHOWN_STEPS: usize = 4;

/// What one trace has of an operation that was reached on the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) count: usize,
    /// Microseconds of the critical path.
    pub(crate) critical: i64,
    /// Their durations, microseconds.
    pub(crate) total: i64,
    pub(crate) errors: usize,
}

/// An operation that was reached on one way, in both traces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The way to it from the top, its end where it is long.
    pub(crate) path: String,
    pub(crate) slow: Part,
    pub(crate) fast: Part,
}

impl Place {
    /// How much longer it was on the critical path of the slow trace, microseconds. All differences together are that
    /// of the traces' durations.
    pub(crate) fn difference(&self) -> i64 {
        self.slow.critical - self.fast.critical
    }

    /// As an answer shows it.
    pub(crate) fn shown(&self) -> Value {
        let part = |part: &Part| match part.count {
            0 => Value::Null,
            count => {
                let mut shown =
                    json!({ "spans": count, "critical_ms": ms(part.critical), "ms": ms(part.total) });
                if part.errors > 0 {
                    shown["errors"] = part.errors.into();
                }
                shown
            }
        };
        json!({
            "path": self.path,
            "difference_ms": ms(self.difference()),
            "slow": part(&self.slow),
            "fast": part(&self.fast),
        })
    }
}

/// Ways from the top: each is a name below another way.
#[derive(Default)]
struct Paths<'a> {
    known: HashMap<(Option<usize>, &'a str, &'a str), usize>,
    all: Vec<(Option<usize>, &'a str, &'a str)>,
}

impl<'a> Paths<'a> {
    fn of(&mut self, trace: &'a Trace, tree: &Tree) -> Vec<(usize, Part)> {
        let mut path: Vec<Option<usize>> = vec![None; trace.spans.len()];
        let walked = tree.walk().into_iter().map(|(index, _)| {
            let span = &trace.spans[index];
            let above = tree.parent[index].and_then(|above| path[above]);
            let step = (above, &*span.service, span.operation.as_str());
            let all = &mut self.all;
            let at = *self.known.entry(step).or_insert_with(|| {
                all.push(step);
                all.len() - 1
            });
            path[index] = Some(at);
            let part = Part {
                count: 1,
                critical: tree.critical[index],
                total: span.duration,
                errors: usize::from(span.error.is_some()),
            };
            (at, part)
        });
        walked.collect()
    }

    fn shown(&self, at: usize) -> String {
        let steps = std::iter::successors(Some(at), |at| self.all[*at].0);
        let mut shown: Vec<String> = steps
            .take(SHOWN_STEPS)
            .map(|at| answer::cut(&format!("{} {}", self.all[at].1, self.all[at].2), 80))
            .collect();
        if std::iter::successors(Some(at), |at| self.all[*at].0)
            .nth(SHOWN_STEPS)
            .is_some()
        {
            shown.push("…".to_owned());
        }
        shown.reverse();
        shown.join(" > ")
    }
}

/// Every operation of both, the largest difference first.
pub(crate) fn places(slow: &Trace, fast: &Trace) -> Vec<Place> {
    let mut paths = Paths::default();
    let of_slow = paths.of(slow, &Tree::of(slow));
    let of_fast = paths.of(fast, &Tree::of(fast));
    let mut parts = vec![(Part::default(), Part::default()); paths.all.len()];
    let add = |sum: &mut Part, part: Part| {
        sum.count += part.count;
        sum.critical += part.critical;
        sum.total += part.total;
        sum.errors += part.errors;
    };
    of_slow
        .into_iter()
        .for_each(|(at, part)| add(&mut parts[at].0, part));
    of_fast
        .into_iter()
        .for_each(|(at, part)| add(&mut parts[at].1, part));
    let places = parts.into_iter().enumerate().map(|(at, (slow, fast))| Place {
        path: paths.shown(at),
        slow,
        fast,
    });
    let mut places: Vec<Place> = places.collect();
    places.sort_by_key(|place| {
        Reverse((
            place.difference().abs(),
            (place.slow.total - place.fast.total).abs(),
        ))
    });
    places
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::trace, *};

    #[test]
    fn the_difference_lies_where_the_time_went() {
        let named = |mut trace: Trace| {
            for span in &mut trace.spans {
                span.operation = span.operation.trim_end_matches(char::is_numeric).to_owned();
            }
            trace
        };
        let slow = named(trace(&[
            ("request", "-", 0, 200),
            ("load", "request", 10, 170),
            ("query1", "load", 10, 50),
            ("query2", "load", 60, 50),
            ("query3", "load", 110, 50),
            ("log", "request", 185, 5),
        ]));
        let fast = named(trace(&[
            ("request", "-", 0, 50),
            ("load", "request", 10, 20),
            ("query1", "load", 10, 15),
            ("render", "request", 30, 10),
        ]));
        let places = places(&slow, &fast);
        assert_eq!(places.iter().map(Place::difference).sum::<i64>(), 150);
        let first = &places[0];
        assert_eq!(first.path, "shop request > shop load > shop query");
        assert_eq!(
            (first.slow.count, first.fast.count, first.difference()),
            (3, 1, 135)
        );
        let only = |path: &str| places.iter().find(|place| place.path.ends_with(path)).unwrap();
        assert_eq!(only("log").shown()["fast"], Value::Null);
        assert_eq!(only("render").shown()["slow"], Value::Null);
    }

    #[test]
    fn the_end_of_a_long_way_is_shown() {
        let deep = trace(&[
            ("a", "-", 0, 9),
            ("b", "a", 0, 9),
            ("c", "b", 0, 9),
            ("d", "c", 0, 9),
            ("e", "d", 0, 9),
        ]);
        let places = places(&deep, &trace(&[]));
        assert_eq!(places[0].path, "… > shop b > shop c > shop d > shop e");
    }
}
