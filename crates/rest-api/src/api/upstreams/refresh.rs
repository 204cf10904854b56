//! Asks upstreams' servers for their tools: when they are registered or changed, on demand, and again and again.

use crate::{
    api::Api,
    clock::now,
    error::{Error, Result},
    metrics,
    runner::upstreams::Listing,
    store::{
        StoreError,
        upstreams::{Answered, Settled, ToAsk},
    },
};
use domain::{
    Time,
    upstream::{Learnt, LeftOut, MAX_TOLD, RefreshError, Upstream},
};
use futures_util::future::join_all;

/// How many servers are asked at once.
const AT_ONCE: u32 = 24;
/// How often an answer is kept anew whose names were taken in that very moment.
const ATTEMPTS: u32 = 3;

impl Api {
    /// Asks at most `limit` servers whose turn it is; says how many tools were touched.
    pub async fn refresh_upstreams(&self, limit: u32) -> Result<u64> {
        let now = now();
        let next = now + self.0.upstreams.refresh_every;
        let claimed = self.0.store.claim_due_upstreams(now, next, limit.min(AT_ONCE));
        let asking = claimed.await?.into_iter().map(|due| {
            let name = due.upstream.spec.name.clone();
            async move {
                match self.ask_upstream(due, now).await {
                    Ok((_, settled)) => settled.count(),
                    Err(error) => {
                        tracing::warn!(upstream = name, %error, "what a server answered was not kept");
                        0
                    }
                }
            }
        });
        Ok(join_all(asking).await.into_iter().sum())
    }

    /// Asks a server for its tools and makes them the upstream's. One that does not answer keeps those that it has.
    pub(super) async fn ask_upstream(&self, asked: ToAsk, at: Time) -> Result<(Upstream, Settled)> {
        let upstream = &asked.upstream;
        let sealed = asked.credentials.as_ref();
        let credentials = sealed.map(|sealed| self.0.vault.unseal(sealed)).transpose()?;
        let listed = self
            .0
            .runner
            .list_upstream(&asked.tenant, upstream, credentials)
            .await;
        let done = match listed {
            Ok(listing) => self.keep_listing(upstream, listing, at).await,
            Err(error) => self.keep_failure(upstream, &error, at).await,
        };
        match done {
            // It has changed meanwhile, and whoever changed it asks.
            Err(StoreError::NotFound) => {
                let current = self
                    .0
                    .store
                    .get_upstream(upstream.tenant_id, &upstream.spec.name)
                    .await;
                let current = current.map_err(|error| match error {
                    StoreError::NotFound => Error::NotFound("upstream"),
                    error => error.into(),
                });
                Ok((current?, Settled::default()))
            }
            done => Ok(done?),
        }
    }

    async fn keep_listing(
        &self,
        upstream: &Upstream,
        listing: Listing,
        at: Time,
    ) -> std::result::Result<(Upstream, Settled), StoreError> {
        metrics::UPSTREAM_REFRESHES.inc(["ok"]);
        let Listing {
            about,
            tools,
            left_out,
        } = listing;
        let compiles = |schema: &_| self.0.schemas.check(schema).is_ok();
        let (offered, refused) = upstream.spec.offer(tools, compiles);
        let learnt = learnt(about, offered.len(), refused, left_out);
        let answered = Answered {
            upstream,
            tools: &offered,
            learnt: &learnt,
            at,
        };
        let mut attempts = 1;
        let (upstream, settled) = loop {
            match self.0.store.keep_answer(&answered).await {
                Err(StoreError::Conflict) if attempts < ATTEMPTS => attempts += 1,
                kept => break kept?,
            }
        };
        if settled.count() > 0 {
            self.0.catalogue.changed();
            tracing::info!(
                upstream = upstream.spec.name,
                added = settled.added,
                changed = settled.changed,
                removed = settled.removed,
                "an upstream's tools changed"
            );
        }
        Ok((upstream, settled))
    }

    async fn keep_failure(
        &self,
        upstream: &Upstream,
        error: &RefreshError,
        at: Time,
    ) -> std::result::Result<(Upstream, Settled), StoreError> {
        metrics::UPSTREAM_REFRESHES.inc(["failed"]);
        let name = upstream.spec.name.as_str();
        tracing::warn!(
            upstream = name,
            code = error.code,
            "an upstream's server could not be asked"
        );
        let upstream = self.0.store.keep_failure(upstream, error, at).await?;
        Ok((upstream, Settled::default()))
    }
}

/// What a listing tells, beside the tools.
fn learnt(about: Learnt, offered: usize, mut refused: Vec<LeftOut>, beyond: u32) -> Learnt {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let left_out_count = count(refused.len()).saturating_add(beyond);
    refused.truncate(MAX_TOLD);
    Learnt {
        tools: count(offered),
        left_out_count,
        left_out: refused,
        ..about
    }
}
