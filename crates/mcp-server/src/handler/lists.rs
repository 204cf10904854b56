//! Which tools a caller sees.

use super::{Answered, Handler};
use crate::caller::Caller;
use domain::Scope;
use rmcp::{
    ErrorData,
    model::{CacheScope, ListToolsResult, PaginatedRequestParams, Tool},
};

/// How many tools a page lists.
const PAGE: usize = 200;
/// What a cursor of tools/list begins with; the rest is the last name of the page before.
const AFTER: &str = "after:";
/// How long a client may rely upon a list of tools. It is told when the list changes; this is for when it did not listen.
const TOOLS_TTL_MS: u64 = 60_000;
impl Handler {
    /// The tools that the caller may see, in the order of their names, after the given one.
    fn visible(&self, caller: &Caller, after: Option<&str>) -> Vec<Tool> {
        let principal = &caller.principal;
        let may = |scope| principal.scopes.contains(scope);
        let built_in = self
            .shared
            .built_in
            .values()
            .filter(|tool| may(tool.scope))
            .map(|tool| &tool.definition);
        let registered = self.shared.catalogue.tools(self.tenant);
        let sees_registered = may(Scope::ToolsRead) || may(Scope::ToolsExecute);
        let registered = registered.values().filter(|_| sees_registered);
        let mut tools: Vec<&Tool> = built_in
            .chain(registered.map(|tool| &tool.definition))
            .filter(|tool| principal.tools.allow(&tool.name))
            .filter(|tool| after.is_none_or(|after| *tool.name > *after))
            .collect();
        tools.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        tools.into_iter().take(PAGE + 1).cloned().collect()
    }

    /// A page of them.
    pub(super) fn list(
        &self,
        caller: &Caller,
        request: Option<PaginatedRequestParams>,
    ) -> Answered<ListToolsResult> {
        let cursor = request.and_then(|request| request.cursor);
        let after = cursor.as_deref().map(|cursor| {
            let bad = || ErrorData::invalid_params("not a cursor of this listing", None);
            cursor.strip_prefix(AFTER).ok_or_else(bad)
        });
        let mut tools = self.visible(caller, after.transpose()?);
        let more = tools.len() > PAGE;
        tools.truncate(PAGE);
        let next = tools
            .last()
            .filter(|_| more)
            .map(|last| format!("{AFTER}{}", last.name));
        let mut result = ListToolsResult::with_all_items(tools);
        result.next_cursor = next;
        Ok(result
            .with_ttl_ms(TOOLS_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }
}
