//! Messages to a client about its own calls: `notifications/message`, from the level on that it asked for. Never what
//! a call was made with, nor what it answered.
//!
//! In protocol version 2026-07-28 a request says the level in its `_meta`, and hears nothing without. Before, a session
//! has one (`logging/setLevel`); it is this replica's knowledge, so a session that another replica takes up begins with
//! the default again.
#![expect(
    deprecated,
    reason = "both eras have logging levels, which are on their way out of the protocol"
)]

use crate::{execute::limit, settings::Results, span::parts};
use parking_lot::Mutex;
use proto::v1::Execution;
use rmcp::{
    RoleServer,
    model::{LoggingLevel, LoggingMessageNotificationParam, ProtocolVersion},
    service::{Peer, RequestContext},
};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};

/// What sessions hear that have not said otherwise.
const DEFAULT: LoggingLevel = LoggingLevel::Warning;
/// Who speaks.
const LOGGER: &str = "tools";
/// How long a client may take to accept a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// A session's level, and whether it is still there.
type Session = (LoggingLevel, Peer<RoleServer>);

/// The levels of one tenant's sessions, by their ids, while they are here.
#[derive(Default)]
pub(crate) struct Levels(Mutex<HashMap<Box<str>, Session>>);

impl Levels {
    /// From now on the session hears what is of `level` or above.
    pub(crate) fn set(&self, cx: &RequestContext<RoleServer>, level: LoggingLevel) {
        let mut levels = self.0.lock();
        levels.retain(|_, (_, peer)| !peer.is_transport_closed());
        levels.insert(session(cx).into(), (level, cx.peer.clone()));
    }

    fn of(&self, cx: &RequestContext<RoleServer>) -> LoggingLevel {
        self.0
            .lock()
            .get(session(cx))
            .map_or(DEFAULT, |(level, _)| *level)
    }
}

/// The id of the session that a message belongs to; empty where there is none.
pub(crate) fn session(cx: &RequestContext<RoleServer>) -> &str {
    parts(cx)
        .and_then(|parts| parts.headers.get("mcp-session-id")?.to_str().ok())
        .unwrap_or_default()
}

/// Where messages about one request go.
pub(crate) struct Log<'a> {
    peer: &'a Peer<RoleServer>,
    /// The least level that is told; nothing is without one.
    least: Option<LoggingLevel>,
}

impl<'a> Log<'a> {
    /// The log of the request `cx`.
    pub(crate) fn of(levels: &Levels, cx: &'a RequestContext<RoleServer>) -> Self {
        let modern = cx
            .protocol_version()
            .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let least = if modern {
            cx.meta.log_level()
        } else {
            Some(levels.of(cx))
        };
        Self {
            peer: &cx.peer,
            least,
        }
    }

    /// A registered tool is about to run.
    pub(crate) async fn began(&self, tool: &str) {
        self.say(LoggingLevel::Debug, "the tool is called", json!({"tool": tool}))
            .await;
    }

    /// What became of it, as far as it is waited for, and whether all of its result is passed on.
    pub(crate) async fn ended(&self, execution: &Execution, results: &Results) {
        let (level, message) = verdict(execution);
        let mut about = json!({
            "tool": execution.tool,
            "execution_id": execution.id,
            "status": execution.status,
            "attempts": execution.attempts,
        });
        if let Some(error) = &execution.error {
            about["error"] = json!(error.code);
        }
        self.say(level, message, about).await;
        let (limit, size) = (
            limit(execution, results),
            execution.result_json.as_deref().map_or(0, str::len),
        );
        if size > limit {
            let about = json!({
                "tool": execution.tool,
                "execution_id": execution.id,
                "limit_bytes": limit,
                "result_bytes": size,
            });
            self.say(LoggingLevel::Notice, "the result was cut", about).await;
        }
    }

    async fn say(&self, level: LoggingLevel, message: &str, mut about: Value) {
        if self.least.is_none_or(|least| (level as u8) < least as u8) {
            return;
        }
        about["message"] = json!(message);
        let param = LoggingMessageNotificationParam::new(level, about).with_logger(LOGGER);
        let sent = tokio::time::timeout(PATIENCE, self.peer.notify_logging_message(param)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("a message to the client was not delivered");
        }
    }
}

fn verdict(execution: &Execution) -> (LoggingLevel, &'static str) {
    match execution.status.as_str() {
        "succeeded" if execution.attempts > 1 => (
            LoggingLevel::Warning,
            "the tool succeeded after more than one attempt",
        ),
        "succeeded" => (LoggingLevel::Info, "the tool succeeded"),
        "awaiting_approval" => (LoggingLevel::Notice, "the call waits for a person's approval"),
        "queued" | "running" => (LoggingLevel::Notice, "the call goes on without being waited for"),
        "cancelled" => (LoggingLevel::Notice, "the call was cancelled"),
        "outcome_unknown" => (
            LoggingLevel::Error,
            "whether the tool had its effect is not known",
        ),
        _ => (LoggingLevel::Warning, "the tool did not succeed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_it_is_the_louder_it_is_told() {
        let level = |status: &str, attempts| {
            verdict(&Execution {
                status: status.into(),
                attempts,
                ..Default::default()
            })
            .0 as u8
        };
        assert!(level("succeeded", 1) < level("awaiting_approval", 1));
        assert!(level("awaiting_approval", 1) < level("succeeded", 2));
        assert_eq!(level("dead", 3), level("failed", 1));
        assert!(level("failed", 1) < level("outcome_unknown", 1));
        assert_eq!(LoggingLevel::Emergency as u8, 7);
    }
}
