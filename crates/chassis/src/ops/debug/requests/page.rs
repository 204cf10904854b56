//! The page: a table, newest first, with a bar for each piece of work. It loads nothing and runs nothing.

use chrono::{DateTime, SecondsFormat, Utc};
use std::{
    fmt::{self, Display, Write},
    sync::Arc,
    time::Duration,
};
use telemetry::{
    context::RequestId,
    recent::{Child, Reason, Record},
};

/// The bars are drawn on so many units, whatever their width on the screen is.
const WIDTH: f64 = 1000.0;
/// The height of a bar, and of the space between two.
const BAR: usize = 9;
const GAP: usize = 2;

const STYLE: &str = "
body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;color:#222;background:#fff}
h1{font-size:1.2rem}a{color:#0550ae}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #ddd}
td.n{text-align:right;white-space:nowrap}td.bars{width:40%;min-width:16rem}
code{font-size:12px;word-break:break-all}small{color:#666}
svg{display:block;width:100%;background:#f3f3f3}
ul{margin:.3rem 0 0;padding-left:1.1rem;font-size:12px}
.db{fill:#1f77b4}.redis{fill:#d62728}.grpc{fill:#2ca02c}.http{fill:#ff7f0e}
.failed{stroke:#000;stroke-width:2}
b.failed{color:#b00020}b.slow{color:#9a6700}b.debug{color:#0550ae}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}svg{background:#2a2a2a}a{color:#79b8ff}
th,td{border-color:#333}small{color:#999}.failed{stroke:#fff}}
";

pub(super) struct Page<'a> {
    service: &'a str,
    ui: Option<&'a str>,
    /// The one request or trace that the page is about.
    id: Option<&'a str>,
    /// Lets this page's style be applied, and no other.
    nonce: RequestId,
}

impl<'a> Page<'a> {
    pub(super) fn new(service: &'a str, ui: Option<&'a str>, id: Option<&'a str>) -> Self {
        Self {
            service,
            ui,
            id,
            nonce: RequestId::new(),
        }
    }

    /// The policy that the page is sent with: nothing may be loaded, run, framed or sent anywhere.
    pub(super) fn policy(&self) -> String {
        format!(
            "default-src 'none'; style-src 'nonce-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            self.nonce
        )
    }

    pub(super) fn render(&self, records: &[Arc<Record>]) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut page, records);
        page
    }

    fn write(&self, out: &mut String, records: &[Arc<Record>]) -> fmt::Result {
        let service = Text(self.service);
        write!(
            out,
            "<!doctype html><html lang=en><meta charset=utf-8><title>Requests: {service}</title>\
             <style nonce=\"{}\">{STYLE}</style>",
            self.nonce
        )?;
        match self.id {
            Some(id) => write!(
                out,
                "<h1>{service}: {}</h1><p><a href=\"/debug/traces\">all</a></p>",
                Text(id)
            )?,
            None => self.head(out)?,
        }
        if records.is_empty() {
            return out.write_str("<p>There are none.");
        }
        out.write_str(
            "<table><tr><th>Arrived<th>Request<th>Status<th>Took, ms<th>Own, ms<th>Why<th>What was done</tr>",
        )?;
        for record in records {
            self.row(out, record)?;
        }
        out.write_str("</table>")
    }

    fn head(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<h1>{}: the last slow, failed and debugged requests</h1><p><a href=\"/debug/traces\">all</a>",
            Text(self.service)
        )?;
        for reason in Reason::ALL.map(Reason::as_str) {
            write!(out, " · <a href=\"/debug/traces?reason={reason}\">{reason}</a>")?;
        }
        out.write_str(" · <a href=\"/debug/traces?format=json\">JSON</a></p>")
    }

    fn row(&self, out: &mut String, record: &Record) -> fmt::Result {
        let arrived = DateTime::<Utc>::from(record.started).to_rfc3339_opts(SecondsFormat::Millis, true);
        let id = Text(record.request_id.as_str());
        write!(
            out,
            "<tr><td>{arrived}<td>{} <small>{}</small><br><code><a href=\"/debug/traces/{id}?format=html\">{id}</a></code>",
            Text(&record.name),
            record.kind.as_str(),
        )?;
        match self.ui.filter(|_| record.sampled) {
            Some(ui) => write!(
                out,
                "<br><code><a href=\"{}/trace/{trace}\">{trace}</a></code>",
                Text(ui),
                trace = record.trace_id
            )?,
            None => write!(
                out,
                "<br><code>{}</code> <small>{}</small>",
                record.trace_id,
                if record.sampled { "" } else { "not sampled" }
            )?,
        }
        if let Some(tenant) = &record.tenant {
            write!(out, "<br><small>{}</small>", Text(tenant))?;
        }
        write!(
            out,
            "<td>{}<td class=n>{}<td class=n>{}<td>",
            Text(&record.status),
            Ms(record.duration),
            Ms(record.own_time())
        )?;
        for reason in record.reasons.iter().map(|reason| reason.as_str()) {
            write!(out, "<b class={reason}>{reason}</b> ")?;
        }
        out.write_str("<td class=bars>")?;
        bars(out, record)?;
        out.write_str("</tr>")
    }
}

/// A bar for each child, where it began and as long as it took.
fn bars(out: &mut String, record: &Record) -> fmt::Result {
    if record.children.is_empty() {
        return Ok(());
    }
    let ends = record.children.iter().map(|child| child.offset + child.took);
    let whole = ends
        .fold(record.duration, Duration::max)
        .max(Duration::from_micros(1));
    let height = record.children.len() * (BAR + GAP);
    write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" height={height} preserveAspectRatio=none>"
    )?;
    for (row, child) in record.children.iter().enumerate() {
        bar(out, child, row * (BAR + GAP), whole)?;
    }
    out.write_str("</svg><ul>")?;
    for child in &record.children {
        write!(
            out,
            "<li>{} {}: {} ms after {} ms{}",
            child.kind.as_str(),
            Text(&child.name),
            Ms(child.took),
            Ms(child.offset),
            if child.failed {
                ", <b class=failed>failed</b>"
            } else {
                ""
            }
        )?;
    }
    if record.children_dropped > 0 {
        write!(out, "<li>and {} more", record.children_dropped)?;
    }
    out.write_str("</ul>")
}

fn bar(out: &mut String, child: &Child, y: usize, whole: Duration) -> fmt::Result {
    let share = |time: Duration| time.as_secs_f64() / whole.as_secs_f64() * WIDTH;
    // Never so thin that it cannot be seen.
    let width = share(child.took).max(2.0);
    let x = share(child.offset).min(WIDTH - width);
    write!(
        out,
        "<rect class=\"{}{}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\"><title>{}</title></rect>",
        child.kind.as_str(),
        if child.failed { " failed" } else { "" },
        Text(&child.name),
    )
}

/// Milliseconds with three places.
struct Ms(Duration);

impl Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0.as_micros() as f64 / 1000.0)
    }
}

/// A text that cannot become markup, between tags or in quotes.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}
