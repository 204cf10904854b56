//! API keys.

use super::Api;
use crate::clock::now;
use crate::error::{Error, Found, Result};
use domain::{
    ApiKeyId, Invalid, Principal, Scope, Scopes, TenantId, Time, ToolRules,
    api_key::{ApiKey, Secret, check_name},
    page::{Page, PageRequest},
    principal::MissingScope,
};
use std::time::Duration;

/// The longest that a rotated key may go on working.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a new key is made from.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// A person's name for it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Which tools it may see and call, and with which arguments.
    pub tools: ToolRules,
    /// From when on it is refused.
    pub expires_at: Option<Time>,
}

/// A new key with its secret, which is shown this once.
#[derive(Debug)]
pub struct IssuedKey {
    /// The record.
    pub key: ApiKey,
    /// The secret.
    pub secret: Secret,
}

impl NewKey {
    /// Makes record and secret.
    ///
    /// # Errors
    /// When the name, the scopes or the time of expiry make no sense.
    pub fn issue(self, tenant_id: TenantId) -> std::result::Result<IssuedKey, Invalid> {
        check_name(&self.name)?;
        if self.scopes.is_empty() {
            return Err(Invalid::new(
                "scopes",
                format!("at least one of {}", Scopes::all()),
            ));
        }
        let created_at = now();
        if self.expires_at.is_some_and(|at| at <= created_at) {
            return Err(Invalid::new("expires_in", "a time ahead"));
        }
        let secret = Secret::generate();
        let key = ApiKey {
            id: ApiKeyId::new(),
            tenant_id,
            name: self.name,
            prefix: secret.shown().to_owned(),
            scopes: self.scopes,
            tools: self.tools,
            created_at,
            last_used_at: None,
            expires_at: self.expires_at,
            revoked_at: None,
        };
        Ok(IssuedKey { key, secret })
    }
}

impl Api {
    /// Makes a key. Needs `keys:manage`, and every scope and tool that the new key gets: nobody hands out what he has
    /// not.
    pub async fn create_key(&self, caller: &Principal, new: NewKey) -> Result<IssuedKey> {
        self.check_number_of_keys(caller.tenant_id).await?;
        self.make_key(caller, new).await
    }

    async fn make_key(&self, caller: &Principal, new: NewKey) -> Result<IssuedKey> {
        caller.require(Scope::KeysManage)?;
        covers(caller, &new.scopes, &new.tools)?;
        self.0.schemas.check_rules(&new.tools)?;
        let issued = new.issue(caller.tenant_id)?;
        self.0
            .store
            .create_key(&issued.key, &issued.secret.hash())
            .await?;
        tracing::info!(key_id = %issued.key.id, by = %caller.key_id, scopes = %issued.key.scopes, "API key created");
        Ok(issued)
    }

    /// The tenant's keys, newest first. Needs `keys:manage`, as all that follow.
    pub async fn list_keys(&self, caller: &Principal, page: &PageRequest) -> Result<Page<ApiKey>> {
        caller.require(Scope::KeysManage)?;
        Ok(self.0.store.list_keys(caller.tenant_id, page).await?)
    }

    /// One key.
    pub async fn get_key(&self, caller: &Principal, id: ApiKeyId) -> Result<ApiKey> {
        caller.require(Scope::KeysManage)?;
        self.0
            .store
            .get_key(caller.tenant_id, id)
            .await
            .or_missing("API key")
    }

    /// Keys that are made at the same moment may pass the limit by their number: it is there against many, not against
    /// one too many.
    async fn check_number_of_keys(&self, tenant: TenantId) -> Result<()> {
        let limit = self.0.limits.keys_per_tenant;
        if self.0.store.count_tenant_keys(tenant, now()).await? < i64::from(limit) {
            return Ok(());
        }
        Err(Error::TooMany {
            what: "active API keys",
            limit: limit.into(),
        })
    }

    /// Revokes a key: within a second it works nowhere any more. Needs its scopes and tools, too.
    pub async fn revoke_key(&self, caller: &Principal, id: ApiKeyId) -> Result<ApiKey> {
        let key = self.get_key(caller, id).await?;
        covers(caller, &key.scopes, &key.tools)?;
        let key = self
            .0
            .store
            .revoke_key(caller.tenant_id, id, now())
            .await
            .or_missing("API key")?;
        self.0.verifier.forget();
        tracing::info!(key_id = %id, by = %caller.key_id, "API key revoked");
        Ok(key)
    }

    /// Makes a key with the same name, scopes, tools and time of expiry, which schedules run as from now on, and
    /// lets the old one work for `overlap` more.
    pub async fn rotate_key(&self, caller: &Principal, id: ApiKeyId, overlap: Duration) -> Result<IssuedKey> {
        let old = self.get_key(caller, id).await?;
        if overlap > MAX_OVERLAP {
            return Err(Invalid::new("overlap", "at most 30 days").into());
        }
        if !old.is_active(now()) {
            return Err(Invalid::new("id", "a key that is neither revoked nor expired").into());
        }
        if !overlap.is_zero() {
            self.check_number_of_keys(caller.tenant_id).await?;
        }
        let new = NewKey {
            name: old.name,
            scopes: old.scopes,
            tools: old.tools,
            expires_at: old.expires_at,
        };
        let issued = self.make_key(caller, new).await?;
        let store = &self.0.store;
        store
            .hand_over_schedules(caller.tenant_id, id, issued.key.id)
            .await?;
        store
            .revoke_key(caller.tenant_id, id, now() + overlap)
            .await
            .or_missing("API key")?;
        self.0.verifier.forget();
        tracing::info!(key_id = %id, successor = %issued.key.id, ?overlap, "API key rotated");
        Ok(issued)
    }
}

/// Nobody has a say over a key that may do more than his own.
fn covers(caller: &Principal, scopes: &Scopes, tools: &ToolRules) -> Result<()> {
    if let Some(missing) = scopes.iter().find(|scope| !caller.scopes.contains(*scope)) {
        return Err(Error::MissingScope(MissingScope(missing)));
    }
    if !tools.within(&caller.tools) {
        return Err(Error::ToolRulesExceeded);
    }
    Ok(())
}
