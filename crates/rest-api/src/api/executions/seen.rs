//! Which executions a caller sees.
//!
//! What the product's own tools answered is telemetry. A key sees its own; others only with `observe:read`; and what a key
//! with `platform:observe` was answered, which may be other tenants', only with that scope.

use crate::{
    api::{Api, tools::require_catalogue},
    error::{Error, Result},
    store::StoreError,
};
use domain::{ApiKeyId, Principal, Scope, execution::Execution, principal::MissingScope, tool::built_in};
use std::collections::HashMap;

/// Whether it runs one of the product's own tools.
pub(super) fn is_built_in(execution: &Execution) -> bool {
    let id = execution.tool_id;
    id.is_some_and(|id| built_in::is_id_of(id, &execution.tool))
}

/// Whether there may be executions that the caller sees.
///
/// # Errors
/// [`Error::MissingScope`]
pub(super) fn require_some(caller: &Principal) -> Result<()> {
    require_catalogue(caller).or_else(|error| if observes(caller) { Ok(()) } else { Err(error) })
}

/// Whether the caller may call some of the product's own tools.
pub(super) fn observes(caller: &Principal) -> bool {
    let may = |scope| caller.scopes.contains(scope);
    may(Scope::ObserveRead) || may(Scope::ObserveWrite)
}

impl Api {
    /// A call that the caller's rules would refuse is not there for him, nor one whose answer he may not see.
    pub(in crate::api) async fn require_own(&self, caller: &Principal, execution: &Execution) -> Result<()> {
        self.require_own_of(caller, execution, &mut HashMap::new()).await
    }

    /// Leaves out of many what the caller does not see.
    pub(super) async fn retain_own(
        &self,
        caller: &Principal,
        executions: Vec<Execution>,
    ) -> Result<Vec<Execution>> {
        let mut asked = HashMap::new();
        let mut own = Vec::with_capacity(executions.len());
        for execution in executions {
            let seen = self.require_listed(caller, &execution, &mut asked).await;
            match seen {
                Ok(()) => own.push(execution),
                Err(error @ Error::Unavailable { .. }) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(own)
    }

    /// As [`Self::require_own`], for who only reads.
    pub(super) async fn require_seen(&self, caller: &Principal, execution: &Execution) -> Result<()> {
        self.require_listed(caller, execution, &mut HashMap::new()).await
    }

    async fn require_listed(
        &self,
        caller: &Principal,
        execution: &Execution,
        asked: &mut HashMap<ApiKeyId, bool>,
    ) -> Result<()> {
        if !is_built_in(execution) && require_catalogue(caller).is_err() {
            return Err(Error::NotFound("execution"));
        }
        self.require_own_of(caller, execution, asked).await
    }

    async fn require_own_of(
        &self,
        caller: &Principal,
        execution: &Execution,
        asked: &mut HashMap<ApiKeyId, bool>,
    ) -> Result<()> {
        let schemas = &self.0.schemas;
        let permit = schemas.permit(caller, &execution.tool, &execution.arguments);
        permit.map_err(|error| error.hidden("execution"))?;
        if !is_built_in(execution) || execution.key_id == caller.key_id {
            return Ok(());
        }
        let may = |scope| caller.scopes.contains(scope);
        let seen = may(Scope::ObserveRead)
            && (may(Scope::PlatformObserve) || !self.was_platforms(execution, asked).await?);
        if seen {
            Ok(())
        } else {
            Err(Error::NotFound("execution"))
        }
    }

    /// Whether the key that asked for it may see the telemetry of all tenants.
    async fn was_platforms(
        &self,
        execution: &Execution,
        asked: &mut HashMap<ApiKeyId, bool>,
    ) -> Result<bool> {
        if let Some(known) = asked.get(&execution.key_id) {
            return Ok(*known);
        }
        let platforms = match self.0.store.get_key(execution.tenant_id, execution.key_id).await {
            Ok(key) => key.scopes.contains(Scope::PlatformObserve),
            Err(StoreError::NotFound) => true,
            Err(error) => return Err(error.into()),
        };
        asked.insert(execution.key_id, platforms);
        Ok(platforms)
    }

    /// Holds the caller to what calling the execution's tool needs.
    pub(super) fn require_to_run(&self, caller: &Principal, execution: &Execution) -> Result<()> {
        if !is_built_in(execution) {
            return Ok(caller.require(Scope::ToolsExecute)?);
        }
        let manifest = self.built_ins().manifest();
        let tool = manifest.as_ref().and_then(|known| known.get(&execution.tool));
        let scope = tool.map_or(Scope::ObserveRead, |tool| tool.scope);
        Ok(caller.require(scope)?)
    }
}

/// Whoever may run nothing at all is told which scope is missing, before anything is looked up.
pub(super) fn require_to_run_some(caller: &Principal) -> Result<()> {
    if observes(caller) || caller.scopes.contains(Scope::ToolsExecute) {
        return Ok(());
    }
    Err(MissingScope(Scope::ToolsExecute).into())
}
