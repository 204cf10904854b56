//! Whole documents, from bytes to plans.

use domain::tool::{BodyFormat, Place, QueryStyle};
use openapi::{Document, Error, Options, Plan, PlannedTool, SchemeKind, Selection};
use serde_json::{Value, json};

const SHOP: &str = include_str!("documents/shop.yaml");
const TREES: &str = include_str!("documents/trees.json");

fn plan(text: &str, options: &Options) -> Result<Plan, Error> {
    let plan = Document::parse(text.as_bytes())?.plan(options, &|_| Ok(()))?;
    for tool in &plan.tools {
        assert_eq!(tool.spec.check(), Ok(()), "{}", tool.operation);
    }
    Ok(plan)
}

fn all(text: &str) -> Plan {
    plan(text, &Options::default()).expect("a plan")
}

fn tool<'a>(plan: &'a Plan, name: &str) -> &'a PlannedTool {
    let tool = plan.tools.iter().find(|tool| tool.spec.name == name);
    tool.unwrap_or_else(|| panic!("no {name} in {:?}, {:?}", names(plan), plan.left_out))
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.tools.iter().map(|tool| tool.spec.name.as_str()).collect()
}

fn notes(tool: &PlannedTool) -> Vec<&str> {
    tool.notes.iter().map(|note| note.code).collect()
}

fn left_out(plan: &Plan) -> Vec<(&str, &str)> {
    let left = plan.left_out.iter();
    left.map(|left| (left.operation.as_str(), left.code)).collect()
}

fn schema(tool: &PlannedTool) -> Value {
    Value::Object(tool.spec.input_schema.clone())
}

/// An operation of its own, in a document that is otherwise in order.
fn with(operation: &Value) -> String {
    let server = json!([{"url": "https://h.example"}]);
    json!({"openapi": "3.1.0", "servers": server, "paths": {"/x": {"post": operation}}}).to_string()
}

fn body(schema: &Value) -> Value {
    json!({"operationId": "x", "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}}})
}

#[test]
fn parameters_become_arguments_in_their_places() {
    let plan = all(SHOP);
    let list = tool(&plan, "orders_list-for-user");
    assert_eq!(list.spec.url, "https://eu.shop.example/v1/users/{user_id}/orders");
    assert_eq!(list.spec.description, "Orders of a user\n\nThe newest first.");
    assert!(list.spec.read_only && list.spec.idempotent && !list.spec.destructive);
    let query = |name: Option<&str>, style| Place::Query {
        name: name.map(str::to_owned),
        style,
    };
    let places = json!({
        "X-Tenant": Place::Header { name: None },
        "filter": query(None, QueryStyle::DeepObject),
        "page_size": query(Some("page[size]"), QueryStyle::Form),
        "status": query(None, QueryStyle::Comma),
        "tag": query(None, QueryStyle::Pipe),
        "where": query(None, QueryStyle::Json),
    });
    assert_eq!(serde_json::to_value(&list.spec.options.places).unwrap(), places);
    assert_eq!(
        schema(list),
        json!({
            "type": "object", "additionalProperties": false, "required": ["user_id"],
            "properties": {
                "user_id": {"type": "integer", "format": "int64"},
                "user-id": {"type": "string"},
                "X-Tenant": {"type": "string"},
                "page_size": {"type": "integer", "exclusiveMinimum": 0, "maximum": 100},
                "status": {"type": "array", "items": {"type": ["string", "null"], "enum": ["open", "sent", null]}},
                "filter": {"type": "object", "properties": {"since": {"type": ["string", "null"]}}},
                "tag": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object"},
            }
        })
    );
    assert_eq!(notes(list), ["header_set", "cookie_parameter"]);
}

#[test]
fn bodies_become_arguments_of_their_own_or_one() {
    let plan = all(SHOP);
    let create = tool(&plan, "orders.create");
    let properties = &schema(create)["properties"];
    assert_eq!(
        schema(create)["required"],
        json!(["user_id", "dry-run", "price", "lines"])
    );
    assert_eq!(
        properties["type"],
        json!({"type": "string", "description": "Which kind", "default": "plain"})
    );
    assert_eq!(properties["price"], json!({"type": "number", "multipleOf": 0.01}));
    assert_eq!(
        properties["lines"]["items"]["properties"]["note"],
        json!({"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]})
    );
    assert!(
        properties.get("id").is_none(),
        "what only answers have is asked of nobody"
    );
    let places = &create.spec.options.places;
    assert_eq!(
        places["type"],
        Place::Body {
            name: Some("@type".into())
        }
    );
    assert!(matches!(places["dry-run"], Place::Query { name: None, .. }));
    assert!(!places.contains_key("price"));

    let replace = tool(&plan, "users.replace");
    assert_eq!(replace.spec.options.places["body"], Place::WholeBody);
    assert_eq!(schema(replace)["properties"]["user_id"]["type"], "string");
    assert!(replace.spec.description.starts_with("Deprecated. PUT /users"));
    assert!(replace.spec.idempotent && !replace.spec.read_only);
    assert_eq!(notes(replace), ["path_parameter"]);

    // A property called as a path's argument: the body stays whole.
    let change = tool(&plan, "users.change");
    assert_eq!(change.spec.options.places["body"], Place::WholeBody);
    assert_eq!(
        change.spec.headers["Content-Type"],
        "application/merge-patch+json"
    );
    assert_eq!(schema(change)["required"], json!(["user_id"]));

    let delete = tool(&plan, "delete_users_user-id");
    assert!(delete.spec.destructive && delete.spec.idempotent);
    assert_eq!(delete.spec.options.places["reason"], Place::Body { name: None });

    let login = tool(&plan, "login");
    assert_eq!(login.spec.options.body, BodyFormat::Form);
    assert_eq!(login.spec.url, "https://login.shop.example/login");
    assert_eq!(login.origin, "https://login.shop.example");
    assert_eq!(plan.origin.as_deref(), Some("https://eu.shop.example"));
}

#[test]
fn what_cannot_be_is_left_out_and_said() {
    let plan = all(SHOP);
    assert_eq!(
        left_out(&plan),
        [
            ("avatars.upload", "media_type"),
            ("elsewhere", "external_reference"),
            ("session", "cookie_parameter"),
            ("users.options", "method"),
        ]
    );
    let kinds = |name: &str| -> Vec<Vec<SchemeKind>> {
        let alternatives = tool(&plan, name).security.iter();
        alternatives
            .map(|wanted| wanted.iter().map(|scheme| scheme.kind.clone()).collect())
            .collect()
    };
    assert_eq!(kinds("orders.create"), [[SchemeKind::Bearer]]);
    assert_eq!(
        kinds("login"),
        [[SchemeKind::Basic], [SchemeKind::Token("OAuth 2")]]
    );
    assert_eq!(kinds("delete_users_user-id"), [[]]);
    let reports = tool(&plan, "reports");
    assert_eq!(notes(reports), ["header_set", "security"]);
    assert_eq!(schema(reports)["properties"], json!({}));
}

#[test]
fn operations_are_chosen_by_name_tag_path_and_method() {
    let chosen = |selection: Selection| {
        let options = Options {
            selection,
            prefix: "shop_".into(),
            server: Some("http://localhost:1/base".into()),
            ..Options::default()
        };
        plan(SHOP, &options).unwrap()
    };
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let by_name = chosen(Selection {
        operations: list(&["orders*", "nothing", "shop_login"]),
        ..Selection::default()
    });
    assert_eq!(
        names(&by_name),
        ["shop_login", "shop_orders_list-for-user", "shop_orders.create"]
    );
    assert_eq!(left_out(&by_name), [("nothing", "no_such_operation")]);
    assert_eq!(by_name.tools[0].spec.url, "http://localhost:1/base/login");
    let by_tag = chosen(Selection {
        tags: list(&["orders"]),
        ..Selection::default()
    });
    assert_eq!(names(&by_tag), ["shop_orders_list-for-user"]);
    let by_rest = chosen(Selection {
        paths: list(&["/users/*"]),
        methods: list(&["POST", "delete"]),
        ..Selection::default()
    });
    assert_eq!(
        names(&by_rest),
        ["shop_delete_users_user-id", "shop_orders.create"]
    );
    let few = Options {
        max_tools: 3,
        ..Options::default()
    };
    assert_eq!(
        plan(SHOP, &few).unwrap_err(),
        Error::TooManyTools { chosen: 11, most: 3 }
    );
}

#[test]
fn circles_are_cut_and_never_make_a_schema_stricter() {
    let plan = all(TREES);
    let plant = tool(&plan, "plant");
    assert_eq!(notes(plant), ["recursion_open"]);
    let tree = schema(plant);
    assert_eq!(tree["additionalProperties"], false);
    assert_eq!(
        tree.pointer("/properties/children/items/properties/name/type"),
        Some(&"string".into())
    );
    assert!(!tree.to_string().contains("$ref"));

    let replant = schema(tool(&plan, "replant"));
    let of = |name: &str| &replant["properties"][name];
    assert!(
        of("choice").get("oneOf").is_none() && of("choice")["anyOf"].is_array(),
        "{replant}"
    );
    assert_eq!(
        of("not"),
        &json!({}),
        "a circle within 'not' must not forbid more"
    );
    assert_eq!(of("ring")["description"], "Goes round");
    assert_eq!(of("itself"), &json!({}));
    assert_eq!(of("any"), &json!({}));
    assert_eq!(of("dynamic"), &json!({"type": ["object", "null"]}));
}

#[test]
fn what_is_too_large_is_told_in_less_detail() {
    let wide = |depth: usize| {
        (0..depth).fold(
            json!({"type": "string", "description": "x".repeat(500)}),
            |inner, _| {
                let properties = (0..6).map(|i| (format!("p{i}"), inner.clone()));
                json!({"type": "object", "properties": Value::Object(properties.collect())})
            },
        )
    };
    let made = all(&with(&body(&wide(5))));
    assert_eq!(notes(&made.tools[0]), ["nested_parts_open"]);
    let long =
        json!({"type": "object", "properties": {"a": {"type": "string", "description": "x".repeat(2000)}}});
    assert_eq!(notes(&all(&with(&body(&long))).tools[0]), ["descriptions_cut"]);

    let choices: Vec<String> = (0..200_000).map(|i| format!("choice {i}")).collect();
    let made = all(&with(&body(
        &json!({"type": "object", "properties": {"c": {"type": "string", "enum": choices}}}),
    )));
    assert_eq!(notes(&made.tools[0]), ["choices_open"]);
    assert_eq!(
        schema(&made.tools[0])["properties"]["c"],
        json!({"type": "string"})
    );

    let many: serde_json::Map<_, _> = (0..5000)
        .map(|i| (format!("p{i}"), json!({"type": "string"})))
        .collect();
    let made = all(&with(&body(&json!({"type": "object", "properties": many}))));
    assert_eq!(made.tools[0].spec.options.places["body"], Place::WholeBody);
    assert_eq!(schema(&made.tools[0])["properties"]["body"]["type"], "object");
}

#[test]
fn references_that_double_or_lead_nowhere_cost_little() {
    let mut schemas: serde_json::Map<_, _> = (0..60)
        .map(|i| {
            let next = json!({"$ref": format!("#/components/schemas/s{}", i + 1)});
            (
                format!("s{i}"),
                json!({"type": "object", "properties": {"a": next, "b": next}}),
            )
        })
        .collect();
    schemas.insert("s60".into(), json!({"type": "string"}));
    // A chain of references, one naming the next, that would take a stack's end to follow.
    let chain = (0..100_000).map(|i| {
        (
            format!("c{i}"),
            json!({"$ref": format!("#/components/schemas/c{}", i + 1)}),
        )
    });
    schemas.extend(chain);
    let mut document: Value =
        serde_json::from_str(&with(&body(&json!({"$ref": "#/components/schemas/s0"})))).unwrap();
    document["components"] = json!({"schemas": schemas});
    document["paths"]["/y"] = json!({"post": body(&json!({"$ref": "#/components/schemas/c0"}))});
    document["paths"]["/z"] = json!({"post": body(&json!({"$ref": "#/none"}))});
    document["paths"]["/loop"] = json!({"$ref": "#/paths/~1loop"});
    let made = all(&document.to_string());
    assert_eq!(names(&made), ["x", "x_2"]);
    assert_eq!(
        left_out(&made),
        [("/loop", "reference_circle"), ("x", "reference_missing")]
    );
}

#[test]
fn hostile_details_are_refused_one_by_one() {
    let post = |operation: Value| with(&operation);
    let parameter = |parameter: Value| post(json!({"operationId": "x", "parameters": [parameter]}));
    let servers = |url: &str| post(json!({"operationId": "x", "servers": [{"url": url}]}));
    let path = |path: &str| {
        json!({"openapi": "3.0.0", "servers": [{"url": "https://h"}], "paths": {path: {"get": {"operationId": "x"}}}})
            .to_string()
    };
    for (document, code) in [
        (servers("javascript:alert(1)"), "server_url"),
        (servers("https://user:pw@h/"), "server_url"),
        (servers("/relative"), "server_relative"),
        (
            parameter(json!({"name": "Host", "in": "header", "required": true})),
            "header_parameter",
        ),
        (
            parameter(json!({"name": "a\r\nb", "in": "header", "required": true})),
            "header_parameter",
        ),
        (
            parameter(json!({"name": "x".repeat(300), "in": "query"})),
            "parameter",
        ),
        (parameter(json!({"in": "query"})), "parameter"),
        (
            parameter(json!({"name": "q", "in": "query", "required": true, "style": "odd"})),
            "query_style",
        ),
        (
            post(json!({"operationId": "x", "parameters": vec![json!({"$ref": "#/paths"}); 3]})),
            "parameter",
        ),
        (path("/a/../../{b}"), "path"),
        (path("/a/%2e%2E/{b}"), "path"),
        (path("/a#{b}"), "path"),
        (path("/{a"), "path"),
        (path("/a\nb"), "path"),
    ] {
        let made = all(&document);
        assert_eq!(left_out(&made), [("x", code)], "{document} {:?}", made.left_out);
    }
    let optional = all(&parameter(json!({"name": "Host", "in": "header"})));
    assert_eq!(notes(&optional.tools[0]), ["header_parameter"]);
    let many: Vec<Value> = (0..300)
        .map(|i| json!({"name": format!("p{i}"), "in": "query"}))
        .collect();
    assert_eq!(
        left_out(&all(&post(json!({"operationId": "x", "parameters": many})))),
        [("x", "too_many_parameters")]
    );
}

#[test]
fn duplicate_and_strange_names_stay_apart() {
    let operation = |id: &str| json!({"get": {"operationId": id}});
    let document = json!({"openapi": "3.0.0", "servers": [{"url": "https://h"}], "paths": {
        "/a": operation("same"), "/b": operation("same"), "/c": operation("same_2"), "/d": operation("s a\u{0}m/e"),
        "/e": operation(&"long".repeat(50)), "/f": operation("context_read"), "/{a-b}/{a_b}": operation("twins"),
    }});
    let made = all(&document.to_string());
    assert_eq!(names(&made)[..4], ["same", "same_2", "same_2_2", "s_a_m_e"]);
    assert_eq!(names(&made)[4].len(), 64);
    assert_eq!(names(&made)[5..], ["api_read", "twins"]);
    assert_eq!(made.tools[6].spec.url, "https://h/{a_b}/{a_b_2}");
}

#[test]
fn a_schema_that_is_refused_is_tried_without_patterns_then_left_out() {
    let document = Document::parse(
        with(&body(
            &json!({"type": "object", "properties": {"a": {"pattern": "("}}}),
        ))
        .as_bytes(),
    );
    let document = document.unwrap();
    let no_patterns = |schema: &domain::JsonObject| {
        let text = Value::Object(schema.clone()).to_string();
        if text.contains("pattern") {
            Err(domain::Invalid::new("input_schema", "none"))
        } else {
            Ok(())
        }
    };
    let made = document.plan(&Options::default(), &no_patterns).unwrap();
    assert_eq!(notes(&made.tools[0]), ["patterns_open"]);
    let nothing = |_: &domain::JsonObject| Err(domain::Invalid::new("input_schema", "nothing at all"));
    let made = document.plan(&Options::default(), &nothing).unwrap();
    assert_eq!(left_out(&made), [("x", "schema_refused")]);
}

#[test]
fn what_is_no_openapi_of_these_versions_is_refused() {
    for (text, code) in [
        ("swagger: '2.0'\npaths: {}", "openapi_version"),
        ("openapi: 3.2.0\npaths: {}", "openapi_version"),
        ("openapi: 3.0\npaths: []", "not_openapi"),
        ("[]", "not_openapi"),
        ("", "not_openapi"),
        ("<html>", "not_openapi"),
        ("{\"openapi\": \"3.0.0\"}", "not_openapi"),
        ("{]", "document_syntax"),
    ] {
        assert_eq!(
            plan(text, &Options::default()).unwrap_err().code(),
            code,
            "{text}"
        );
    }
    for options in [
        Options {
            prefix: "a b".into(),
            ..Options::default()
        },
        Options {
            server: Some("javascript:1".into()),
            ..Options::default()
        },
        Options {
            selection: Selection {
                tags: vec![String::new()],
                ..Selection::default()
            },
            ..Options::default()
        },
    ] {
        assert_eq!(plan(SHOP, &options).unwrap_err().code(), "invalid");
    }
}
