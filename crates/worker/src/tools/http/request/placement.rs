//! Where each argument goes: into the query, a header, or the body.

use super::{
    Code, Failure, HeaderValue,
    pairs::{self, form_body},
};
use bytes::Bytes;
use domain::{
    JsonObject,
    tool::{BodyFormat, Place, ToolSpec},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The arguments that the URL's template did not take, in their places.
#[derive(Default)]
pub(super) struct Placed {
    /// Pairs, encoded.
    pub(super) query: Vec<String>,
    /// `(argument, header, value)`, not looked at yet.
    pub(super) own: Vec<(String, String, String)>,
    /// With the type of what is in it.
    pub(super) body: Option<(Option<HeaderValue>, Bytes)>,
}

/// What becomes the body.
#[derive(Default)]
struct Body {
    properties: JsonObject,
    whole: Option<Value>,
}

impl Placed {
    /// Places the arguments as the tool's options say, and where they say nothing, as its method has it. `fixed` is the
    /// query that the URL has already. No two arguments come to stand under one name: the endpoint would choose between
    /// what was allowed and what was slipped in beside it.
    pub(super) fn new(
        tool: &ToolSpec,
        taken: &BTreeSet<&str>,
        fixed: Option<&str>,
        arguments: &JsonObject,
    ) -> Result<Self, Failure> {
        let mut placed = Self::default();
        let mut body = Body::default();
        let mut names = pairs::names(fixed.unwrap_or_default());
        for (argument, value) in arguments {
            if taken.contains(argument.as_str()) {
                continue;
            }
            let renamed = |name: &Option<String>| name.as_ref().unwrap_or(argument).clone();
            let before = placed.query.len();
            match tool.options.places.get(argument) {
                Some(Place::Query { name, style }) => {
                    pairs::query(&mut placed.query, &renamed(name), value, *style);
                }
                Some(Place::Header { .. }) if value.is_null() => {}
                Some(Place::Header { name }) => {
                    let value = pairs::items(value).join(",");
                    placed.own.push((argument.clone(), renamed(name), value));
                }
                Some(Place::Body { name }) => {
                    body.insert(argument, renamed(name), value)?;
                }
                Some(Place::WholeBody) => body.whole = Some(value.clone()),
                None if tool.method.has_body() => {
                    body.insert(argument, argument.clone(), value)?;
                }
                None => pairs::plain_query(&mut placed.query, argument, value),
            }
            let added = pairs::names(&placed.query[before..].join("&"));
            if !names.is_disjoint(&added) {
                return Err(name_taken(argument));
            }
            names.extend(added);
        }
        placed.body = body.write(tool)?;
        Ok(placed)
    }
}

fn name_taken(argument: &str) -> Failure {
    let message = format!("the argument '{argument}' would stand under a name that is taken");
    Failure::new(Code::InvalidArguments, message)
}

impl Body {
    fn insert(&mut self, argument: &str, property: String, value: &Value) -> Result<(), Failure> {
        match self.properties.insert(property, value.clone()) {
            Some(_) => Err(name_taken(argument)),
            None => Ok(()),
        }
    }

    fn write(self, tool: &ToolSpec) -> Result<Option<(Option<HeaderValue>, Bytes)>, Failure> {
        let places = &tool.options.places;
        let takes_properties = places.is_empty() || places.values().any(|p| matches!(p, Place::Body { .. }));
        let content = match self.whole {
            Some(_) if !self.properties.is_empty() => {
                let message = "one argument is the whole body and others would go into it, too";
                return Err(Failure::new(Code::InvalidArguments, message));
            }
            Some(whole) => whole,
            None if !self.properties.is_empty() => Value::Object(self.properties),
            // So that whoever reads JSON finds some; unless the tool has no place for any.
            None if tool.method.has_body() && takes_properties => Value::Object(JsonObject::new()),
            None => return Ok(tool.method.has_body().then(|| (None, Bytes::new()))),
        };
        let (content_type, text) = match (tool.options.body, content) {
            (BodyFormat::Json, content) => ("application/json", content.to_string()),
            (BodyFormat::Form, Value::Object(fields)) => {
                let form = form_body(&fields).ok_or_else(|| {
                    let message = "two of the arguments would stand under one name of the form";
                    Failure::new(Code::InvalidArguments, message)
                })?;
                ("application/x-www-form-urlencoded", form)
            }
            (BodyFormat::Form, _) => {
                let message = "the body is a form, and what is to fill it is no object";
                return Err(Failure::new(Code::InvalidArguments, message));
            }
        };
        let content_type = HeaderValue::from_static(content_type);
        Ok(Some((Some(content_type), text.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::http::{
        request::Hop,
        tests::{call, tool},
    };
    use serde_json::json;

    fn hop(method: &str, options: Value, arguments: Value) -> Result<Hop, Failure> {
        let mut tool = tool(method, "http://h.example/{id}");
        tool.options = serde_json::from_value(options).unwrap();
        Hop::first(&call(tool, arguments))
    }

    fn body(hop: &Hop) -> Option<(&str, &str)> {
        let text = std::str::from_utf8(hop.body.as_ref()?).unwrap();
        let kind = hop.headers.get("content-type");
        Some((kind.map_or("", |kind| kind.to_str().unwrap()), text))
    }

    #[test]
    fn arguments_go_where_the_tool_says() {
        let places = json!({"places": {
            "page": {"in": "query", "name": "page[n]"},
            "ids": {"in": "query", "style": "comma"},
            "tenant": {"in": "header", "name": "X-Tenant"},
            "tags": {"in": "header"},
            "absent": {"in": "header"},
            "title": {"in": "body", "name": "name"},
        }});
        let arguments = json!({
            "id": 1, "page": 2, "ids": [3, 4], "tenant": "t", "tags": ["a", "b"], "absent": null, "title": "x", "rest": 5
        });
        let post = hop("POST", places.clone(), arguments.clone()).unwrap();
        assert_eq!(post.url.as_str(), "http://h.example/1?ids=3,4&page%5Bn%5D=2");
        assert_eq!(
            (&post.headers["x-tenant"], &post.headers["tags"]),
            (&"t".parse().unwrap(), &"a,b".parse().unwrap())
        );
        assert!(!post.headers.contains_key("absent"));
        assert_eq!(
            body(&post),
            Some(("application/json", r#"{"name":"x","rest":5}"#))
        );
        assert!(!post.span_url.contains('?'), "spans show no argument");
        // What is said of the body counts for methods that have none by themselves; the rest goes where the method puts it.
        let delete = hop("DELETE", places, arguments).unwrap();
        assert_eq!(
            delete.url.as_str(),
            "http://h.example/1?ids=3,4&page%5Bn%5D=2&rest=5"
        );
        assert_eq!(body(&delete), Some(("application/json", r#"{"name":"x"}"#)));
    }

    #[test]
    fn one_argument_can_be_the_whole_body() {
        let options = json!({"places": {"all": {"in": "whole_body"}}});
        let put = hop("PUT", options.clone(), json!({"id": 1, "all": [1, {"k": null}]})).unwrap();
        assert_eq!(body(&put), Some(("application/json", r#"[1,{"k":null}]"#)));
        let without = hop("PUT", options.clone(), json!({"id": 1})).unwrap();
        assert_eq!(body(&without), Some(("", "")));
        let both = hop("PUT", options, json!({"id": 1, "all": {}, "more": 1}));
        assert_eq!(both.err().unwrap().code, Code::InvalidArguments);
    }

    #[test]
    fn a_body_can_be_a_form() {
        let options = json!({"body": "form"});
        let post = hop(
            "POST",
            options,
            json!({"id": 1, "card": {"number": "4 2"}, "on": true}),
        )
        .unwrap();
        assert_eq!(
            body(&post),
            Some((
                "application/x-www-form-urlencoded",
                "card%5Bnumber%5D=4+2&on=true"
            ))
        );
        let options = json!({"body": "form", "places": {"all": {"in": "whole_body"}}});
        let list = hop("POST", options, json!({"id": 1, "all": [1]}));
        assert_eq!(list.err().unwrap().code, Code::InvalidArguments);
    }

    #[test]
    fn nothing_is_slipped_in_beside_what_was_allowed() {
        let places = json!({"places": {
            "env": {"in": "query", "name": "environment"},
            "filter": {"in": "query"},
            "deep": {"in": "query", "name": "q", "style": "deep_object"},
            "path": {"in": "query", "name": "q[path]"},
            "title": {"in": "body", "name": "name"},
        }});
        let form = json!({"body": "form"});
        for (method, options, arguments) in [
            ("GET", &places, json!({"env": "dev", "environment": "prod"})),
            (
                "GET",
                &places,
                json!({"env": "dev", "filter": {"environment": "prod"}}),
            ),
            ("GET", &places, json!({"path": "a", "deep": {"path": "b"}})),
            ("POST", &places, json!({"title": "a", "name": "b"})),
            ("POST", &form, json!({"card": {"number": 1}, "card[number]": 2})),
        ] {
            let mut arguments = arguments;
            arguments["id"] = json!(1);
            let told = hop(method, options.clone(), arguments.clone()).err();
            assert_eq!(told.map(|f| f.code), Some(Code::InvalidArguments), "{arguments}");
        }
        let fixed = tool("GET", "http://h.example/x?dry_run=true");
        let told = Hop::first(&call(fixed, json!({"dry_run": false}))).err();
        assert_eq!(told.map(|f| f.code), Some(Code::InvalidArguments));
        let list = hop("GET", json!({}), json!({"id": 1, "tag": ["a", "b"]})).unwrap();
        assert_eq!(
            list.url.query(),
            Some("tag=a&tag=b"),
            "a list may repeat its own name"
        );
    }

    #[test]
    fn a_body_without_arguments_is_an_empty_object_where_there_may_be_some() {
        let none = hop("POST", json!({}), json!({"id": 1})).unwrap();
        assert_eq!(body(&none), Some(("application/json", "{}")));
        let query_only = json!({"places": {"page": {"in": "query"}}});
        let post = hop("POST", query_only, json!({"id": 1, "page": 1})).unwrap();
        assert_eq!(body(&post), Some(("", "")));
        let get = hop(
            "GET",
            json!({"places": {"all": {"in": "whole_body"}}}),
            json!({"id": 1}),
        )
        .unwrap();
        assert_eq!(body(&get), None);
    }
}
