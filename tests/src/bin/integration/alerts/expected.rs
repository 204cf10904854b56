//! Which notifications must come, and how long each took.

use crate::stack::Stack;
use anyhow::{bail, ensure};
use e2e::{
    Json,
    alerts::{
        notice::{Channel, Notice},
        sinks::Sinks,
    },
    wait_at_most,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a scaled alert may take from its fault to its notification, on a busy machine.
const FIRES: Duration = Duration::from_secs(90);
/// And from the end of its fault to the word that it is over: dead letters fire for an hour, scaled a minute.
const RESOLVES: Duration = Duration::from_secs(120);

/// An alert that a fault must raise.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) fault: &'static str,
    pub(super) alert: &'static str,
    pub(super) service: &'static str,
    pub(super) severity: &'static str,
    /// What its text holds: names and values.
    pub(super) says: &'static [&'static str],
}

impl Expected {
    /// Who must be told: critical ones wake somebody besides.
    fn channels(&self) -> &'static [Channel] {
        match self.severity {
            "critical" => &[Channel::PagerDuty, Channel::Slack],
            _ => &[Channel::Slack],
        }
    }

    fn room(&self) -> &'static str {
        match self.severity {
            "info" => "#mcp-alerts-info",
            _ => "#mcp-alerts",
        }
    }

    /// Nobody is told that an info is over.
    fn is_resolved_aloud(&self) -> bool {
        self.severity != "info"
    }

    fn matches(&self, notice: &Notice) -> bool {
        notice.is_about(self.alert, self.service) && notice.severity == self.severity
    }

    /// What is wrong with the notification.
    fn check(&self, notice: &Notice) -> anyhow::Result<()> {
        if notice.channel == Channel::Slack {
            ensure!(
                notice.room == self.room(),
                "{notice}: expected in {}",
                self.room()
            );
        }
        let runbook = format!("/docs/runbooks/{}.md", self.alert);
        for part in self.says.iter().copied().chain([runbook.as_str()]) {
            ensure!(
                notice.text.contains(part),
                "{notice} does not say “{part}”: {}",
                notice.text
            );
        }
        Ok(())
    }
}

/// One expected notification and what became of it.
struct Row {
    expected: Expected,
    channel: Channel,
    began: Instant,
    came: Option<Notice>,
    healed: Option<Instant>,
    over: Option<Instant>,
}

/// All that was expected, and what came.
pub(super) struct Protocol<'a> {
    stack: &'a Stack,
    sinks: &'a Sinks,
    rows: Vec<Row>,
}

impl<'a> Protocol<'a> {
    pub(super) fn new(stack: &'a Stack, sinks: &'a Sinks) -> Self {
        Self {
            stack,
            sinks,
            rows: Vec::new(),
        }
    }

    /// A fault that began at `began` raises these.
    pub(super) fn expect(&mut self, began: Instant, expected: &[Expected]) {
        for expected in expected {
            self.rows.extend(expected.channels().iter().map(|channel| Row {
                expected: expected.clone(),
                channel: *channel,
                began,
                came: None,
                healed: None,
                over: None,
            }));
        }
    }

    /// Waits for the notifications of all alerts that these are and that were expected.
    ///
    /// # Errors
    /// When one does not come, or is not as it should be.
    pub(super) async fn raised(&mut self, alerts: &[Expected]) -> anyhow::Result<()> {
        let deadline = Instant::now() + FIRES;
        loop {
            let notices = self.sinks.notices();
            let mut open = Vec::new();
            for row in self
                .rows
                .iter_mut()
                .filter(|row| row.came.is_none() && named(row, alerts))
            {
                let mine = |n: &&Notice| {
                    n.firing && n.at >= row.began && n.channel == row.channel && row.expected.matches(n)
                };
                match notices.iter().find(mine) {
                    Some(notice) => {
                        row.expected.check(notice)?;
                        row.came = Some(notice.clone());
                    }
                    None => open.push(format!(
                        "{} of {} at {}",
                        row.expected.alert, row.expected.service, row.channel
                    )),
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "not notified within {FIRES:?}: {}\n{}",
                    open.join(", "),
                    self.state().await
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The cause of these ended at `healed`.
    pub(super) fn healed(&mut self, healed: Instant, alerts: &[Expected]) {
        for row in self.rows.iter_mut().filter(|row| named(row, alerts)) {
            row.healed.get_or_insert(healed);
        }
    }

    /// Waits until everybody who was told of these is told that they are over.
    ///
    /// # Errors
    /// When somebody is not.
    pub(super) async fn resolved(&mut self, alerts: &[Expected]) -> anyhow::Result<()> {
        let deadline = Instant::now() + RESOLVES;
        loop {
            let notices = self.sinks.notices();
            let mut open = Vec::new();
            let rows = self
                .rows
                .iter_mut()
                .filter(|row| row.over.is_none() && named(row, alerts));
            for row in rows.filter(|row| row.expected.is_resolved_aloud()) {
                let Some(came) = &row.came else { continue };
                // PagerDuty closes the incident that has the same key.
                let mine = |n: &&Notice| {
                    !n.firing
                        && n.at > came.at
                        && n.channel == came.channel
                        && n.room == came.room
                        && row.expected.matches(n)
                };
                match notices.iter().find(mine) {
                    Some(notice) => row.over = Some(notice.at),
                    None => open.push(format!(
                        "{} of {} at {}",
                        row.expected.alert, row.expected.service, row.channel
                    )),
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "not resolved within {RESOLVES:?}: {}\n{}",
                    open.join(", "),
                    self.state().await
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until Alertmanager keeps this alert quiet for another's sake: that nobody is told of it is no accident.
    ///
    /// # Errors
    /// When it never does.
    pub(super) async fn kept_quiet(&self, alert: &str, service: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/v2/alerts", self.stack.at.alertmanager_url);
        let waited = wait_at_most(FIRES, "an alert to be kept quiet", async || {
            let alerts = self.stack.get(&url, &[]).await.ok()?;
            let quiet = |found: &&Json| {
                let (labels, inhibited) = (&found["labels"], &found["status"]["inhibitedBy"]);
                labels["alertname"] == alert
                    && labels["service"] == service
                    && inhibited.as_array().is_some_and(|by| !by.is_empty())
            };
            alerts.as_array()?.iter().find(quiet).map(|_| ())
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{alert} of {service}\n{}", self.state().await))),
        }
    }

    /// Nobody was told of these (alert, service, severity) since `since`.
    ///
    /// # Errors
    /// When somebody was.
    pub(super) fn silent(&self, since: Instant, quiet: &[(&str, &str, &str)]) -> anyhow::Result<()> {
        for notice in self
            .sinks
            .notices()
            .iter()
            .filter(|notice| notice.firing && notice.at >= since)
        {
            let told = quiet.iter().any(|(alert, service, severity)| {
                notice.is_about(alert, service) && notice.severity == *severity
            });
            ensure!(!told, "should have been kept quiet: {notice}");
        }
        Ok(())
    }

    /// What Alertmanager holds and what arrived, for messages.
    async fn state(&self) -> String {
        let url = format!("{}/api/v2/alerts", self.stack.at.alertmanager_url);
        let mut lines = vec!["Alertmanager has:".to_owned()];
        match self.stack.get(&url, &[]).await {
            Ok(alerts) => lines.extend(alerts.as_array().into_iter().flatten().map(|alert| {
                let (labels, status) = (&alert["labels"], &alert["status"]);
                format!(
                    "  {} {} {} {}",
                    labels["alertname"], labels["service"], labels["severity"], status
                )
            })),
            Err(error) => lines.push(format!("  {error:#}")),
        }
        let series = self
            .stack
            .promql("ALERTS{alertstate=\"pending\"}")
            .await
            .unwrap_or_default();
        lines.push("Pending:".to_owned());
        lines.extend(series.iter().map(|series| format!("  {}", series["metric"])));
        lines.push("Arrived:".to_owned());
        lines.extend(self.sinks.notices().iter().map(|notice| format!("  {notice}")));
        lines.extend(self.sinks.nonsense());
        lines.join("\n")
    }

    /// The table: fault, alert, receiver, seconds to the notification, seconds from healing to its resolution.
    pub(super) fn print(&self) {
        println!(
            "   {:<28} {:<26} {:<11} {:<9} {:<10} {:>8} {:>9}",
            "fault", "alert", "service", "severity", "told", "after s", "over s"
        );
        for row in &self.rows {
            let Expected {
                fault,
                alert,
                service,
                severity,
                ..
            } = &row.expected;
            let seconds = |from: Instant, to: Instant| {
                format!("{:.1}", to.saturating_duration_since(from).as_secs_f32())
            };
            let came = row
                .came
                .as_ref()
                .map_or("never".to_owned(), |came| seconds(row.began, came.at));
            let over = match (row.healed, row.over) {
                _ if !row.expected.is_resolved_aloud() => "-".to_owned(),
                (Some(healed), Some(over)) => seconds(healed, over),
                _ => "never".to_owned(),
            };
            println!(
                "   {fault:<28} {alert:<26} {service:<11} {severity:<9} {:<10} {came:>8} {over:>9}",
                row.channel.to_string()
            );
        }
    }
}

fn named(row: &Row, alerts: &[Expected]) -> bool {
    alerts.iter().any(|expected| {
        (expected.alert, expected.service, expected.severity)
            == (row.expected.alert, row.expected.service, row.expected.severity)
    })
}
