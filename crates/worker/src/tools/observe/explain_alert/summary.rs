//! An alert in a few sentences, for whoever reads nothing else.

use super::{Subject, evidence};
use crate::tools::observe::{
    answer,
    health::{firing::Alert, words},
};
use evidence::Evidence;

/// Three to six sentences of Markdown.
pub(super) fn markdown(subject: &Subject, evidence: &Evidence) -> String {
    let sentences = [
        Some(state(subject)),
        meaning(subject),
        values(subject, evidence),
        cause(subject, evidence),
        lines(evidence),
        traces(subject, evidence),
    ];
    sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn state(subject: &Subject) -> String {
    let name = &subject.name;
    let whose = subject
        .service()
        .map_or(String::new(), |service| format!(" for `{service}`"));
    let Some((first, _)) = subject.instances.first() else {
        let known = if subject.is_sure {
            "is not active now"
        } else {
            "is not known to be active"
        };
        return format!("**{name}**{whose} {known}.");
    };
    let severity = match first.label("severity") {
        "" => String::new(),
        severity => format!(" ({severity})"),
    };
    let state = match first.state.as_str() {
        "firing" => format!("fires{whose}"),
        "pending" => format!("is pending{whose} (its expression holds, not yet for long enough)"),
        quiet => format!("fires{whose}, {quiet},"),
    };
    let since = first.since.map_or(String::new(), |since| {
        let lasted = words::lasted(subject.now - since);
        format!(" since {} ({lasted})", answer::time(since))
    });
    let others = match subject.instances.len() - 1 {
        0 => String::new(),
        1 => "; one more of this name is active".to_owned(),
        others => format!("; {others} more of this name are active"),
    };
    format!("**{name}**{severity} {state}{since}{others}.")
}

/// What its author says it means.
fn meaning(subject: &Subject) -> Option<String> {
    let text = subject
        .annotation("description")
        .or_else(|| subject.annotation("summary"));
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    text.map(|text| sentence(&answer::cut(text, 400))).or_else(|| {
        // Without the rule, the first sentence of its runbook.
        let (book, _) = super::runbook::beginning(&subject.name)?;
        let paragraph = book.split("\n\n").next()?.replace('\n', " ");
        let first = paragraph
            .split_once(". ")
            .map_or(paragraph.as_str(), |(first, _)| first);
        Some(sentence(first))
    })
}

fn values(subject: &Subject, evidence: &Evidence) -> Option<String> {
    // Objectives' own descriptions tell how fast the budget burns, which says more.
    let measured = evidence
        .measured
        .as_ref()
        .filter(|_| !subject.labels.contains_key("slo"))?;
    let own = |alert: &Alert| {
        evidence.values.iter().find(|sample| {
            let named = sample.labels.iter().filter(|(name, _)| *name != "__name__");
            named.clone().count() > 0 && named.into_iter().all(|(name, value)| alert.label(name) == value)
        })
    };
    let first = subject.instances.first();
    let sample = first
        .and_then(|(alert, _)| own(alert))
        .or_else(|| evidence.values.first())?;
    // A number that nothing bounds says nothing.
    let bound = Some(&measured.bound).filter(|bound| !bound.is_empty())?;
    Some(format!(
        "Its expression now gives {} (it fires at `{bound}`).",
        words::short(sample.value)
    ))
}

/// The part of the service that stands out.
fn cause(subject: &Subject, evidence: &Evidence) -> Option<String> {
    if let Some(burning) = evidence.burning.first() {
        let share = burning["share"].as_f64().unwrap_or_default();
        let parts = burning
            .as_object()?
            .iter()
            .filter(|(name, _)| !["share", "service"].contains(&name.as_str()));
        let parts: Vec<String> = parts
            .filter_map(|(name, value)| Some(format!("{name} `{}`", value.as_str()?)))
            .collect();
        return Some(format!(
            "Of the last hour's bad events {} come from {}.",
            words::percent(share),
            parts.join(", ")
        ));
    }
    evidence.routes.sentence(subject.is_about_time())
}

fn lines(evidence: &Evidence) -> Option<String> {
    let lines = &evidence.lines;
    let most = lines.groups.first()?;
    let text = most["line"].as_str()?;
    let read = if lines.more {
        format!("at least {}", lines.read)
    } else {
        lines.read.to_string()
    };
    Some(format!(
        "Around its beginning the service logged {read} warnings or errors, most often ({}×): `{}`.",
        evidence::count(most),
        answer::cut(text, 160).replace('`', "'")
    ))
}

/// One that failed, or one that shows where the time goes; any other proves nothing.
fn traces(subject: &Subject, evidence: &Evidence) -> Option<String> {
    let trace = evidence.traces.first()?;
    if trace.errors == 0 && !subject.is_about_time() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a trace")]
    let took = words::seconds(trace.duration as f64 / 1e6);
    let failed = match trace.errors {
        0 => String::new(),
        1 => ", a span failed".to_owned(),
        errors => format!(", {errors} spans failed"),
    };
    let said = trace.said.as_ref().filter(|said| **said != trace.root);
    let said = said.map_or(String::new(), |said| {
        format!(": {}", answer::cut(said, 120).replace('`', "'"))
    });
    Some(format!(
        "Example trace `{}` of {} took {took}{failed}{said}.",
        trace.id, trace.root
    ))
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?', '…']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}
