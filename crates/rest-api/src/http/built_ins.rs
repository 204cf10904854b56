//! `/built-in-tools`: the product's own tools over the telemetry that the tenant was granted.

use super::{Caller, Json};
use crate::{api::Api, built_ins::BuiltIn};
use axum::extract::State;
use domain::{JsonObject, tool::Toolset};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A tool that is part of the product; it is run as a registered one, by its name.
#[derive(Debug, Serialize, ToSchema)]
struct BuiltInView {
    name: String,
    /// A person's name for it.
    title: String,
    description: String,
    /// The set that it belongs to, as `?toolsets=` on the MCP URL and `@` in a key's `tools` name it.
    #[schema(example = "metrics")]
    toolset: &'static str,
    /// The scope that it needs.
    #[schema(example = "observe:read")]
    scope: &'static str,
    #[schema(value_type = Object)]
    input_schema: JsonObject,
    timeout_ms: u32,
    read_only: bool,
    idempotent: bool,
    destructive: bool,
}

impl From<&BuiltIn> for BuiltInView {
    fn from(built_in: &BuiltIn) -> Self {
        let spec = &built_in.tool.spec;
        Self {
            name: spec.name.clone(),
            title: built_in.title.clone(),
            description: spec.description.clone(),
            toolset: Toolset::of(&spec.name).as_str(),
            scope: built_in.scope.as_str(),
            input_schema: spec.input_schema.clone(),
            timeout_ms: spec.timeout_ms,
            read_only: spec.read_only,
            idempotent: spec.runs_twice(),
            destructive: spec.destructive,
        }
    }
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
struct BuiltInList {
    /// By name.
    items: Vec<BuiltInView>,
}

/// The product's own tools that the key may call, by name: those whose scope it has, whose sources its tenant was granted
/// and that its rules name.
#[utoipa::path(get, path = "/built-in-tools", tag = "tools", responses((status = 200, body = BuiltInList)))]
async fn list(State(api): State<Api>, Caller(caller): Caller) -> Json<BuiltInList> {
    let tools = api.list_built_ins(&caller);
    Json(BuiltInList {
        items: tools.iter().map(|tool| BuiltInView::from(&**tool)).collect(),
    })
}
