//! Subscriptions of sessions (`resources/subscribe`): one task each, until the client takes it back, the session ends,
//! or the key is good no more.

use super::{Follow, too_many};
use crate::{auth::Door, caller::Caller, error::Result};
use chassis::Tasks;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use rmcp::{RoleServer, model::ResourceUpdatedNotificationParam, service::Peer};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a client may take to accept a notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether the session is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Session = HashMap<String, DropGuard>;

/// The subscriptions of one tenant's sessions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    open: Arc<Mutex<HashMap<Box<str>, Session>>>,
    max: usize,
}

/// Who has subscribed.
pub(crate) struct Subscriber {
    /// The session's id.
    pub(crate) session: Box<str>,
    /// The session's client.
    pub(crate) peer: Peer<RoleServer>,
    /// Whose key it was.
    pub(crate) caller: Arc<Caller>,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self {
            open: Arc::default(),
            max,
        }
    }

    /// Whether the session may have a subscription to `uri`, besides those that it has.
    pub(crate) fn check_room(&self, session: &str, uri: &str) -> Result<()> {
        let open = self.open.lock();
        let full = |session: &Session| session.len() >= self.max && !session.contains_key(uri);
        if open.get(session).is_some_and(full) {
            return Err(too_many(
                "this session has subscribed to as many resources as it may",
            ));
        }
        Ok(())
    }

    /// Tells the session of changes to `uri` from now on. A subscription that it had to the same resource ends.
    pub(crate) fn add(&self, subscriber: Subscriber, uri: String, follow: Follow, door: Door, tasks: &Tasks) {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let session = subscriber.session.clone();
        self.open
            .lock()
            .entry(session)
            .or_default()
            .insert(uri.clone(), guard);
        let sessions = self.clone();
        tasks.spawn("resource-subscription", async move {
            let Subscriber {
                session,
                peer,
                caller,
            } = subscriber;
            let mut changes = follow.changes();
            let telling = async {
                while let Some(()) = changes.next().await
                    && notify(&peer, &uri).await
                {}
            };
            tokio::select! {
                // Another one is in its place, or none: nothing to take away.
                () = ended.cancelled() => return,
                () = telling => {}
                () = door.until_refused(&caller) => {}
                () = closed(&peer) => {}
            }
            sessions.remove_unless(&ended, &session, &uri);
        });
    }

    /// Ends a subscription, if there is one.
    pub(crate) fn remove(&self, session: &str, uri: &str) {
        self.remove_unless(&CancellationToken::new(), session, uri);
    }

    /// What was `replaced` has ended already, and another one is in its place.
    fn remove_unless(&self, replaced: &CancellationToken, session: &str, uri: &str) {
        let mut open = self.open.lock();
        if replaced.is_cancelled() {
            return;
        }
        let Some(subscriptions) = open.get_mut(session) else {
            return;
        };
        subscriptions.remove(uri);
        if subscriptions.is_empty() {
            open.remove(session);
        }
    }
}

/// Whether the client is still there; one that is slow misses the notification.
async fn notify(peer: &Peer<RoleServer>, uri: &str) -> bool {
    let notification = peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri));
    !matches!(
        tokio::time::timeout(NOTIFY_TIMEOUT, notification).await,
        Ok(Err(_))
    )
}

async fn closed(peer: &Peer<RoleServer>) {
    while !peer.is_transport_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
