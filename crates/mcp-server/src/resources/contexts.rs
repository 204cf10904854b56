//! `context://{id}`: a context and its newest items.

use super::{JSON, PAGE, Uri};
use crate::{
    error::Result,
    tools::{Call, view},
};
use domain::ContextId;
use proto::v1::{ListContextsRequest, ListItemsRequest};
use rmcp::model::{CacheScope, ListResourcesResult, Resource, ResourceContents};
use serde_json::json;

/// The most recent contexts first, as rest-api lists them.
pub(super) async fn list(call: Call<'_>, cursor: Option<String>) -> Result<ListResourcesResult> {
    let request = call.caller.request(ListContextsRequest {
        page: view::page(PAGE, cursor),
        ..Default::default()
    });
    let page = call.upstream.contexts.clone().list(request).await?.into_inner();
    let resources = page.contexts.into_iter().map(|context| {
        let about = format!("{} context, {} items", context.r#type, context.item_count);
        Resource::new(Uri::CONTEXTS.replace("{id}", &context.id), context.name)
            .with_description(about)
            .with_mime_type(JSON)
    });
    let mut result = ListResourcesResult::with_all_items(resources.collect());
    result.next_cursor = Some(page.next_cursor).filter(|cursor| !cursor.is_empty());
    // Contexts change with every item: nothing to keep.
    Ok(result.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

/// A context and as many of its items, newest last, as fit; a note says when there are more.
pub(super) async fn read(call: Call<'_>, id: ContextId, uri: &str) -> Result<ResourceContents> {
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
    Ok(ResourceContents::text(value.to_string(), uri).with_mime_type(JSON))
}
