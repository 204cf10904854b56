//! OpenAPI 3.1, generated from the handlers, and a page that shows it.

use axum::response::Html;
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, RefOr, ResponseBuilder,
    Schema, Type,
    path::Operation,
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

/// What every route's description is added to.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("DevOps MCP")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Contexts, tools, API keys and executions. Errors are `application/problem+json`.",
        ))
        .license(Some(utoipa::openapi::License::new("Apache-2.0")))
        .build();
    let mut components = Components::new();
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme(
        "api_key",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))),
    );
    components.schemas.insert("Problem".to_owned(), problem());
    let either = ["bearer", "api_key"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some(either))
        .build()
}

/// The description as text, with every operation's errors named.
pub(super) fn text(api: &OpenApi) -> String {
    let mut api = api.clone();
    for item in api.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        operations.into_iter().flatten().for_each(name_errors);
    }
    api.to_pretty_json().unwrap_or_default()
}

/// The page that shows the description: no script or style from elsewhere.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("docs.html"))
}

fn name_errors(operation: &mut Operation) {
    let problem = || {
        let schema = utoipa::openapi::Ref::from_schema_name("Problem");
        ContentBuilder::new().schema(Some(schema)).build()
    };
    let errors = ResponseBuilder::new()
        .description("Refused or failed; `code` is stable")
        .content("application/problem+json", problem())
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), RefOr::T(errors));
}

fn problem() -> RefOr<Schema> {
    let text = |description: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .build()
    };
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("HTTP status"))
        .build();
    let object = ObjectBuilder::new()
        .description(Some("RFC 9457; further members depend on the code"))
        .property("type", text("`about:blank`"))
        .property("title", text("The status in words"))
        .property("status", number)
        .property("code", text("Stable, for programs"))
        .property("detail", text("For people"))
        .property("request_id", text("Finds the request in logs and traces"))
        .property("trace_id", text("Finds the request's trace"))
        .required("status")
        .required("code")
        .build();
    RefOr::T(Schema::Object(object))
}
