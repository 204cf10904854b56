//! What clients are told without having asked: sessions, and open notification streams.

use super::{Answered, Handler};
use crate::metrics::SUBSCRIPTIONS_ACTIVE;
use futures_util::future::join_all;
use rmcp::{ErrorData, model::ErrorCode};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long a client may take to accept a notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);

impl Handler {
    /// Tells clients in sessions that the tenant's tools have changed, when they have.
    pub(crate) async fn tell_sessions(&self) {
        let now = self.shared.catalogue.tools(self.tenant);
        if Arc::ptr_eq(&std::mem::replace(&mut *self.told.lock(), now.clone()), &now) {
            return;
        }
        let peers: Vec<_> = self.sessions.lock().values().cloned().collect();
        join_all(peers.iter().map(async |peer| {
            if tokio::time::timeout(NOTIFY_TIMEOUT, peer.notify_tool_list_changed())
                .await
                .is_err()
            {
                tracing::debug!("a client did not take a notification in time");
            }
        }))
        .await;
        self.forget_closed();
    }

    /// Forgets sessions that are over.
    pub(super) fn forget_closed(&self) {
        self.sessions.lock().retain(|_, peer| !peer.is_transport_closed());
    }

    /// Counts another notification stream, for as long as what it answers lives.
    pub(super) fn subscribed(&self) -> Answered<Subscribed<'_>> {
        let before = self.subscriptions.fetch_add(1, Ordering::Relaxed);
        SUBSCRIPTIONS_ACTIVE.add(1.0, []);
        let subscribed = Subscribed(self);
        if before >= self.shared.max_subscriptions {
            let data = serde_json::json!({"code": "too_many_subscriptions"});
            let message = "this tenant has as many notification streams open as it may";
            return Err(ErrorData::new(ErrorCode::INVALID_REQUEST, message, Some(data)));
        }
        Ok(subscribed)
    }
}

/// An open notification stream, counted.
pub(super) struct Subscribed<'a>(&'a Handler);

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
        SUBSCRIPTIONS_ACTIVE.sub(1.0, []);
    }
}
