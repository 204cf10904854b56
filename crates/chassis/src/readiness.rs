//! Whether the service takes requests, and how what it depends on is doing.

use crate::DEPENDENCY_UP;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Started and not draining. Dependencies are shown beside it but never change it: a database blip
/// must not take every replica out of the load balancer.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    phase: Phase,
    dependencies: BTreeMap<&'static str, DependencyState>,
}

/// Where in its life the service stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not everything is open yet.
    #[default]
    Starting,
    /// Takes requests.
    Ready,
    /// Was told to end.
    Draining,
}

/// What is known about a dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DependencyState {
    /// `None` until it was tried.
    up: Option<bool>,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Report {
    status: Phase,
    dependencies: BTreeMap<&'static str, DependencyState>,
}

impl Readiness {
    /// Adds something that the service needs, not tried yet. Asking twice for one name gives the same dependency.
    pub fn dependency(&self, name: &'static str) -> Dependency {
        self.lock().dependencies.entry(name).or_insert(DependencyState {
            up: None,
            reason: None,
        });
        Dependency {
            name,
            readiness: self.clone(),
        }
    }

    /// Whether requests are welcome.
    pub fn is_ready(&self) -> bool {
        self.lock().phase == Phase::Ready
    }

    /// The state of everything.
    pub fn report(&self) -> Report {
        let state = self.lock();
        Report {
            status: state.phase,
            dependencies: state.dependencies.clone(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that the service needs, told up or down by whoever uses it. Changes are logged and shown
/// as `dependency_up`.
#[derive(Clone)]
pub struct Dependency {
    name: &'static str,
    readiness: Readiness,
}

impl Dependency {
    /// It answers.
    pub fn up(&self) {
        if self.set(DependencyState {
            up: Some(true),
            reason: None,
        }) == Some(false)
        {
            tracing::info!(dependency = self.name, "dependency is back");
        }
    }

    /// It does not, and why. The reason is shown to whoever asks `/readyz`: no secrets.
    pub fn down(&self, reason: impl Display) {
        let reason = reason.to_string();
        if self.set(DependencyState {
            up: Some(false),
            reason: Some(reason.clone()),
        }) != Some(false)
        {
            tracing::warn!(dependency = self.name, reason, "dependency is down");
        }
    }

    /// Tells what `up` says, for ever. A first connection has a second before it is missed.
    pub async fn follow(self, mut up: watch::Receiver<bool>) {
        // Late or gone makes no difference: the loop below tells.
        let _ = tokio::time::timeout(Duration::from_secs(1), up.wait_for(|up| *up)).await;
        loop {
            if *up.borrow_and_update() {
                self.up();
            } else {
                self.down("it does not answer");
            }
            if up.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether it answered when last tried.
    pub fn is_up(&self) -> bool {
        self.readiness
            .lock()
            .dependencies
            .get(self.name)
            .is_some_and(|state| state.up == Some(true))
    }

    /// Sets the state and gives back whether it was up before.
    fn set(&self, new: DependencyState) -> Option<bool> {
        let up = new.up == Some(true);
        let before = self
            .readiness
            .lock()
            .dependencies
            .insert(self.name, new)
            .and_then(|state| state.up);
        if before != Some(up) {
            DEPENDENCY_UP.set(if up { 1.0 } else { 0.0 }, [self.name]);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_reported_but_does_not_decide() {
        let readiness = Readiness::default();
        let database = readiness.dependency("database");
        assert!(!readiness.is_ready() && !database.is_up());
        readiness.enter(Phase::Ready);
        database.down("connection refused");
        assert!(readiness.is_ready());
        assert_eq!(
            serde_json::to_value(readiness.report()).expect("plain data"),
            serde_json::json!({"status": "ready", "dependencies": {"database": {"up": false, "reason": "connection refused"}}})
        );
        database.up();
        assert!(database.is_up());
        readiness.enter(Phase::Draining);
        assert!(!readiness.is_ready());
    }
}
