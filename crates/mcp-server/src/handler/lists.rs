//! Which tools a caller sees.

use super::{Answered, Handler};
use crate::catalogue::Shown;
use crate::{caller::Caller, span::parts, toolsets::Toolsets};
use domain::Scope;
use rmcp::{
    ErrorData, RoleServer,
    model::{CacheScope, ListToolsResult, PaginatedRequestParams, Tool},
    service::RequestContext,
};

/// How many tools a page lists.
const PAGE: usize = 200;
/// What a cursor of tools/list begins with; the rest is the last name of the page before.
const AFTER: &str = "after:";
/// How long a client may rely upon a list of tools. It is told when the list changes; this is for when it did not listen.
const TOOLS_TTL_MS: u64 = 60_000;

/// The sets of tools that the URL of the request asks for.
pub(super) fn toolsets(cx: &RequestContext<RoleServer>) -> Toolsets {
    let asked = parts(cx).and_then(|parts| parts.extensions.get::<Toolsets>());
    asked.cloned().unwrap_or_default()
}

impl Handler {
    /// The tools that the caller may see, in the order of their names, after the given one.
    fn visible(&self, caller: &Caller, toolsets: &Toolsets, after: Option<&str>) -> Vec<Tool> {
        let principal = &caller.principal;
        let may = |scope| principal.scopes.contains(scope);
        let here = self
            .shared
            .built_in
            .values()
            .filter(|tool| may(tool.scope))
            .map(|tool| &tool.definition);
        let Shown { registered, built_in } = self.shared.catalogue.shown(self.tenant);
        let shadowed = |name: &str| built_in.get(name).is_some_and(|tool| tool.is_for(caller));
        let in_workers = built_in
            .values()
            .filter(|tool| tool.is_for(caller))
            .map(|tool| &tool.definition);
        let sees_registered = may(Scope::ToolsRead) || may(Scope::ToolsExecute);
        let registered = registered
            .values()
            .map(|tool| &tool.definition)
            .filter(|tool| sees_registered && !shadowed(&tool.name));
        let mut tools: Vec<&Tool> = here
            .chain(in_workers)
            .chain(registered)
            .filter(|tool| principal.tools.allow(&tool.name) && toolsets.hold(&tool.name))
            .filter(|tool| after.is_none_or(|after| *tool.name > *after))
            .collect();
        tools.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        tools.into_iter().take(PAGE + 1).cloned().collect()
    }

    /// A page of them.
    pub(super) fn list(
        &self,
        caller: &Caller,
        toolsets: &Toolsets,
        request: Option<PaginatedRequestParams>,
    ) -> Answered<ListToolsResult> {
        let cursor = request.and_then(|request| request.cursor);
        let after = cursor.as_deref().map(|cursor| {
            let bad = || ErrorData::invalid_params("not a cursor of this listing", None);
            cursor.strip_prefix(AFTER).ok_or_else(bad)
        });
        let mut tools = self.visible(caller, toolsets, after.transpose()?);
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
