//! What is shown of a trace where not all of it can be.

use super::{
    model::{Span, Trace},
    ms,
    tree::Tree,
};
use crate::tools::observe::answer;
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::HashMap};

/// How many failed spans are told in detail, and how many places where the time went.
const MOST_ERRORS: usize = 10;
const MOST_PLACES: usize = 8;
/// How many attributes of a span are shown, and how long one may be, characters.
const MOST_ATTRIBUTES: usize = 8;
const LONGEST_VALUE: usize = 160;

/// Attributes that tell how a span was made, not what happened in it.
const OF_THE_MAKING: [&str; 7] = [
    "otel.scope.",
    "internal.",
    "thread.",
    "code.",
    "busy_ns",
    "idle_ns",
    "sampler.",
];

/// The spans that are kept where only so many may be, each with how many of those below it are not: first what failed
/// and what the critical path is made of, in turns, then the longest, all with the spans above them as long as these fit.
pub(crate) fn choose(trace: &Trace, tree: &Tree, most: usize) -> Vec<Option<usize>> {
    let mut failed = failed(trace, tree);
    failed.truncate(most);
    let mut path: Vec<usize> = (0..trace.spans.len()).filter(|i| tree.critical[*i] > 0).collect();
    path.sort_by_key(|index| Reverse(tree.critical[*index]));
    let mut longest: Vec<usize> = (0..trace.spans.len()).collect();
    longest.sort_by_key(|index| Reverse(trace.spans[*index].duration));

    let mut kept = vec![false; trace.spans.len()];
    let mut room = most;
    let mut keep = |index: usize, alone: bool| {
        if kept[index] {
            return;
        }
        let above: Vec<usize> = tree
            .ancestors(index)
            .take_while(|above| !kept[*above])
            .take(room)
            .collect();
        if above.len() < room {
            above.iter().for_each(|above| kept[*above] = true);
            kept[index] = true;
            room -= above.len() + 1;
        } else if alone && room > 0 {
            kept[index] = true;
            room -= 1;
        }
    };
    // The beginning is shown in any case.
    tree.roots.first().into_iter().for_each(|root| keep(*root, true));
    for turn in 0..failed.len().max(path.len()) {
        failed.get(turn).into_iter().for_each(|index| keep(*index, true));
        path.get(turn).into_iter().for_each(|index| keep(*index, true));
    }
    longest.into_iter().for_each(|index| keep(index, false));
    counted(tree, &kept)
}

/// The failed spans, those below which none failed first: there it began. Then in order of time.
fn failed(trace: &Trace, tree: &Tree) -> Vec<usize> {
    let is_failed = |index: usize| trace.spans[index].error.is_some();
    let mut handed_up = vec![false; trace.spans.len()];
    let walked = tree.walk();
    for (index, _) in walked.iter().rev() {
        if let Some(above) = tree.parent[*index] {
            handed_up[above] |= handed_up[*index] || is_failed(*index);
        }
    }
    let mut failed: Vec<usize> = (0..trace.spans.len()).filter(|index| is_failed(*index)).collect();
    failed.sort_by_key(|index| (handed_up[*index], trace.spans[*index].start));
    failed
}

/// For each kept span how many are left out for which it is the nearest kept one above.
fn counted(tree: &Tree, kept: &[bool]) -> Vec<Option<usize>> {
    let mut counts: Vec<Option<usize>> = kept.iter().map(|kept| kept.then_some(0)).collect();
    // The nearest kept one at or above each; what is above is walked first.
    let mut nearest: Vec<Option<usize>> = vec![None; kept.len()];
    for (index, _) in tree.walk() {
        nearest[index] = match kept[index] {
            true => Some(index),
            false => tree.parent[index].and_then(|above| nearest[above]),
        };
        if let Some(count) = nearest[index]
            .filter(|at| *at != index)
            .and_then(|at| counts[at].as_mut())
        {
            *count += 1;
        }
    }
    counts
}

/// The kept spans from the top to the bottom.
pub(crate) fn spans(trace: &Trace, tree: &Tree, kept: &[Option<usize>]) -> Vec<Value> {
    let begin = trace.start();
    let shown = tree.walk().into_iter().filter_map(|(index, depth)| {
        let left_out = kept[index]?;
        let span = &trace.spans[index];
        let mut shown = json!({
            "depth": depth,
            "service": &*span.service,
            "operation": answer::cut(&span.operation, 120),
            "start_ms": ms(span.start - begin),
            "ms": ms(span.duration),
            "self_ms": ms(tree.own[index]),
        });
        if tree.critical[index] > 0 {
            shown["critical_ms"] = ms(tree.critical[index]);
        }
        if left_out > 0 {
            shown["left_out"] = left_out.into();
        }
        if let Some(error) = &span.error {
            shown["error"] = match error.is_empty() {
                true => true.into(),
                false => answer::cut(error, 80).into(),
            };
        }
        Some(shown)
    });
    shown.collect()
}

/// What failed, where it began first, with the attributes that say how; and how many there are.
pub(crate) fn errors(trace: &Trace, tree: &Tree) -> (Vec<Value>, usize) {
    let failed = failed(trace, tree);
    let shown = failed.iter().take(MOST_ERRORS).map(|index| {
        let span = &trace.spans[*index];
        let mut shown = json!({
            "span": answer::cut(&span.name(), 160),
            "span_id": span.id,
            "ms": ms(span.duration),
            "attributes": attributes(span),
        });
        if let Some(error) = span.error.as_deref().filter(|error| !error.is_empty()) {
            shown["error"] = answer::cut(error, 300).into();
        }
        if let Some(above) = tree.parent[*index] {
            shown["called_by"] = answer::cut(&trace.spans[above].name(), 160).into();
        }
        shown
    });
    (shown.collect(), failed.len())
}

/// What the critical path is made of, the most first.
pub(crate) fn critical_path(trace: &Trace, tree: &Tree) -> Vec<Value> {
    let mut places: HashMap<(&str, &str), (i64, usize)> = HashMap::new();
    for (span, critical) in trace
        .spans
        .iter()
        .zip(&tree.critical)
        .filter(|(_, critical)| **critical > 0)
    {
        let place = places.entry((&span.service, &span.operation)).or_default();
        *place = (place.0 + critical, place.1 + 1);
    }
    let whole = tree.critical.iter().sum::<i64>().max(1);
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(name, (critical, _))| (Reverse(*critical), *name));
    let shown = places
        .into_iter()
        .take(MOST_PLACES)
        .map(|((service, operation), (critical, count))| {
            json!({
                "span": answer::cut(&format!("{service} {operation}"), 160),
                "ms": ms(critical),
                "percent": critical * 100 / whole,
                "spans": count,
            })
        });
    shown.collect()
}

fn attributes(span: &Span) -> Value {
    let telling = |name: &str| !OF_THE_MAKING.iter().any(|start| name.starts_with(start));
    let telling = span.attributes.iter().filter(|(name, _)| telling(name));
    let shown = telling.take(MOST_ATTRIBUTES);
    let shown = shown.map(|(name, value)| (answer::cut(name, 60), answer::cut(value, LONGEST_VALUE).into()));
    Value::Object(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::trace, *};

    fn kept(trace: &Trace, most: usize) -> Vec<&str> {
        let tree = Tree::of(trace);
        let chosen = choose(trace, &tree, most);
        let kept = tree
            .walk()
            .into_iter()
            .filter(|(index, _)| chosen[*index].is_some());
        kept.map(|(index, _)| trace.spans[index].id.as_str()).collect()
    }

    #[test]
    fn what_failed_and_the_critical_path_stay_with_all_above_them() {
        let mut spans = vec![
            ("root", "-", 0, 1000),
            ("slow", "root", 0, 900),
            ("slowest", "slow", 0, 890),
            ("quick", "root", 5, 5),
            ("quicker", "quick", 6, 2),
            ("failed!", "quicker", 7, 1),
        ];
        let names: Vec<String> = (0..200).map(|n| format!("noise {n}")).collect();
        spans.extend(names.iter().map(|name| (name.as_str(), "slow", 10, 500)));
        let trace = trace(&spans);
        let shown = kept(&trace, 8);
        for name in ["root", "slow", "slowest", "quick", "quicker", "failed!"] {
            assert!(shown.contains(&name), "{name} of {shown:?}");
        }
        assert_eq!(shown.len(), 8);
        assert_eq!(kept(&trace, 1000).len(), 206);

        let tree = Tree::of(&trace);
        let chosen = choose(&trace, &tree, 8);
        let shown = spans_of(&trace, &tree, &chosen);
        let slow = shown.iter().find(|span| span["operation"] == "slow").unwrap();
        assert_eq!(slow["left_out"], 200 - 2);
        let left_out: usize = chosen.iter().flatten().sum();
        assert_eq!(
            left_out + 8,
            trace.spans.len(),
            "all that is not shown is counted"
        );
    }

    use super::spans as spans_of;

    #[test]
    fn a_failure_too_deep_for_what_is_above_it_is_shown_alone() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let mut spans: Vec<_> = (1..100)
            .map(|n| (names[n].as_str(), names[n - 1].as_str(), 0, 10))
            .collect();
        spans.insert(0, ("0", "-", 0, 10));
        spans.push(("failed!", "99", 0, 5));
        let shown = trace(&spans);
        assert_eq!(kept(&shown, 3), ["0", "99", "failed!"]);
    }

    #[test]
    fn where_it_began_comes_before_who_passed_it_on() {
        let trace = trace(&[
            ("root!", "-", 0, 100),
            ("passes on!", "root!", 1, 90),
            ("ended well", "passes on!", 2, 80),
            ("began it!", "ended well", 3, 10),
        ]);
        let (errors, of) = errors(&trace, &Tree::of(&trace));
        let names: Vec<_> = errors
            .iter()
            .map(|error| error["span"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["shop began it!", "shop root!", "shop passes on!"]);
        assert_eq!((of, &errors[0]["called_by"]), (3, &json!("shop ended well")));
    }
}
