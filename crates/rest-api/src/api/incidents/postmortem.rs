//! An incident as a draft of its postmortem: what is known is filled in, what only people know is asked.
//!
//! An item of the context may say in its metadata where it belongs: `{"postmortem": "cause"}`, likewise `impact`,
//! `resolution`, `question`, `action`.

use super::{cited::Cited, text};
use crate::store::incidents::Known;
use domain::{
    Time,
    context::ContextItem,
    incident::{Alert, IncidentStatus, by_weight, web_address},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// How many of a context's items are read, and the bytes of them.
pub(super) const MAX_ITEMS: usize = 1000;
pub(super) const MAX_READ: usize = 4 << 20;
/// How many are read at once: what they say of themselves is not held to the bytes of a page.
pub(super) const PAGE: u32 = 50;
/// How many drafts this replica makes at a time.
pub(super) const AT_ONCE: usize = 2;
/// The most bytes of a draft.
const MAX_BYTES: usize = 256 * 1024;
/// How much of each kind is shown, and the characters of a quotation.
const MAX_EVENTS: usize = 200;
const MAX_ALERTS: usize = 20;
const MAX_CITED: usize = 40;
const MAX_QUOTED: usize = 4000;
/// How many notes are quoted, of each kind.
const MAX_NOTES: usize = 10;

/// What an incident's context holds.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Whether the context is there.
    pub is_there: bool,
    /// Its first items.
    pub items: Vec<ContextItem>,
    /// How many more it has.
    pub left_out: usize,
    /// The bytes of those that were read.
    pub bytes: usize,
}

impl Told {
    /// Takes a page of a context with `all` items; says whether there is room for another.
    pub(super) fn take(&mut self, items: Vec<ContextItem>, all: usize) -> bool {
        self.is_there = true;
        let metadata = |item: &ContextItem| serde_json::to_vec(&item.metadata).map_or(0, |json| json.len());
        for item in items {
            let size = item.content.len() + metadata(&item);
            // Where one is too large, those after it are left out, too: no gap that nobody sees.
            if self.bytes + size > MAX_READ || self.items.len() >= MAX_ITEMS {
                self.bytes = MAX_READ;
                break;
            }
            self.bytes += size;
            self.items.push(item);
        }
        self.left_out = all.saturating_sub(self.items.len());
        self.bytes < MAX_READ && self.items.len() < MAX_ITEMS
    }

    /// Whether an item is the product's own, by what it says of itself.
    fn event(item: &ContextItem) -> Option<&str> {
        item.metadata.get("incident_id")?;
        item.metadata.get("event")?.as_str()
    }

    /// The alert that an item of the product's own is about.
    fn alert(item: &ContextItem) -> String {
        let name = item.metadata.get("alert").and_then(|name| name.as_str());
        text::line(name.unwrap_or("an alert"), 200)
    }

    /// What agents and people wrote.
    fn notes(&self) -> impl DoubleEndedIterator<Item = &ContextItem> {
        self.items.iter().filter(|item| Self::event(item).is_none())
    }

    /// Those of them that say that they belong there.
    fn of(&self, section: &str) -> Vec<&ContextItem> {
        let place =
            |item: &&ContextItem| item.metadata.get("postmortem").and_then(|v| v.as_str()) == Some(section);
        self.notes().filter(place).take(MAX_NOTES).collect()
    }

    fn explained(&self) -> impl Iterator<Item = &ContextItem> {
        self.items
            .iter()
            .filter(|item| Self::event(item) == Some("explained") && item.role == "tool")
    }
}

/// The draft.
pub(super) fn draft(known: &Known, told: &Told, now: Time) -> String {
    let draft = Draft { known, told, now };
    let sections = [
        draft.head(),
        draft.summary(),
        draft.impact(),
        draft.timeline(),
        draft.cause(),
        draft.seen(),
        draft.resolution(),
        draft.questions(),
        draft.actions(),
    ];
    let whole = sections.concat();
    if whole.len() <= MAX_BYTES {
        return whole;
    }
    // Its head matters more than its length: a cut block of code is closed by what says so.
    let shown = text::cut(&whole, MAX_BYTES);
    format!("{shown}\n\n````\n\nThe draft is cut here; the context holds all of it.\n")
}

struct Draft<'a> {
    known: &'a Known,
    told: &'a Told,
    now: Time,
}

impl Draft<'_> {
    fn head(&self) -> String {
        let (incident, summary) = (&self.known.incident, &self.known.incident.summary);
        let end = summary.resolved_at.unwrap_or(self.now);
        let so_far = if summary.resolved_at.is_some() {
            ""
        } else {
            " so far"
        };
        let resolved = summary.resolved_at.map_or("not yet".to_owned(), text::time);
        format!(
            "# Postmortem draft: {}\n\n\
             | | |\n|---|---|\n\
             | Severity | {} |\n| Status | {} |\n| Started (UTC) | {} |\n| Resolved (UTC) | {resolved} |\n\
             | Duration | {}{so_far} |\n| Incident | {} |\n| Context | {} |\n\n",
            text::line(&summary.title, 200),
            text::line(&summary.severity, 32),
            summary.status.as_str(),
            text::time(summary.started_at),
            text::duration(summary.started_at, end),
            incident.id,
            incident.context_id,
        )
    }

    fn summary(&self) -> String {
        let alerts = &self.known.incident.summary.alerts;
        let names: Vec<_> = alerts.iter().map(|name| text::line(name, 200)).collect();
        let count = self.known.alerts.len();
        let mut section = format!(
            "## Summary\n\n{} under {}: {}.\n\n",
            plural(count, "alert"),
            plural(names.len(), "name"),
            names.join(", ")
        );
        for item in self.told.explained().take(3) {
            // Below a line that says of what it is, and above a block of JSON that says the same at length.
            let said = item.content.split("\n\n```").next().unwrap_or_default();
            let said = said.split_once("\n\n").map_or(said, |(_, said)| said);
            let said = text::unquoted(said);
            let _ = writeln!(section, "{}", text::quote(&said, MAX_QUOTED));
        }
        section
    }

    fn impact(&self) -> String {
        let mut section = "## Impact\n\n".to_owned();
        self.quote_notes(&mut section, "impact");
        let alerts = by_weight(&self.known.alerts);
        let _ = writeln!(section, "{}", affected(&self.known.alerts));
        for alert in alerts.iter().take(MAX_ALERTS) {
            let end = alert.ends_at.unwrap_or(self.now);
            let _ = write!(
                section,
                "- {} fired for {}",
                text::line(&alert.name, 200),
                text::duration(alert.starts_at, end)
            );
            let said = ["summary", "description", "message"]
                .iter()
                .find_map(|name| alert.annotations.get(*name));
            if let Some(said) = said {
                let _ = write!(section, ": {}", text::line(said, 500));
            }
            section.push('\n');
        }
        if alerts.len() > MAX_ALERTS {
            let _ = writeln!(section, "- … and {} more alerts", alerts.len() - MAX_ALERTS);
        }
        section.push('\n');
        section
    }

    fn timeline(&self) -> String {
        let mut events: Vec<(Time, String)> = Vec::new();
        for alert in &self.known.alerts {
            let name = text::line(&alert.name, 200);
            let whose = alert
                .labels
                .get("service")
                .or_else(|| alert.labels.get("instance"));
            let whose = whose.map_or(String::new(), |of| format!(" ({})", text::line(of, 200)));
            events.push((alert.starts_at, format!("{name}{whose} began to fire")));
            if let Some(end) = alert.ends_at {
                events.push((end, format!("{name}{whose} ended")));
            }
        }
        let heard = "the incident was opened".to_owned();
        events.push((self.known.incident.created_at, heard));
        for item in &self.told.items {
            let event = match Told::event(item) {
                Some("opened" | "changed" | "resolved") => continue,
                Some("explained") => format!("what is known of {} was gathered", Told::alert(item)),
                Some("not_explained") => format!("{} could not be explained", Told::alert(item)),
                _ => {
                    let mut lines = item.content.lines();
                    let said = lines.find(|line| !line.trim().is_empty()).unwrap_or_default();
                    format!("{}: {}", text::line(&item.role, 64), text::line(said, 200))
                }
            };
            events.push((item.created_at, event));
        }
        events.sort_by_key(|(time, _)| *time);
        let mut section = "## Timeline\n\nTimes are UTC.\n\n".to_owned();
        // The beginning and the end matter most.
        let left_out = events.len().saturating_sub(MAX_EVENTS);
        for (place, (time, event)) in events.iter().enumerate() {
            if left_out > 0 && place == MAX_EVENTS / 2 {
                let _ = writeln!(section, "- … {left_out} more …");
            }
            if place < MAX_EVENTS / 2 || place >= MAX_EVENTS / 2 + left_out {
                let _ = writeln!(section, "- {} {event}", text::time(*time));
            }
        }
        section.push('\n');
        section
    }

    fn cause(&self) -> String {
        let mut section = "## Cause\n\n".to_owned();
        if !self.quote_notes(&mut section, "cause") {
            section.push_str("Nobody has written it down yet.\n\n");
        }
        section
    }

    fn seen(&self) -> String {
        let mut cited = Cited::default();
        let mut known = BTreeSet::new();
        let mut add = |all: &mut Vec<String>, some: Vec<String>| {
            let new = some.into_iter().filter(|one| known.insert(one.clone()));
            all.extend(new);
        };
        for item in &self.told.items {
            let of_item = Cited::of_item(&item.content, &item.metadata);
            add(&mut cited.queries, of_item.queries);
            add(&mut cited.traces, of_item.traces);
            add(&mut cited.lines, of_item.lines);
        }
        let mut section = "## What was seen\n\n".to_owned();
        if cited == Cited::default() {
            section.push_str("Nothing that was written down cites a query, a trace or a line of a log.\n\n");
            return section;
        }
        cite(&mut section, "Queries", &cited.queries, |query| {
            format!("{}\n", text::block("", query))
        });
        cite(&mut section, "Traces", &cited.traces, |trace| {
            format!("- {}\n", text::code(trace, 64))
        });
        if !cited.lines.is_empty() {
            let shown: Vec<_> = cited.lines.iter().take(MAX_CITED).map(String::as_str).collect();
            let _ = writeln!(
                section,
                "### Lines of logs\n\n{}",
                text::block("", &shown.join("\n"))
            );
            rest(&mut section, cited.lines.len());
        }
        section
    }

    fn resolution(&self) -> String {
        let summary = &self.known.incident.summary;
        let mut section = "## Resolution\n\n".to_owned();
        let written = self.quote_notes(&mut section, "resolution");
        let Some(end) = summary.resolved_at else {
            section.push_str("It goes on.\n\n");
            return section;
        };
        let _ = writeln!(section, "The last alert ended at {}.\n", text::time(end));
        if !written {
            let before = self
                .told
                .notes()
                .rev()
                .filter(|item| item.created_at <= self.known.incident.updated_at);
            let mut last: Vec<_> = before.take(3).collect();
            last.reverse();
            if !last.is_empty() {
                section.push_str("What was written last before it was over:\n\n");
            }
            for item in last {
                let _ = writeln!(section, "{}", text::quote(&item.content, 1000));
            }
        }
        section
    }

    fn questions(&self) -> String {
        let mut section = "## Open questions\n\n".to_owned();
        self.quote_notes(&mut section, "question");
        let mut asked = Vec::new();
        if self.told.of("cause").is_empty() {
            asked.push("What was the cause, and since when was it there?".to_owned());
        }
        if self.told.of("impact").is_empty() {
            asked.push("Who noticed it, and what did it cost them?".to_owned());
        }
        let delay = self.known.incident.created_at - self.known.incident.summary.started_at;
        if delay.num_minutes() >= 10 {
            let delay = text::duration(
                self.known.incident.summary.started_at,
                self.known.incident.created_at,
            );
            asked.push(format!("Why was it heard of only {delay} after its start?"));
        }
        let unexplained = self.told.items.iter();
        let unexplained = unexplained.filter(|item| Told::event(item) == Some("not_explained"));
        let why = |item| format!("Why could {} not be explained?", Told::alert(item));
        asked.extend(unexplained.take(3).map(why));
        if self.known.incident.summary.status == IncidentStatus::Firing {
            asked.push("What ends it?".to_owned());
        }
        if !self.told.is_there {
            asked.push("Its context was deleted: what was written there?".to_owned());
        }
        if self.told.left_out > 0 {
            asked.push(format!(
                "{} of the context are not in this draft.",
                plural(self.told.left_out, "later item")
            ));
        }
        for question in asked {
            let _ = writeln!(section, "- {question}");
        }
        section.push('\n');
        section
    }

    fn actions(&self) -> String {
        let mut section = "## Actions\n\n".to_owned();
        self.quote_notes(&mut section, "action");
        let mut seen = BTreeSet::new();
        for alert in by_weight(&self.known.alerts) {
            if seen.len() >= MAX_NOTES || !seen.insert(alert.name.as_str()) {
                continue;
            }
            let name = text::line(&alert.name, 200);
            let runbook = alert
                .annotations
                .get("runbook_url")
                .and_then(|url| web_address(url));
            let _ = match runbook {
                Some(url) => writeln!(
                    section,
                    "- [ ] Does the runbook of {name} say what helped? <{url}>"
                ),
                None => writeln!(section, "- [ ] Write a runbook for {name}: the alert names none."),
            };
        }
        section.push_str("- [ ] What prevents it, or tells of it sooner?\n");
        section
    }

    /// Quotes the notes that belong into a section; says whether there are any.
    fn quote_notes(&self, section: &mut String, name: &str) -> bool {
        let notes = self.told.of(name);
        for note in &notes {
            let _ = writeln!(section, "{}", text::quote(&note.content, MAX_QUOTED));
        }
        !notes.is_empty()
    }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What the alerts' labels say is concerned.
fn affected(alerts: &[Alert]) -> String {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for alert in alerts {
        for label in ["service", "namespace", "job", "instance", "tenant_id"] {
            if let Some(value) = alert.labels.get(label).filter(|value| !value.is_empty()) {
                values.entry(label).or_default().insert(value);
            }
        }
    }
    let mut told = String::new();
    for (label, values) in values {
        let shown: Vec<_> = values
            .iter()
            .take(10)
            .map(|value| text::code(value, 200))
            .collect();
        let more = values.len().saturating_sub(10);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let _ = writeln!(told, "- {label}: {}{more}", shown.join(", "));
    }
    told
}

fn cite(section: &mut String, heading: &str, all: &[String], shown: impl Fn(&str) -> String) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(section, "### {heading}\n");
    all.iter()
        .take(MAX_CITED)
        .for_each(|one| section.push_str(&shown(one)));
    section.push('\n');
    rest(section, all.len());
}

fn rest(section: &mut String, all: usize) {
    if all > MAX_CITED {
        let _ = writeln!(section, "… and {} more.\n", all - MAX_CITED);
    }
}

#[cfg(test)]
mod tests;
