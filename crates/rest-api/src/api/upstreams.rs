//! Upstreams: other MCP servers whose tools a tenant offers beside its own. Their servers are asked in [`refresh`].

mod refresh;

use super::{Api, tools::require_catalogue};
use crate::{
    clock::{ahead, now},
    error::{Error, Found, Result},
    store::{CredentialsChange, StoreError},
};
use domain::{
    Principal, Scope,
    page::{Page, PageRequest},
    tool::Credentials,
    upstream::{Upstream, UpstreamSpec},
};
use std::time::Duration;
use url::Url;

/// How often a change is tried that meets another one, when the caller names no version.
const ATTEMPTS: u32 = 4;
/// When the job asks a server that is being asked at its registration already, should that be lost.
const LEFT_TO_ASK: Duration = Duration::from_secs(60);

/// What an upstream is registered from.
#[derive(Clone, Debug)]
pub struct NewUpstream {
    /// What it is.
    pub spec: UpstreamSpec,
    /// What its server is shown.
    pub credentials: Option<Credentials>,
}

/// What replaces an upstream's spec.
#[derive(Clone, Debug)]
pub struct UpstreamChange {
    /// What it is from now on; the name stays.
    pub spec: UpstreamSpec,
    /// `None` leaves the credentials, if the server is at the same origin as before, an inner `None` removes them.
    pub credentials: Option<Option<Credentials>>,
}

impl Api {
    /// Registers an upstream and asks its server for its tools. Needs `tools:manage`. One whose server does not answer is
    /// registered all the same.
    pub async fn create_upstream(&self, caller: &Principal, new: NewUpstream) -> Result<Upstream> {
        caller.require(Scope::ToolsManage)?;
        new.spec.check()?;
        if !has_all(caller, &new.spec.name) {
            return Err(Error::ToolRulesExceeded);
        }
        let limit = self.0.upstreams.per_tenant;
        if self.0.store.count_upstreams(caller.tenant_id).await? >= i64::from(limit) {
            return Err(Error::TooMany {
                what: "upstreams",
                limit: limit.into(),
            });
        }
        let sealed = new.credentials.map(|c| self.seal(&c)).transpose()?;
        let next = ahead(LEFT_TO_ASK);
        let made = self
            .0
            .store
            .create_upstream(caller.tenant_id, &new.spec, sealed.as_ref(), next);
        let upstream = made.await.or_missing("upstream")?;
        tracing::info!(upstream = upstream.spec.name, by = %caller.key_id, "upstream registered");
        self.asked_anew(upstream).await
    }

    /// One upstream. Needs `tools:read` or `tools:execute`, as the listing of tools.
    pub async fn get_upstream(&self, caller: &Principal, name: &str) -> Result<Upstream> {
        require_catalogue(caller)?;
        require_visible(caller, name)?;
        let found = self.0.store.get_upstream(caller.tenant_id, name).await;
        found.or_missing("upstream")
    }

    /// The tenant's upstreams, by name. A page may hold fewer than were asked for, and yet not be the last one.
    pub async fn list_upstreams(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Upstream>> {
        require_catalogue(caller)?;
        let mut listed = self.0.store.list_upstreams(caller.tenant_id, page).await?;
        listed
            .items
            .retain(|upstream| has_all(caller, &upstream.spec.name));
        Ok(listed)
    }

    /// Replaces what an upstream is, and asks its server anew. Needs `tools:manage`. Credentials that are not given stay
    /// only while the server is at the same origin: they are not for another one to see.
    pub async fn update_upstream(
        &self,
        caller: &Principal,
        change: UpstreamChange,
        if_version: Option<i64>,
    ) -> Result<Upstream> {
        caller.require(Scope::ToolsManage)?;
        let name = change.spec.name.clone();
        require_visible(caller, &name)?;
        change.spec.check()?;
        for _ in 0..ATTEMPTS {
            let found = self.0.store.get_upstream(caller.tenant_id, &name).await;
            let old = found.or_missing("upstream")?;
            if let Some(expected) = if_version.filter(|expected| *expected != old.version) {
                tracing::debug!(expected, "the upstream has changed meanwhile");
                return Err(StoreError::VersionMismatch { current: old.version }.into());
            }
            let credentials = self.credentials_change(&old, &change)?;
            let updated = self.0.store.update_upstream(
                caller.tenant_id,
                &change.spec,
                &credentials,
                old.version,
                ahead(LEFT_TO_ASK),
            );
            match updated.await {
                Err(StoreError::VersionMismatch { .. }) if if_version.is_none() => {}
                updated => {
                    let upstream = updated.or_missing("upstream")?;
                    self.0.catalogue.changed();
                    tracing::info!(upstream = name, by = %caller.key_id, "upstream changed");
                    return self.asked_anew(upstream).await;
                }
            }
        }
        Err(Error::Unavailable { what: "the upstream" })
    }

    /// Removes an upstream and its tools; their executions stay. Needs `tools:manage`.
    pub async fn delete_upstream(
        &self,
        caller: &Principal,
        name: &str,
        if_version: Option<i64>,
    ) -> Result<()> {
        caller.require(Scope::ToolsManage)?;
        require_visible(caller, name)?;
        let deleted = self
            .0
            .store
            .delete_upstream(caller.tenant_id, name, if_version)
            .await;
        deleted.or_missing("upstream")?;
        self.0.catalogue.changed();
        tracing::info!(upstream = name, by = %caller.key_id, "upstream removed");
        Ok(())
    }

    /// Asks an upstream's server for its tools now. Needs `tools:manage`. What is answered tells how it went.
    pub async fn refresh_upstream(&self, caller: &Principal, name: &str) -> Result<Upstream> {
        caller.require(Scope::ToolsManage)?;
        let upstream = self.get_upstream(caller, name).await?;
        self.asked_anew(upstream).await
    }

    /// Tools of upstreams are what their servers say, and change with them only.
    pub(super) async fn refuse_upstreams_tool(&self, caller: &Principal, name: &str) -> Result<()> {
        let tool = self.0.store.get_tool(caller.tenant_id, name).await;
        match tool.or_missing("tool")?.spec.options.upstream {
            Some(origin) => Err(Error::UpstreamTool(origin.server)),
            None => Ok(()),
        }
    }

    fn credentials_change(&self, old: &Upstream, change: &UpstreamChange) -> Result<CredentialsChange> {
        Ok(match &change.credentials {
            None if origin(&old.spec.url) == origin(&change.spec.url) => CredentialsChange::Keep,
            None | Some(None) => CredentialsChange::Remove,
            Some(Some(credentials)) => CredentialsChange::Set(self.seal(credentials)?),
        })
    }

    /// The upstream once its server was asked, where it is to be.
    async fn asked_anew(&self, upstream: Upstream) -> Result<Upstream> {
        if !upstream.spec.enabled {
            return Ok(upstream);
        }
        let found = self
            .0
            .store
            .upstream_to_ask(upstream.tenant_id, &upstream.spec.name)
            .await;
        let (upstream, _) = self.ask_upstream(found.or_missing("upstream")?, now()).await?;
        Ok(upstream)
    }
}

/// Whether the caller's rules name every tool that an upstream of this name may have. What a pattern may stand for is also
/// a word of another one that names all of that.
fn has_all(caller: &Principal, name: &str) -> bool {
    caller.tools.allow_all(&format!("{name}_*"))
}

fn require_visible(caller: &Principal, name: &str) -> Result<()> {
    if has_all(caller, name) {
        Ok(())
    } else {
        Err(Error::NotFound("upstream"))
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<url::Origin> {
    Url::parse(url).ok().map(|url| url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_server_keeps_what_it_is_shown() {
        let same = |a, b| origin(a) == origin(b);
        assert!(same("https://h.example/mcp", "https://h.example:443/other?x=1"));
        for other in [
            "http://h.example/mcp",
            "https://h.example:8443/mcp",
            "https://evil.example/mcp",
        ] {
            assert!(!same("https://h.example/mcp", other), "{other}");
        }
    }
}
