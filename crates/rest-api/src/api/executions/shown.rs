//! An execution as an agent is shown it: with the tool's selection in the result's place.

use super::seen::is_built_in;
use crate::{api::Api, error::Result, selection::Shown, store::StoreError};
use domain::{
    execution::{Execution, ExecutionStatus},
    tool::ToolOptions,
};

/// An execution, its result taken out and shown as its tool says.
#[derive(Clone, Debug)]
pub struct View {
    /// The execution, without its result.
    pub execution: Execution,
    /// The result.
    pub shown: Shown,
    /// The most bytes of it that the tool wants an agent to be shown.
    pub max_result_bytes: Option<u32>,
}

impl Api {
    /// Shows an execution as its tool, as it is now, says; what a removed tool answered is shown whole.
    pub async fn view(&self, execution: Execution) -> Result<View> {
        let options = match (&execution.result, execution.tool_id) {
            (Some(_), Some(id)) if !is_built_in(&execution) => {
                let found = self.0.store.get_tool(execution.tenant_id, &execution.tool).await;
                match found {
                    Ok(tool) if tool.id == id => tool.spec.options,
                    Ok(_) | Err(StoreError::NotFound) => ToolOptions::default(),
                    Err(error) => return Err(error.into()),
                }
            }
            _ => ToolOptions::default(),
        };
        Ok(self.view_as(execution, &options).await)
    }

    /// Shows an execution by these options.
    pub async fn view_as(&self, mut execution: Execution, options: &ToolOptions) -> View {
        let result = execution.result.take();
        // A selection is written for what the tool answers when all goes well.
        let went_well = execution.status == ExecutionStatus::Succeeded;
        let selection = options.selection.as_deref().filter(|_| went_well);
        View {
            execution,
            shown: self.0.selections.shown(selection, result).await,
            max_result_bytes: options.max_result_bytes,
        }
    }
}
