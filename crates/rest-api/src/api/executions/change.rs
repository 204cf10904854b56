//! What people do about an execution: cancel, approve, replay.

use super::seen::{is_built_in, require_to_run_some};
use crate::{
    api::Api,
    error::{Error, Found, Result},
};
use domain::{
    ExecutionId, Principal, Scope,
    execution::{Execution, ExecutionStatus, digest},
    principal::MissingScope,
    tool::Tool,
};

impl Api {
    /// Ends what waits, asks what runs to end; a final one stays as it is. Needs what calling the tool needs. What awaits approval is
    /// ended by the key that asked for it, or by one that could approve it.
    pub async fn cancel_execution(&self, caller: &Principal, id: ExecutionId) -> Result<Execution> {
        let approver = caller.scopes.contains(Scope::ExecutionsApprove);
        if !approver {
            require_to_run_some(caller)?;
        }
        let execution = self.get_execution_to_change(caller, id).await?;
        let awaits = execution.status == ExecutionStatus::AwaitingApproval;
        if awaits && !approver && execution.key_id != caller.key_id {
            return Err(MissingScope(Scope::ExecutionsApprove).into());
        }
        if !awaits || !approver {
            self.require_to_run(caller, &execution)?;
        }
        if execution.status.is_final() {
            return Ok(execution);
        }
        let cancelled = self.cancel(caller.tenant_id, id).await?;
        tracing::info!(execution_id = %id, tool = cancelled.tool, by = %caller.key_id, "execution cancelled");
        Ok(cancelled)
    }

    /// Lets run what awaits approval. Needs `executions:approve`, and another key than the one that asked for it. The
    /// approval is for these very arguments and for the tool as it is now.
    pub async fn approve_execution(
        &self,
        caller: &Principal,
        id: ExecutionId,
        given: &str,
    ) -> Result<Execution> {
        caller.require(Scope::ExecutionsApprove)?;
        let execution = self.get_execution_to_change(caller, id).await?;
        if execution.status != ExecutionStatus::AwaitingApproval {
            return Err(Error::WrongStatus(execution.status));
        }
        if execution.key_id == caller.key_id {
            return Err(Error::OwnRequest);
        }
        if execution.digest != given {
            return Err(Error::DigestMismatch);
        }
        let tool = self.tool_of(caller, &execution).await?;
        if digest(tool.id, tool.version, &execution.arguments) != execution.digest {
            return Err(Error::ToolChanged);
        }
        let by = caller.key_id;
        let approved = self
            .0
            .store
            .approve_execution(caller.tenant_id, id, by, given)
            .await;
        let approved = self.changed(caller, id, approved).await?;
        tracing::info!(execution_id = %id, tool = approved.tool, %by, "execution approved");
        Ok(approved)
    }

    /// Queues again what ended without success, under the same id; it runs as the caller from now on, for the key that
    /// asked first may be gone. Needs what calling the tool needs, and `tools:unattended` for a
    /// destructive tool. What may have had its effect, and must not have it twice, is replayed only by whoever says that
    /// he knows it (`acknowledge_unknown`).
    pub async fn replay_execution(
        &self,
        caller: &Principal,
        id: ExecutionId,
        acknowledge_unknown: bool,
    ) -> Result<Execution> {
        require_to_run_some(caller)?;
        let execution = self.get_execution_to_change(caller, id).await?;
        self.require_to_run(caller, &execution)?;
        if !execution.status.is_final() || execution.status == ExecutionStatus::Succeeded {
            return Err(Error::WrongStatus(execution.status));
        }
        let tool = self.tool_of(caller, &execution).await?;
        self.permit(caller, &tool, &execution.arguments)?;
        self.0.schemas.validate(&tool, &execution.arguments)?;
        if tool.spec.destructive {
            caller.require(Scope::ToolsUnattended)?;
        }
        let idempotent = tool.spec.runs_twice();
        let unknown = execution.status == ExecutionStatus::OutcomeUnknown && !idempotent;
        if unknown && !acknowledge_unknown {
            return Err(Error::OutcomeUnknown);
        }
        self.0.backlog.admit(&caller.tenant).await?;
        let more = tool.spec.options.retry.map_or(1, |policy| policy.max_attempts);
        let more = i32::try_from(more).unwrap_or(i32::MAX);
        let digest = digest(tool.id, tool.version, &execution.arguments);
        let replayed = self
            .0
            .store
            .replay_execution(caller.tenant_id, id, caller.key_id, more, idempotent, &digest)
            .await;
        let replayed = self.changed(caller, id, replayed).await?;
        let (tool, by) = (replayed.tool.as_str(), caller.key_id);
        tracing::info!(execution_id = %id, tool, %by, was = execution.status.as_str(), "execution replayed");
        Ok(replayed)
    }

    /// As [`get_execution`](Self::get_execution), for who may change it whether he may read others or not.
    async fn get_execution_to_change(&self, caller: &Principal, id: ExecutionId) -> Result<Execution> {
        let found = self.0.store.get_execution(caller.tenant_id, id).await;
        let execution = found.or_missing("execution")?;
        self.require_own(caller, &execution).await?;
        Ok(execution)
    }

    /// The tool that an execution runs, as it is now.
    async fn tool_of(&self, caller: &Principal, execution: &Execution) -> Result<Tool> {
        if is_built_in(execution) {
            let tool = self.built_in(caller, &execution.tool)?;
            return Ok(tool.ok_or(Error::NotFound("tool"))?.tool.clone());
        }
        let found = self.0.store.get_tool(caller.tenant_id, &execution.tool).await;
        let tool = found.or_missing("tool")?;
        // Another of the same name is another tool.
        if Some(tool.id) == execution.tool_id {
            Ok(tool)
        } else {
            Err(Error::NotFound("tool"))
        }
    }

    /// What a change made; where it came too late, what the execution is instead.
    async fn changed(
        &self,
        caller: &Principal,
        id: ExecutionId,
        changed: crate::store::Result<Execution>,
    ) -> Result<Execution> {
        match changed {
            Err(crate::store::StoreError::Conflict) => {
                let now = self.get_execution_to_change(caller, id).await?;
                Err(Error::WrongStatus(now.status))
            }
            other => other.or_missing("execution"),
        }
    }
}
