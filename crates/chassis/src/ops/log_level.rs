use super::Pretty;
use crate::{Host, Problem, Tasks};
use axum::{body::Bytes, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use telemetry::metrics::own::LOG_LEVEL_CHANGES;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What can be asked for.
const ALLOWED: &str = "off, error, warn, info, debug or trace, alone or for a part of the program, with commas: info,sqlx=warn; \
     where only parts are named (sqlx=debug,mcp_server=trace), the rest keeps its level";

/// The log level, and the one to go back to when a change was for a time.
#[derive(Clone)]
pub(super) struct LogLevel {
    telemetry: telemetry::Handle,
    tasks: Tasks,
    pending: Arc<Mutex<Option<Revert>>>,
}

struct Revert {
    to: String,
    at: Instant,
    /// Cancelled by the next change.
    timer: CancellationToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    level: String,
    #[serde(default, with = "crate::settings::duration_option")]
    ttl: Option<Duration>,
}

#[derive(Serialize)]
pub(super) struct Shown {
    level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverts_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverts_in_seconds: Option<u64>,
}

impl LogLevel {
    pub(super) fn new(host: &Host) -> Self {
        Self {
            telemetry: host.telemetry.clone(),
            tasks: host.tasks.clone(),
            pending: Arc::default(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Option<Revert>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> Shown {
        let pending = self.pending();
        Shown {
            level: self.telemetry.log_level(),
            reverts_to: pending.as_ref().map(|revert| revert.to.clone()),
            reverts_in_seconds: pending
                .as_ref()
                .map(|revert| revert.at.saturating_duration_since(Instant::now()).as_secs()),
        }
    }

    fn change(&self, change: &Change) -> Result<(), telemetry::InvalidDirective> {
        let mut pending = self.pending();
        let before = self.telemetry.log_level();
        self.telemetry.set_log_level(&change.level)?;
        // A second change for a time still goes back to where the first one began.
        let to = match pending.take() {
            Some(earlier) => {
                earlier.timer.cancel();
                earlier.to
            }
            None => before.clone(),
        };
        if let Some(ttl) = change.ttl {
            let timer = CancellationToken::new();
            *pending = Some(Revert {
                to,
                at: Instant::now() + ttl,
                timer: timer.clone(),
            });
            self.tasks
                .spawn("log level revert", self.clone().revert_after(ttl, timer));
        }
        LOG_LEVEL_CHANGES.inc(["request"]);
        // At warn, so that it is seen at most levels.
        tracing::warn!(
            from = before,
            to = self.telemetry.log_level(),
            ttl_seconds = change.ttl.map(|ttl| ttl.as_secs()),
            "log level changed"
        );
        Ok(())
    }

    async fn revert_after(self, ttl: Duration, timer: CancellationToken) {
        if timer.run_until_cancelled(tokio::time::sleep(ttl)).await.is_none() {
            return;
        }
        let mut pending = self.pending();
        // A change may have come between the end of the pause and the lock.
        if timer.is_cancelled() {
            return;
        }
        if let Some(revert) = pending.take() {
            match self.telemetry.set_log_level(&revert.to) {
                Ok(()) => {
                    LOG_LEVEL_CHANGES.inc(["expiry"]);
                    tracing::warn!(to = revert.to, "log level reverted");
                }
                Err(error) => tracing::error!(to = revert.to, %error, "log level cannot be reverted"),
            }
        }
    }
}

/// `GET /admin/log-level`
pub(super) async fn show(State(level): State<LogLevel>) -> Pretty<Shown> {
    Pretty(level.shown())
}

/// `PUT /admin/log-level` with `{"level": "debug", "ttl": "10m"}`. The body is read as JSON whatever its content type
/// says: plain `curl -d` says it is a form.
pub(super) async fn change(State(level): State<LogLevel>, body: Bytes) -> Result<Pretty<Shown>, Problem> {
    let refuse = |detail: String| {
        Problem::bad_request("invalid_log_level", detail)
            .with("allowed", ALLOWED)
            .with("example", json!({"level": "debug", "ttl": "10m"}))
    };
    let change: Change = serde_json::from_slice(&body)
        .map_err(|error| refuse(format!("the body is not as expected: {error}")))?;
    if change
        .ttl
        .is_some_and(|ttl| ttl.is_zero() || ttl > Duration::from_secs(7 * 24 * 3600))
    {
        return Err(refuse(
            "ttl: expected more than nothing and at most 7 days".into(),
        ));
    }
    level.change(&change).map_err(|error| refuse(error.to_string()))?;
    Ok(Pretty(level.shown()))
}
