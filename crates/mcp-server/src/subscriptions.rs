//! Resources that clients are told of when they change: contexts, executions, and the list of open incidents.
//!
//! Each is followed by a stream of its own from rest-api, in the caller's name. A client of protocol version 2026-07-28
//! names them when it opens a notification stream, and they last as long as that. A session of an older version
//! subscribes one by one ([`Sessions`]); its subscriptions are this replica's, and end with the session here.

mod follow;
mod sessions;

pub(crate) use follow::Follow;
pub(crate) use sessions::{Sessions, Subscriber};

use crate::{
    caller::{Caller, Upstream, in_time},
    error::{Error, Result},
    metrics::RESOURCE_SUBSCRIPTIONS_ACTIVE,
    resources::{self, Uri},
    settings,
};
use futures_util::{
    StreamExt as _,
    future::{ready, try_join_all},
    stream::{BoxStream, SelectAll, once, select_all},
};
use rmcp::model::SubscriptionFilter;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What one tenant's clients have subscribed to.
pub(crate) struct Subscriptions {
    limits: settings::Subscriptions,
    open: Arc<AtomicUsize>,
    /// Those of sessions.
    pub(crate) sessions: Sessions,
}

impl Subscriptions {
    /// None yet.
    pub(crate) fn new(limits: settings::Subscriptions) -> Self {
        Self {
            sessions: Sessions::new(limits.max_per_session),
            limits,
            open: Arc::default(),
        }
    }

    /// The part of what a client wants to hear of that there is: its tools, and so many resources.
    pub(crate) fn accepted(&self, requested: &SubscriptionFilter) -> SubscriptionFilter {
        let wanted = requested.resource_subscriptions.iter().flatten();
        let known = wanted.filter(|uri| watchable(uri).is_ok());
        SubscriptionFilter::builder()
            .tools_list_changed()
            .resource_subscriptions(known.take(self.limits.max_per_session).cloned())
            .build()
    }

    /// Begins to follow a resource.
    ///
    /// # Errors
    /// When it is not there or not the caller's, or when the tenant follows as many as it may.
    pub(crate) async fn follow(&self, upstream: &Upstream, caller: Arc<Caller>, uri: &str) -> Result<Follow> {
        let parsed = watchable(uri)?;
        resources::require(&caller, parsed)?;
        let counted = Counted::new(&self.open, self.limits.max_per_tenant)?;
        in_time(Follow::begin(upstream.clone(), caller, parsed, counted)).await
    }

    /// Follows all the resources that a notification stream is for: the URI of each, and again whenever it changed.
    ///
    /// # Errors
    /// When one of them cannot be followed.
    pub(crate) async fn follow_all(
        &self,
        upstream: &Upstream,
        caller: &Arc<Caller>,
        accepted: &SubscriptionFilter,
    ) -> Result<SelectAll<BoxStream<'static, String>>> {
        let uris: BTreeSet<&String> = accepted.resource_subscriptions.iter().flatten().collect();
        let begun = uris.iter().map(|uri| self.follow(upstream, caller.clone(), uri));
        let begun = try_join_all(begun).await?;
        let named = |(follow, uri): (Follow, &String)| {
            // Told of once at the beginning: the client heard that it is subscribed before anything was followed, and
            // nobody saw what changed in between.
            let (first, uri) = (once(ready(uri.clone())), uri.clone());
            first.chain(follow.changes().map(move |()| uri.clone())).boxed()
        };
        Ok(select_all(begun.into_iter().zip(uris).map(named)))
    }
}

/// The resource, when it is one that changes.
fn watchable(uri: &str) -> Result<Uri> {
    match uri.parse()? {
        uri @ (Uri::Context(_) | Uri::Execution(_) | Uri::OpenIncidents) => Ok(uri),
        Uri::Result(..) => Err(Error::Arguments(
            "uri: a result does not change; subscribe to its execution".to_owned(),
        )),
        Uri::Incident(_) | Uri::Postmortem(_) => Err(Error::Arguments(
            "uri: subscribe to incidents://open, or to the incident's context".to_owned(),
        )),
        Uri::Runbooks | Uri::Runbook(_) | Uri::Metrics | Uri::Dashboard(_) => {
            Err(Error::Arguments("uri: it does not change".to_owned()))
        }
    }
}

/// One followed resource, counted.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>, max: usize) -> Result<Self> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        RESOURCE_SUBSCRIPTIONS_ACTIVE.add(1.0, []);
        let counted = Self(open.clone());
        if before >= max {
            return Err(too_many(
                "this tenant has subscribed to as many resources as it may",
            ));
        }
        Ok(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        RESOURCE_SUBSCRIPTIONS_ACTIVE.sub(1.0, []);
    }
}

fn too_many(message: &str) -> Error {
    Error::Refused {
        code: "too_many_subscriptions".into(),
        message: message.to_owned(),
        not_found: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ContextId, ExecutionId};

    #[test]
    fn what_can_change_is_accepted_up_to_the_limit() {
        let limits = settings::Subscriptions {
            max_per_session: 2,
            ..Default::default()
        };
        let subscriptions = Subscriptions::new(limits);
        let (context, execution) = (ContextId::new(), ExecutionId::new());
        let uris = [
            "file:///etc/passwd".to_owned(),
            format!("execution://{execution}/result"),
            format!("context://{context}"),
            format!("execution://{execution}"),
            format!("context://{}", ContextId::new()),
        ];
        let requested = SubscriptionFilter::builder()
            .resource_subscriptions(uris.clone())
            .build();
        let accepted = subscriptions.accepted(&requested);
        assert_eq!(accepted.resource_subscriptions, Some(uris[2..4].to_vec()));
    }

    #[test]
    fn a_tenant_has_so_many_and_gets_their_places_back() {
        let open = Arc::default();
        let first = Counted::new(&open, 1).expect("room");
        let Err(error) = Counted::new(&open, 1) else {
            panic!("no room")
        };
        assert_eq!(error.code(), "too_many_subscriptions");
        drop(first);
        assert!(Counted::new(&open, 1).is_ok());
    }
}
