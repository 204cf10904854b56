//! The product's own tools: for whom they are there, and who may call them.

use super::{Api, tools::require_visible};
use crate::{
    built_ins::{BuiltIn, BuiltIns},
    error::{Error, Result},
};
use domain::{Principal, tool::built_in};
use proto::v1::RunCaller;
use std::sync::Arc;

impl Api {
    /// What the workers told of the product's own tools.
    pub fn built_ins(&self) -> &BuiltIns {
        self.0.runner.built_ins()
    }

    /// The product's own tools that the caller may call, by name.
    pub fn list_built_ins(&self, caller: &Principal) -> Vec<Arc<BuiltIn>> {
        let may = |tool: &&Arc<BuiltIn>| {
            tool.is_open_to(&caller.tenant, &caller.scopes)
                && caller.scopes.contains(tool.scope)
                && caller.tools.allow(&tool.tool.spec.name)
        };
        let manifest = self.built_ins().manifest();
        let tools = manifest.iter().flat_map(|manifest| manifest.tools());
        tools.filter(may).cloned().collect()
    }

    /// The product's tool of this name. `None` when it has none, or none for this caller: then the name may be that of a
    /// tool that the tenant registered, before the product had one.
    ///
    /// # Errors
    /// When the caller lacks its scope, or no worker has told yet which tools there are.
    pub(super) fn built_in(&self, caller: &Principal, name: &str) -> Result<Option<Arc<BuiltIn>>> {
        if !built_in::is_built_in(name) {
            return Ok(None);
        }
        require_visible(caller, name, "tool")?;
        let away = Error::Unavailable { what: "a worker" };
        let manifest = self.built_ins().manifest().ok_or(away)?;
        let open = |tool: &&Arc<BuiltIn>| tool.is_open_to(&caller.tenant, &caller.scopes);
        let Some(tool) = manifest.get(name).filter(open) else {
            return Ok(None);
        };
        caller.require(tool.scope)?;
        Ok(Some(Arc::clone(tool)))
    }
}

/// Whose key asks, as workers are told of it.
pub(super) fn run_caller(caller: &Principal) -> RunCaller {
    RunCaller {
        key_id: caller.key_id.to_string(),
        key_name: caller.key_name.clone(),
        scopes: caller.scopes.iter().map(|scope| scope.to_string()).collect(),
    }
}
