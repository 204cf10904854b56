//! Which executions a caller sees.
//!
//! What the product's own tools answered is telemetry. A key sees its own; others only with `observe:read`; and what a key
//! with `platform:observe` was answered, which may be other tenants', only with that scope.

use crate::{
    api::{Api, tools::require_catalogue},
    error::{Error, Result},
};
use domain::{ApiKeyId, Principal, Scope, execution::Execution, principal::MissingScope, tool::built_in};
use std::{collections::BTreeSet, slice};

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
        let open = self.open_keys(caller, slice::from_ref(execution)).await?;
        self.require_own_of(caller, execution, &open)
    }

    /// Leaves out of many what the caller does not see.
    pub(super) async fn retain_own(
        &self,
        caller: &Principal,
        mut executions: Vec<Execution>,
    ) -> Result<Vec<Execution>> {
        let open = self.open_keys(caller, &executions).await?;
        executions.retain(|execution| self.require_listed(caller, execution, &open).is_ok());
        Ok(executions)
    }

    /// As [`Self::require_own`], for who only reads.
    pub(super) async fn require_seen(&self, caller: &Principal, execution: &Execution) -> Result<()> {
        let open = self.open_keys(caller, slice::from_ref(execution)).await?;
        self.require_listed(caller, execution, &open)
    }

    fn require_listed(
        &self,
        caller: &Principal,
        execution: &Execution,
        open: &BTreeSet<ApiKeyId>,
    ) -> Result<()> {
        if !is_built_in(execution) && require_catalogue(caller).is_err() {
            return Err(Error::NotFound("execution"));
        }
        self.require_own_of(caller, execution, open)
    }

    fn require_own_of(
        &self,
        caller: &Principal,
        execution: &Execution,
        open: &BTreeSet<ApiKeyId>,
    ) -> Result<()> {
        let schemas = &self.0.schemas;
        let permit = schemas.permit(caller, &execution.tool, &execution.arguments);
        permit.map_err(|error| error.hidden("execution"))?;
        if !is_built_in(execution) || open.contains(&execution.key_id) {
            Ok(())
        } else {
            Err(Error::NotFound("execution"))
        }
    }

    /// The keys among those that asked for these runs of the product's own tools whose answers the caller may see. The keys
    /// are read at once: a page may have as many as it has runs.
    async fn open_keys(&self, caller: &Principal, executions: &[Execution]) -> Result<BTreeSet<ApiKeyId>> {
        let asked = executions.iter().filter(|execution| is_built_in(execution));
        let mut keys: BTreeSet<_> = asked.map(|execution| execution.key_id).collect();
        let may = |scope| caller.scopes.contains(scope);
        if may(Scope::ObserveRead) && may(Scope::PlatformObserve) {
            return Ok(keys);
        }
        let own = keys.take(&caller.key_id);
        if !may(Scope::ObserveRead) {
            return Ok(own.into_iter().collect());
        }
        let others: Vec<_> = keys.into_iter().collect();
        let others = self.0.store.get_keys(caller.tenant_id, &others).await?;
        let of_the_tenant = others
            .iter()
            .filter(|key| !key.scopes.contains(Scope::PlatformObserve))
            .map(|key| key.id);
        Ok(own.into_iter().chain(of_the_tenant).collect())
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
