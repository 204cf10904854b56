//! Resources.

use super::{Answered, TTL_MS, tools::IMAGE};
use rmcp::{
    ErrorData,
    model::{
        CacheScope, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
        ResourceContents, ResourceTemplate,
    },
};
use serde_json::json;

/// The list.
pub(super) fn list() -> ListResourcesResult {
    let resources = [
        ("test://static-text", "static-text", "text/plain"),
        ("test://static-binary", "static-binary", "image/png"),
        ("test://watched-resource", "watched-resource", "text/plain"),
    ];
    let resources =
        resources.map(|(uri, name, mime_type)| Resource::new(uri, name).with_mime_type(mime_type));
    ListResourcesResult::with_all_items(resources.into())
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private)
}

/// The templates.
pub(super) fn templates() -> ListResourceTemplatesResult {
    let template =
        ResourceTemplate::new("test://template/{id}/data", "template").with_mime_type("application/json");
    ListResourceTemplatesResult::with_all_items(vec![template])
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private)
}

/// One resource.
pub(super) fn read(uri: &str) -> Answered<ReadResourceResult> {
    let of_template = uri
        .strip_prefix("test://template/")
        .and_then(|rest| rest.strip_suffix("/data"));
    let contents = match (uri, of_template) {
        ("test://static-text", _) => {
            ResourceContents::text("This is the content of the static text resource.", uri)
                .with_mime_type("text/plain")
        }
        ("test://static-binary", _) => ResourceContents::blob(IMAGE, uri).with_mime_type("image/png"),
        ("test://watched-resource", _) => {
            ResourceContents::text("Nothing happens here.", uri).with_mime_type("text/plain")
        }
        (_, Some(id)) => {
            let data = format!("Data for ID: {id}");
            let text = json!({ "id": id, "templateTest": true, "data": data });
            ResourceContents::text(text.to_string(), uri).with_mime_type("application/json")
        }
        _ => {
            let data = json!({ "uri": uri });
            return Err(ErrorData::resource_not_found("Resource not found", Some(data)));
        }
    };
    Ok(ReadResourceResult::new(vec![contents])
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private))
}
