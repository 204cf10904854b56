//! What clients are told without having asked: sessions, and open notification streams.

use super::{Answered, Handler, Shared};
use crate::{error::Result, logging, metrics::SUBSCRIPTIONS_ACTIVE, span::caller, subscriptions::Subscriber};
use futures_util::{Stream, StreamExt as _, future::join_all};
use rmcp::{
    ErrorData, RoleServer,
    model::ErrorCode,
    service::{RequestContext, SubscriptionContext},
};
use std::{sync::atomic::Ordering, time::Duration};

/// How long a client may take to accept a notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);

impl Handler {
    /// Tells clients in sessions that the tenant's tools have changed, when they have.
    pub(crate) async fn tell_sessions(&self) {
        let now = self.shared.catalogue.shown(self.tenant);
        if std::mem::replace(&mut *self.told.lock(), now.clone()).is(&now) {
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

    /// Tells a notification stream of every change to the tenant's tools, until it takes no more.
    pub(super) async fn tell_of_tools(&self, cx: &SubscriptionContext) {
        let mut changes = self.shared.catalogue.changes();
        let mut told = self.shared.catalogue.shown(self.tenant);
        let wanted = cx.accepted().tools_list_changed == Some(true);
        while changes.changed().await.is_ok() {
            let now = self.shared.catalogue.shown(self.tenant);
            let changed = !std::mem::replace(&mut told, now.clone()).is(&now);
            if changed && wanted && cx.sink().notify_tool_list_changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the session that a message belongs to of changes to a resource, from now on.
    pub(super) async fn subscribe_session(&self, uri: &str, cx: &RequestContext<RoleServer>) -> Result<()> {
        let (caller, session) = (caller(cx)?, logging::session(cx));
        let Shared {
            upstream,
            door,
            background,
            ..
        } = &*self.shared;
        self.subscriptions.sessions.check_room(session, uri)?;
        let follow = self.subscriptions.follow(upstream, caller.clone(), uri).await?;
        let subscriber = Subscriber {
            session: session.into(),
            peer: cx.peer.clone(),
            caller,
        };
        let sessions = &self.subscriptions.sessions;
        sessions.add(subscriber, uri.to_owned(), follow, door.clone(), background);
        Ok(())
    }

    /// Counts another notification stream, for as long as what it answers lives.
    pub(super) fn subscribed(&self) -> Answered<Subscribed<'_>> {
        let before = self.streams.fetch_add(1, Ordering::Relaxed);
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

/// Tells a notification stream which of its resources changed, until it takes no more.
pub(super) async fn tell_of_resources(
    cx: &SubscriptionContext,
    mut changed: impl Stream<Item = String> + Unpin,
) {
    while let Some(uri) = changed.next().await {
        if cx.sink().notify_resource_updated(uri).await.is_err() {
            return;
        }
    }
    // Nothing more to come of resources: of tools there may be.
    std::future::pending().await
}

/// An open notification stream, counted.
pub(super) struct Subscribed<'a>(&'a Handler);

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        SUBSCRIPTIONS_ACTIVE.sub(1.0, []);
    }
}
