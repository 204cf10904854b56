//! What a tenant has, as MCP resources: contexts, executions and their results, incidents; and what everybody may know:
//! runbooks, metrics, dashboards.

mod contexts;
mod executions;
pub(crate) mod incidents;
pub(crate) mod knowledge;
mod uri;

pub(crate) use uri::Uri;

use crate::{caller::Caller, error::Result, tools::Call};
use domain::Scope;
use rmcp::model::{
    CacheScope, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, ResourceTemplate,
};

const JSON: &str = "application/json";
/// How many resources of a kind a page lists.
const PAGE: u32 = 50;
/// What a cursor within the executions begins with. Any other is one of contexts.
const EXECUTIONS: &str = "executions:";

/// Contexts first, then recent executions, each of them latest first, and at the end what leads to everything else; what
/// the caller may not see is left out.
pub(crate) async fn list(call: Call<'_>, cursor: Option<String>) -> Result<ListResourcesResult> {
    let mut page = of_the_tenant(call, cursor).await?;
    if page.next_cursor.is_none() {
        page.resources.extend(incidents::list(call.caller));
        page.resources.extend(knowledge::list());
    }
    Ok(page)
}

async fn of_the_tenant(call: Call<'_>, cursor: Option<String>) -> Result<ListResourcesResult> {
    let executions = require_executions(call.caller);
    if let Some(place) = cursor
        .as_deref()
        .and_then(|cursor| cursor.strip_prefix(EXECUTIONS))
    {
        executions?;
        return executions::list(call, Some(place)).await;
    }
    match (call.caller.require(Scope::ContextsRead), executions) {
        (Ok(()), executions) => {
            let mut page = contexts::list(call, cursor).await?;
            if page.next_cursor.is_none() && executions.is_ok() {
                let more = executions::list(call, None).await?;
                page.resources.extend(more.resources);
                page.next_cursor = more.next_cursor;
            }
            Ok(page)
        }
        (Err(_), Ok(())) if cursor.is_none() => executions::list(call, None).await,
        (Err(missing), _) => Err(missing),
    }
}

/// How resources are addressed.
pub(crate) fn templates() -> ListResourceTemplatesResult {
    let template = |uri, name: &str, title, description| {
        ResourceTemplate::new(uri, name)
            .with_title(title)
            .with_description(description)
            .with_mime_type(JSON)
    };
    let hour = 3_600_000;
    ListResourceTemplatesResult::with_all_items(vec![
        template(
            Uri::CONTEXTS,
            "context",
            "Context",
            "A context and its items, as JSON",
        ),
        template(
            Uri::EXECUTIONS,
            "execution",
            "Execution",
            "Where a tool's run stands, and how to go on, as JSON",
        ),
        template(
            Uri::RESULTS,
            "execution-result",
            "Result of an execution",
            "The whole result's JSON text, in pages; offset counts bytes",
        ),
        template(
            Uri::RUNBOOK,
            "runbook",
            "Runbook",
            "What to do when an alert fires; runbooks://index lists them",
        )
        .with_mime_type(knowledge::MARKDOWN),
        template(
            Uri::DASHBOARDS,
            "dashboard",
            "Dashboard",
            "What a dashboard's panels ask, in PromQL and LogQL, as JSON",
        ),
        template(
            Uri::INCIDENTS,
            "incident",
            "Incident",
            "What alerts of one group came to, and the context of its findings, as JSON",
        ),
        template(
            Uri::POSTMORTEMS,
            "postmortem",
            "Postmortem",
            "The draft of an incident's postmortem",
        )
        .with_mime_type(knowledge::MARKDOWN),
    ])
    .with_ttl_ms(hour)
    .with_cache_scope(CacheScope::Private)
}

/// Reads one.
pub(crate) async fn read(call: Call<'_>, uri: &str) -> Result<ReadResourceResult> {
    let parsed: Uri = uri.parse()?;
    require(call.caller, parsed)?;
    let contents = match parsed {
        Uri::Context(id) => contexts::read(call, id, uri).await?,
        Uri::Execution(id) => executions::read(call, id, uri).await?,
        Uri::Result(id, offset) => executions::read_result(call, id, offset, uri).await?,
        Uri::Runbooks => knowledge::index(),
        Uri::Runbook(alert) => knowledge::runbook(alert).ok_or_else(uri::missing)?,
        Uri::Metrics => knowledge::metrics(),
        Uri::Dashboard(uid) => knowledge::dashboard(uid).ok_or_else(uri::missing)?,
        Uri::OpenIncidents => incidents::open(call).await?,
        Uri::Incident(id) => incidents::read(call, id).await?,
        Uri::Postmortem(id) => incidents::postmortem(call, id, uri).await?,
    };
    Ok(ReadResourceResult::new(vec![contents])
        .with_ttl_ms(0)
        .with_cache_scope(CacheScope::Private))
}

/// Holds the caller to the scope that the resource needs.
pub(crate) fn require(caller: &Caller, uri: Uri) -> Result<()> {
    match uri {
        Uri::Context(_) | Uri::OpenIncidents | Uri::Incident(_) | Uri::Postmortem(_) => {
            caller.require(Scope::ContextsRead)
        }
        Uri::Runbooks | Uri::Runbook(_) | Uri::Metrics | Uri::Dashboard(_) => Ok(()),
        Uri::Execution(_) | Uri::Result(..) => require_executions(caller),
    }
}

/// Who may run tools sees what became of it, too.
pub(crate) fn require_executions(caller: &Caller) -> Result<()> {
    let some = [Scope::ToolsExecute, Scope::ObserveRead, Scope::ObserveWrite];
    if some.iter().any(|scope| caller.principal.scopes.contains(*scope)) {
        return Ok(());
    }
    caller.require(Scope::ToolsRead)
}
