//! Contexts as MCP resources: `context://{id}`.

use crate::{
    error::{Error, Result},
    tools::{Call, view},
};
use domain::Scope;
use proto::v1::{ListContextsRequest, ListItemsRequest};
use rmcp::model::{
    CacheScope, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde_json::json;

const SCHEME: &str = "context://";
const JSON: &str = "application/json";
/// How many contexts a page lists.
const PAGE: u32 = 50;

/// The most recent contexts first, as rest-api lists them.
pub(crate) async fn list(call: Call<'_>, cursor: Option<String>) -> Result<ListResourcesResult> {
    call.caller.require(Scope::ContextsRead)?;
    let request = call.caller.request(ListContextsRequest {
        page: view::page(PAGE, cursor),
        ..Default::default()
    });
    let page = call.upstream.contexts.clone().list(request).await?.into_inner();
    let resources = page.contexts.into_iter().map(|context| {
        Resource::new(format!("{SCHEME}{}", context.id), context.name)
            .with_description(format!(
                "{} context, {} items",
                context.r#type, context.item_count
            ))
            .with_mime_type(JSON)
    });
    let mut result = ListResourcesResult::with_all_items(resources.collect());
    result.next_cursor = Some(page.next_cursor).filter(|cursor| !cursor.is_empty());
    // Contexts change with every item: nothing to keep.
    Ok(result.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

/// The one template there is.
pub(crate) fn templates() -> ListResourceTemplatesResult {
    let template = ResourceTemplate::new(format!("{SCHEME}{{id}}"), "context")
        .with_title("Context")
        .with_description("A context and its items, as JSON")
        .with_mime_type(JSON);
    let hour = 3_600_000;
    ListResourceTemplatesResult::with_all_items(vec![template])
        .with_ttl_ms(hour)
        .with_cache_scope(CacheScope::Private)
}

/// A context and as many of its items, newest last, as fit; a note says when there are more.
pub(crate) async fn read(call: Call<'_>, uri: &str) -> Result<ReadResourceResult> {
    call.caller.require(Scope::ContextsRead)?;
    let id = uri
        .strip_prefix(SCHEME)
        .and_then(|id| id.parse::<domain::ContextId>().ok())
        .ok_or_else(missing)?;
    let asked = ListItemsRequest {
        id: id.to_string(),
        newest_first: true,
        ..Default::default()
    };
    let mut shown = view::show(call, asked, call.results.default_bytes).await?;
    shown.items.reverse();
    let truncated = shown.next_cursor.is_some() || shown.is_cut();
    let mut value = json!({"context": shown.context, "items": shown.items, "truncated": truncated});
    if truncated {
        value["note"] =
            json!("only the newest items are shown, or a part of one; the tool context_get reads the rest");
    }
    let contents = ResourceContents::text(value.to_string(), uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents])
        .with_ttl_ms(0)
        .with_cache_scope(CacheScope::Private))
}

fn missing() -> Error {
    Error::Refused {
        code: "not_found".into(),
        message: "no such resource".to_owned(),
        not_found: true,
    }
}
