//! The catalogue of registered tools.

use super::Api;
use crate::{
    error::{Error, Found, Result},
    store::{CatalogueChanges, CredentialsChange},
};
use domain::{
    Invalid, JsonObject, Principal, Scope,
    page::{Page, PageRequest},
    principal::MissingScope,
    tool::{Credentials, Tool, ToolSpec},
};

/// What a tool is registered from.
#[derive(Clone, Debug)]
pub struct NewTool {
    /// What it is.
    pub spec: ToolSpec,
    /// What its endpoint is shown.
    pub credentials: Option<Credentials>,
}

/// What replaces a tool's spec.
#[derive(Clone, Debug)]
pub struct ToolChange {
    /// What it is from now on; the name stays.
    pub spec: ToolSpec,
    /// `None` leaves the credentials, an inner `None` removes them.
    pub credentials: Option<Option<Credentials>>,
}

impl Api {
    /// Registers a tool. Needs `tools:manage`.
    pub async fn create_tool(&self, caller: &Principal, new: NewTool) -> Result<Tool> {
        caller.require(Scope::ToolsManage)?;
        require_whole(caller, &new.spec.name)?;
        self.check_spec(&new.spec)?;
        let sealed = new.credentials.map(|c| self.seal(&c)).transpose()?;
        let tool = self
            .0
            .store
            .create_tool(caller.tenant_id, &new.spec, sealed.as_ref())
            .await
            .or_missing("tool")?;
        self.0.catalogue.changed();
        tracing::info!(tool = tool.spec.name, by = %caller.key_id, "tool registered");
        Ok(tool)
    }

    /// One tool. Needs `tools:read` or `tools:execute`, as the listing.
    pub async fn get_tool(&self, caller: &Principal, name: &str) -> Result<Tool> {
        require_catalogue(caller)?;
        require_visible(caller, name, "tool")?;
        self.0
            .store
            .get_tool(caller.tenant_id, name)
            .await
            .or_missing("tool")
    }

    /// The tenant's tools that the caller may see, by name. A page may hold fewer than were asked for, and yet not be
    /// the last one.
    pub async fn list_tools(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Tool>> {
        require_catalogue(caller)?;
        let mut tools = self.0.store.list_tools(caller.tenant_id, page).await?;
        tools.items.retain(|tool| caller.tools.allow(&tool.spec.name));
        Ok(tools)
    }

    /// Holds a call to the caller's rules: see [`Schemas::permit`](crate::schema::Schemas::permit).
    pub(crate) fn permit(&self, caller: &Principal, tool: &Tool, arguments: &JsonObject) -> Result<()> {
        self.0.schemas.permit(caller, &tool.spec.name, arguments)
    }

    /// Replaces a tool's spec. Needs `tools:manage`.
    pub async fn update_tool(
        &self,
        caller: &Principal,
        change: ToolChange,
        if_version: Option<i64>,
    ) -> Result<Tool> {
        caller.require(Scope::ToolsManage)?;
        require_visible(caller, &change.spec.name, "tool")?;
        require_whole(caller, &change.spec.name)?;
        self.check_spec(&change.spec)?;
        self.refuse_upstreams_tool(caller, &change.spec.name).await?;
        let credentials = match change.credentials {
            None => CredentialsChange::Keep,
            Some(None) => CredentialsChange::Remove,
            Some(Some(credentials)) => CredentialsChange::Set(self.seal(&credentials)?),
        };
        let updated = self
            .0
            .store
            .update_tool(caller.tenant_id, &change.spec, &credentials, if_version)
            .await;
        let tool = updated.or_missing("tool")?;
        self.0.catalogue.changed();
        tracing::info!(tool = tool.spec.name, by = %caller.key_id, "tool changed");
        Ok(tool)
    }

    /// Removes a tool; its executions stay. Needs `tools:manage`.
    pub async fn delete_tool(&self, caller: &Principal, name: &str) -> Result<()> {
        caller.require(Scope::ToolsManage)?;
        require_visible(caller, name, "tool")?;
        require_whole(caller, name)?;
        self.refuse_upstreams_tool(caller, name).await?;
        self.0
            .store
            .delete_tool(caller.tenant_id, name)
            .await
            .or_missing("tool")?;
        self.0.catalogue.changed();
        tracing::info!(tool = name, by = %caller.key_id, "tool removed");
        Ok(())
    }

    /// What changed in every tenant's catalogue after `revision`; for the services' own watch.
    pub async fn tools_since(&self, revision: i64) -> Result<CatalogueChanges> {
        Ok(self.0.store.tools_since(revision).await?)
    }

    fn check_spec(&self, spec: &ToolSpec) -> Result<()> {
        spec.check()?;
        if spec.options.upstream.is_some() {
            let expected = "left out: tools of other MCP servers come by /api/v1/upstreams";
            return Err(Invalid::new("upstream", expected).into());
        }
        self.0.schemas.check(&spec.input_schema)?;
        if let Some(selection) = &spec.options.selection {
            self.0.selections.check(selection)?;
        }
        Ok(())
    }

    pub(super) fn seal(&self, credentials: &Credentials) -> Result<crate::store::SealedCredentials> {
        credentials.check()?;
        self.0.vault.seal(credentials)
    }
}

/// Whoever may run tools may also see them.
pub(super) fn require_catalogue(caller: &Principal) -> Result<()> {
    if caller.scopes.contains(Scope::ToolsRead) || caller.scopes.contains(Scope::ToolsExecute) {
        Ok(())
    } else {
        Err(Error::MissingScope(MissingScope(Scope::ToolsRead)))
    }
}

/// What concerns a tool that the caller's rules do not name is not there for him.
pub(super) fn require_visible(caller: &Principal, tool: &str, what: &'static str) -> Result<()> {
    if caller.tools.allow(tool) {
        Ok(())
    } else {
        Err(Error::NotFound(what))
    }
}

/// Whoever may not make every call of a tool may not say what its calls are.
pub(super) fn require_whole(caller: &Principal, tool: &str) -> Result<()> {
    if caller.tools.allow_all(tool) {
        Ok(())
    } else {
        Err(Error::ToolRulesExceeded)
    }
}
