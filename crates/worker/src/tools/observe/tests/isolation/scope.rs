//! Whether a request is kept to the tenant. Written apart from what keeps it so, and more simply.

use super::{super::testing::Asked, attempts::uuid, fakes::OF_ACME};
use crate::sources::Kind;
use promql_parser::{
    label::{MatchOp, Matchers},
    parser::{self, Expr},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;

/// Whether `asked` can only show what is acme's, or is one of those that cannot be kept from showing more, where the
/// answer is what is to be filtered. Panics where it is not known: then a tool asks something new.
pub(super) fn holds(kind: Kind, asked: &Asked) -> bool {
    match kind {
        Kind::Prometheus => metrics(asked),
        Kind::Loki => logs(asked),
        Kind::Jaeger => match asked.path.as_str() {
            "/api/traces" if !asked.param("traceID").is_empty() => true,
            "/api/traces" => {
                let tags: Value = serde_json::from_str(asked.param("tags")).unwrap_or_default();
                tags["tenant_id"] == "acme"
            }
            path => panic!("is {path} of Jaeger kept to the tenant?"),
        },
        Kind::Tempo => match asked.path.as_str() {
            "/api/search" => traceql(asked.param("q")),
            path if path.starts_with("/api/traces/") && !path.contains("..") => true,
            path => panic!("is {path} of Tempo kept to the tenant?"),
        },
        Kind::Alertmanager => alerts(asked),
        kind => panic!("is {kind:?} asked over HTTP?"),
    }
}

fn metrics(asked: &Asked) -> bool {
    let path = asked.path.as_str();
    match path {
        "/api/v1/query" | "/api/v1/query_range" | "/api/v1/query_exemplars" => promql(asked.param("query")),
        // These cannot be.
        "/api/v1/targets" | "/api/v1/rules" => true,
        _ if path == "/api/v1/labels" || path == "/api/v1/series" || path.starts_with("/api/v1/label/") => {
            let selectors = asked.all("match[]");
            !selectors.is_empty() && selectors.into_iter().all(promql)
        }
        path => panic!("is {path} of Prometheus kept to the tenant?"),
    }
}

struct Selectors(bool);

impl ExprVisitor for Selectors {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        let scoped = |matchers: &Matchers| {
            let own = |m: &promql_parser::label::Matcher| {
                m.op == MatchOp::Equal && m.name == "tenant_id" && m.value == "acme"
            };
            matchers.or_matchers.is_empty() && matchers.matchers.iter().any(own)
        };
        self.0 &= match expr {
            Expr::VectorSelector(selector) => scoped(&selector.matchers),
            Expr::MatrixSelector(matrix) => scoped(&matrix.vs.matchers),
            Expr::Call(call) => call.func.name != "info",
            _ => true,
        };
        Ok(true)
    }
}

pub(super) fn promql(query: &str) -> bool {
    let mut selectors = Selectors(true);
    let walked = parser::parse(query).is_ok_and(|expr| walk_expr(&mut selectors, &expr).is_ok());
    // The walk must have seen them all: as many as there are braces.
    let braces = outside_strings(query).matches('{').count();
    walked && selectors.0 && braces == query.matches("tenant_id=\"acme\"").count()
}

fn logs(asked: &Asked) -> bool {
    let path = asked.path.as_str();
    assert!(
        path.starts_with("/loki/api/v1/"),
        "is {path} of Loki kept to the tenant?"
    );
    let mut queries = asked.all("query");
    queries.extend(asked.all("match[]"));
    !queries.is_empty() && queries.into_iter().all(logql)
}

pub(super) fn logql(query: &str) -> bool {
    let bare = outside_strings(query);
    let selectors = bare.matches('{').count();
    selectors > 0 && !bare.contains('#') && query.matches("tenant_id=\"acme\"").count() >= selectors && {
        let mut blocks = bare.split('{').skip(1);
        // Nothing within one selector can stand for two.
        blocks.all(|block| {
            block
                .split('}')
                .next()
                .is_some_and(|inside| inside.contains("tenant_id=") && !inside.contains(" or "))
        })
    }
}

fn traceql(query: &str) -> bool {
    let bare = outside_strings(query);
    bare.matches('{').count() == 1 && query.contains(".tenant_id = \"acme\"") && {
        // `a || b && c`: only in parentheses.
        let mut depth = 0;
        bare.split("||").count() == 1
            || bare.char_indices().all(|(at, c)| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                !(bare[at..].starts_with("||") && depth == 0)
            })
    }
}

/// Without what stands between quotes.
fn outside_strings(text: &str) -> String {
    let (mut kept, mut open, mut escaped) = (String::new(), None, false);
    for c in text.chars() {
        match open {
            _ if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(quote) if c == quote => open = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => open = Some(c),
            None => kept.push(c),
        }
    }
    kept
}

fn alerts(asked: &Asked) -> bool {
    let own = || asked.all("filter").contains(&"tenant_id=\"acme\"");
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/api/v2/alerts" | "/api/v2/silences" | "/api/v2/alerts/groups") => own(),
        ("POST", "/api/v2/silences") => {
            let silence: Value = serde_json::from_str(&asked.body).unwrap();
            let mut matchers = silence["matchers"].as_array().unwrap().iter();
            matchers.any(|m| {
                m["name"] == "tenant_id"
                    && m["value"] == "acme"
                    && m["isRegex"] == false
                    && m["isEqual"] == true
            })
        }
        ("GET", path) if path.starts_with("/api/v2/silence/") => true,
        // What is ended was looked at before.
        ("DELETE", path) => path == format!("/api/v2/silence/{}", uuid(OF_ACME)),
        (method, path) => panic!("is {method} {path} of Alertmanager kept to the tenant?"),
    }
}
