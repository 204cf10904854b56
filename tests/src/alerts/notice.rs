//! A notification as it arrived.

use super::scale::ROUTING_KEY;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::fmt;
use tokio::time::Instant;

/// Who was notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// By its incoming webhook.
    Slack,
    /// By its Events API v2.
    PagerDuty,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slack => "Slack",
            Self::PagerDuty => "PagerDuty",
        })
    }
}

/// What was said.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it arrived.
    pub at: Instant,
    /// To whom.
    pub channel: Channel,
    /// Slack's channel, such as `#mcp-alerts`; PagerDuty's `dedup_key`.
    pub room: String,
    /// Whether anything of it still fires.
    pub firing: bool,
    /// The alert's name.
    pub alert: String,
    /// Empty for an alert that is no service's.
    pub service: String,
    /// `critical`, `warning`, `info`.
    pub severity: String,
    /// What fires, a line an alert.
    pub text: String,
}

impl Notice {
    /// Reads a request to Slack's webhook or PagerDuty's Events API v2.
    ///
    /// # Errors
    /// When it is not as the service behind it would take it, or contradicts itself.
    pub fn parse(channel: Channel, body: &Value) -> anyhow::Result<Self> {
        match channel {
            Channel::Slack => slack(body),
            Channel::PagerDuty => pagerduty(body),
        }
    }

    /// Whether it is about this alert of this service.
    pub fn is_about(&self, alert: &str, service: &str) -> bool {
        self.alert == alert && self.service == service
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.firing { "firing" } else { "resolved" };
        let Self {
            channel,
            room,
            alert,
            service,
            severity,
            ..
        } = self;
        write!(f, "{channel} {room}: {state} {alert} {service} ({severity})")
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no text at {pointer}"))
}

/// `[FIRING:2] HighErrorRate rest-api (critical, production)` without a text.
fn title(channel: Channel, title: &str) -> anyhow::Result<Notice> {
    let parts = || {
        let (state, rest) = title.strip_prefix('[')?.split_once("] ")?;
        let (name, rest) = rest.split_once(" (")?;
        let (alert, service) = name.split_once(' ').unwrap_or((name, ""));
        let severity = rest.strip_suffix(')')?.split(',').next()?;
        Some((state, alert, service, severity))
    };
    let (state, alert, service, severity) = parts().with_context(|| format!("not a title: {title}"))?;
    let firing = state.starts_with("FIRING:");
    ensure!(
        firing || state == "RESOLVED",
        "neither firing nor resolved: {title}"
    );
    Ok(Notice {
        at: Instant::now(),
        channel,
        room: String::new(),
        firing,
        alert: alert.to_owned(),
        service: service.to_owned(),
        severity: severity.to_owned(),
        text: String::new(),
    })
}

fn slack(body: &Value) -> anyhow::Result<Notice> {
    let attachment = body.pointer("/attachments/0").context("no attachment")?;
    let mut notice = title(Channel::Slack, text(attachment, "/title")?)?;
    text(body, "/channel")?.clone_into(&mut notice.room);
    text(attachment, "/text")?.clone_into(&mut notice.text);
    ensure!(!text(attachment, "/fallback")?.is_empty(), "no fallback");
    let color = match (notice.firing, notice.severity.as_str()) {
        (false, _) => "good",
        (true, "critical") => "danger",
        (true, "info") => "#439FE0",
        (true, _) => "warning",
    };
    let shown = text(attachment, "/color")?;
    ensure!(shown == color, "the colour is {shown}, expected {color}");
    let mark = if notice.firing { "• *" } else { "✓ " };
    ensure!(
        notice.text.starts_with(mark),
        "the text begins otherwise: {}",
        notice.text
    );
    Ok(notice)
}

fn pagerduty(body: &Value) -> anyhow::Result<Notice> {
    let mut notice = title(Channel::PagerDuty, text(body, "/payload/summary")?)?;
    text(body, "/dedup_key")?.clone_into(&mut notice.room);
    ensure!(
        text(body, "/routing_key")? == ROUTING_KEY,
        "another routing key than the file's"
    );
    ensure!(text(body, "/payload/severity")? == "critical", "not critical");
    ensure!(!text(body, "/payload/source")?.is_empty(), "no source");
    let class = text(body, "/payload/class")?;
    ensure!(class == notice.alert, "class {class} of {}", notice.alert);
    match (notice.firing, text(body, "/event_action")?) {
        (true, "trigger") | (false, "resolve") => {}
        (_, action) => bail!("{action} of what is said to be otherwise"),
    }
    let links: Vec<&str> = body["links"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["href"].as_str())
        .collect();
    let runbook = format!("/docs/runbooks/{}.md", notice.alert);
    ensure!(
        links.iter().any(|link| link.ends_with(&runbook)),
        "no link to the runbook: {links:?}"
    );
    // Nothing is no text.
    let details = &body["payload"]["custom_details"]["firing"];
    let text = details.as_str().or(details.is_null().then_some(""));
    text.context("the details are no text")?
        .clone_into(&mut notice.text);
    Ok(notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn titles_are_taken_apart() {
        let notice =
            title(Channel::Slack, "[FIRING:2] RedisDown rest-api (warning, local)").expect("a title");
        assert!(notice.firing && notice.is_about("RedisDown", "rest-api"));
        assert_eq!(notice.severity, "warning");
        let notice = title(Channel::Slack, "[RESOLVED] Watchdog (none)").expect("a title");
        assert!(!notice.firing && notice.is_about("Watchdog", ""));
        assert!(title(Channel::Slack, "MCP Alert").is_err());
    }

    #[test]
    fn colours_must_fit() {
        let body = |color: &str| {
            json!({"channel": "#a", "attachments": [{"title": "[FIRING:1] A b (critical)", "fallback": "A",
                "text": "• *It fails*", "color": color}]})
        };
        assert!(Notice::parse(Channel::Slack, &body("danger")).is_ok());
        assert!(Notice::parse(Channel::Slack, &body("good")).is_err());
    }

    #[test]
    fn events_must_say_what_they_are() {
        let body = |action: &str, key: &str| {
            json!({"routing_key": key, "event_action": action, "dedup_key": "1",
                "links": [{"href": "https://x/docs/runbooks/A.md"}], "payload": {"summary": "[FIRING:1] A b (critical)",
                "source": "s", "severity": "critical", "class": "A", "custom_details": {"firing": "It fails"}}})
        };
        assert!(Notice::parse(Channel::PagerDuty, &body("trigger", ROUTING_KEY)).is_ok());
        assert!(Notice::parse(Channel::PagerDuty, &body("resolve", ROUTING_KEY)).is_err());
        assert!(Notice::parse(Channel::PagerDuty, &body("trigger", "another")).is_err());
    }
}
