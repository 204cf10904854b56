//! Who calls: verifies API keys, and remembers them for less than a second.

use crate::{
    clock::now,
    error::{AuthError, Result},
    store::{KeyOwner, SharedStore},
};
use domain::{
    ApiKeyId, Principal,
    api_key::{Secret, SecretHash},
    audit::Owner,
    tenant::TenantStatus,
};
use moka::{future::Cache, sync};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// For how long a verified key may be relied upon, in all services together. Below the second that is promised, so
/// that the way between them fits in.
const BELIEVED: Duration = Duration::from_millis(900);
/// For how long this service remembers one: what is left goes to those who ask.
const REMEMBERED: Duration = Duration::from_millis(400);
/// How many keys are remembered.
const MAX_REMEMBERED: u64 = 50_000;
/// How many refused keys are remembered, for as long as is between two records of them.
const MAX_REFUSED: u64 = 1000;
/// How exact a key's "last used" is.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who it is.
    pub principal: Arc<Principal>,
    at: Instant,
}

impl Verified {
    /// For how long others may rely upon it.
    pub fn valid_for(&self) -> Duration {
        BELIEVED.saturating_sub(self.at.elapsed())
    }
}

/// Knows keys. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    store: SharedStore,
    tasks: chassis::Tasks,
    known: Cache<SecretHash, Verified>,
    touched: sync::Cache<ApiKeyId, ()>,
    refused: sync::Cache<SecretHash, Owner>,
}

impl Verifier {
    /// A verifier that asks `store`.
    pub fn new(store: SharedStore, tasks: chassis::Tasks) -> Self {
        let known = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .time_to_live(REMEMBERED)
            .build();
        let touched = sync::Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .time_to_live(TOUCH_EVERY)
            .build();
        Self {
            store,
            tasks,
            known,
            touched,
            refused: sync::Cache::builder()
                .max_capacity(MAX_REFUSED)
                .time_to_live(TOUCH_EVERY)
                .build(),
        }
    }

    /// Who the key in `text` belongs to.
    ///
    /// # Errors
    /// [`Unauthenticated`](crate::error::Error::Unauthenticated), or [`Unavailable`](crate::error::Error::Unavailable)
    /// when the database cannot be asked.
    pub async fn verify(&self, text: Option<&str>) -> Result<Verified> {
        let secret = Secret::parse(text.ok_or(AuthError::Missing)?).map_err(|_| AuthError::Malformed)?;
        let hash = secret.hash();
        // The cache counts from when the answer came, the promise from when it was asked for.
        if let Some(known) = self.known.get(&hash).await
            && known.at.elapsed() < REMEMBERED
        {
            return Ok(known);
        }
        let at = Instant::now();
        let owner = self.store.key_owner(&hash).await?.ok_or(AuthError::Unknown)?;
        if let Err(refused) = check(&owner) {
            let key = owner.key;
            let owner = Owner {
                tenant_id: key.tenant_id,
                key_id: key.id,
            };
            self.refused.insert(hash, owner);
            return Err(refused.into());
        }
        let verified = Verified {
            principal: Arc::new(owner.principal),
            at,
        };
        self.known.insert(hash, verified.clone()).await;
        self.touch(owner.key.id);
        Ok(verified)
    }

    /// Whose a key is that was just refused though it is known. Not for its holder: for the audit log.
    pub fn refused(&self, hash: &SecretHash) -> Option<Owner> {
        self.refused.get(hash)
    }

    /// Forgets all it knows: a key has just been revoked here.
    pub fn forget(&self) {
        self.known.invalidate_all();
    }

    /// Notes the key's use, at most once a minute and not in the caller's time.
    fn touch(&self, id: ApiKeyId) {
        if self.touched.contains_key(&id) {
            return;
        }
        self.touched.insert(id, ());
        let store = Arc::clone(&self.store);
        self.tasks.spawn("touch-key", async move {
            if let Err(error) = store.touch_key(id, now()).await {
                tracing::debug!(%error, "a key's last use was not noted");
            }
        });
    }
}

fn check(owner: &KeyOwner) -> std::result::Result<(), AuthError> {
    let (key, now) = (&owner.key, now());
    if key.revoked_at.is_some_and(|at| at <= now) {
        return Err(AuthError::Revoked);
    }
    if !key.is_active(now) {
        return Err(AuthError::Expired);
    }
    match owner.tenant_status {
        TenantStatus::Active => Ok(()),
        TenantStatus::Suspended => Err(AuthError::Suspended),
    }
}
