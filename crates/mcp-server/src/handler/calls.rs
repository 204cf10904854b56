//! Calls of tools: the built-in ones run here, the registered ones at rest-api.

use super::{Answered, Handler, Shared};
use crate::{
    catalogue::Tools,
    error::Error,
    execute::{self, Reporter},
    span::caller,
};
use rmcp::{
    RoleServer,
    model::{CallToolRequestParams, CallToolResult},
    service::RequestContext,
};

impl Handler {
    /// Calls a tool.
    pub(super) async fn run(
        &self,
        request: CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Answered<CallToolResult> {
        let caller = caller(cx)?;
        let result = match self.shared.built_in.get(&*request.name) {
            Some(tool) => {
                tool.call(self.call(&caller), request.arguments.unwrap_or_default())
                    .await
            }
            None => {
                let reporter = Reporter {
                    peer: &cx.peer,
                    token: cx.meta.get_progress_token(),
                };
                let Shared {
                    upstream, results, ..
                } = &*self.shared;
                execute::run(
                    &caller,
                    upstream,
                    results,
                    &request.name,
                    request.arguments,
                    reporter,
                )
                .await
            }
        };
        result.or_else(Error::into_tool_result)
    }

    /// The tool's name as it may stand in a label.
    pub(super) fn label<'a>(&self, registered: &Tools, name: &'a str) -> &'a str {
        let known = self.shared.built_in.contains_key(name) || registered.contains_key(name);
        if known { name } else { "other" }
    }
}
