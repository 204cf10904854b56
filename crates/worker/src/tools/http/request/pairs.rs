//! Values as pairs of name and text: in queries and in `application/x-www-form-urlencoded` bodies.

use domain::{JsonObject, tool::QueryStyle};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::BTreeSet;
use url::{Url, form_urlencoded};

/// Everything but RFC 3986's unreserved characters: a value cannot end its parameter or begin another.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Writes an argument into a query's pairs, encoded. `null` is left out, in every style.
pub(super) fn query(pairs: &mut Vec<String>, name: &str, value: &Value, style: QueryStyle) {
    let delimiter = match style {
        QueryStyle::Form => return form_style(pairs, name, value),
        QueryStyle::DeepObject => {
            let mut nested_pairs = Vec::new();
            nested(&mut nested_pairs, name.to_owned(), value);
            pairs.extend(nested_pairs.iter().map(|(name, text)| pair(name, text)));
            return;
        }
        QueryStyle::Json if value.is_null() => return,
        QueryStyle::Json => return pairs.push(pair(name, &value.to_string())),
        QueryStyle::Comma => ",",
        QueryStyle::Space => "%20",
        QueryStyle::Pipe => "|",
    };
    // What stands inside of an item is encoded: a delimiter in it delimits nothing.
    let items: Vec<_> = items(value).iter().map(|item| encode(item)).collect();
    if !items.is_empty() {
        pairs.push(format!("{}={}", encode(name), items.join(delimiter)));
    }
}

/// An argument that no place is given to: a list repeats its name, an object stands as JSON.
pub(super) fn plain_query(pairs: &mut Vec<String>, name: &str, value: &Value) {
    match value {
        Value::Array(items) => pairs.extend(items.iter().filter_map(text).map(|text| pair(name, &text))),
        value => pairs.extend(text(value).map(|text| pair(name, &text))),
    }
}

/// Adds pairs to what the URL asks already.
pub(super) fn append_query(url: &mut Url, pairs: &[String]) {
    if pairs.is_empty() {
        return;
    }
    let pairs = pairs.join("&");
    let whole = match url.query() {
        Some(before) if !before.is_empty() => format!("{before}&{pairs}"),
        _ => pairs,
    };
    url.set_query(Some(&whole));
}

/// A body of pairs, nested values in brackets: `a[b]=c`, and lists with their places, `a[0]=x`. Without these, lists of
/// objects would be ambiguous; what reads `a[]=x` (Stripe, PHP, qs) reads them as well. `null` and what is empty are left out.
/// `None` where two would stand under one name.
pub(super) fn form_body(fields: &JsonObject) -> Option<String> {
    let mut pairs = Vec::new();
    for (name, value) in fields {
        nested(&mut pairs, name.clone(), value);
    }
    let names: BTreeSet<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    let apart = names.len() == pairs.len();
    apart.then(|| {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&pairs)
            .finish()
    })
}

/// The names that stand in a query.
pub(super) fn names(query: &str) -> BTreeSet<String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.map(|(name, _)| name.into_owned()).collect()
}

/// A list's items, or an object's names and values in turn; or the one value. As OpenAPI writes them without `explode`.
pub(super) fn items(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter_map(|(name, value)| Some([name.clone(), text(value)?]));
            fields.flatten().collect()
        }
        value => text(value).into_iter().collect(),
    }
}

fn form_style(pairs: &mut Vec<String>, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                pairs.extend(text(value).map(|text| pair(name, &text)));
            }
        }
        value => plain_query(pairs, name, value),
    }
}

fn nested(pairs: &mut Vec<(String, String)>, name: String, value: &Value) {
    match value {
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                nested(pairs, format!("{name}[{place}]"), item);
            }
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                nested(pairs, format!("{name}[{field}]"), value);
            }
        }
        value => pairs.extend(text(value).map(|text| (name, text))),
    }
}

/// A scalar as it is written, anything else as JSON; `None` for `null`.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    }
}

fn pair(name: &str, value: &str) -> String {
    format!("{}={}", encode(name), encode(value))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(value: &Value, style: QueryStyle) -> String {
        let mut pairs = Vec::new();
        query(&mut pairs, "a", value, style);
        pairs.join("&")
    }

    #[test]
    fn each_style_is_written_as_openapi_has_it() {
        let (list, object) = (json!(["x,y", 2, null]), json!({"k": "v&w", "n": 1}));
        for (style, of_list, of_object) in [
            (QueryStyle::Form, "a=x%2Cy&a=2", "k=v%26w&n=1"),
            (QueryStyle::Comma, "a=x%2Cy,2", "a=k,v%26w,n,1"),
            (QueryStyle::Space, "a=x%2Cy%202", "a=k%20v%26w%20n%201"),
            (QueryStyle::Pipe, "a=x%2Cy|2", "a=k|v%26w|n|1"),
            (
                QueryStyle::DeepObject,
                "a%5B0%5D=x%2Cy&a%5B1%5D=2",
                "a%5Bk%5D=v%26w&a%5Bn%5D=1",
            ),
            (
                QueryStyle::Json,
                "a=%5B%22x%2Cy%22%2C2%2Cnull%5D",
                "a=%7B%22k%22%3A%22v%26w%22%2C%22n%22%3A1%7D",
            ),
        ] {
            assert_eq!(written(&list, style), of_list, "{style:?}");
            assert_eq!(written(&object, style), of_object, "{style:?}");
            assert_eq!(written(&json!(null), style), "", "{style:?}");
            let one = if style == QueryStyle::Json {
                "a=%22%C3%BC%22"
            } else {
                "a=%C3%BC"
            };
            assert_eq!(written(&json!("ü"), style), one, "{style:?}");
        }
    }

    #[test]
    fn forms_nest_in_brackets() {
        let Value::Object(fields) = json!({
            "amount": 100, "metadata": {"order": "a&b=c"}, "items": [{"price": "p1"}, {"price": "p2"}],
            "on": true, "none": null, "empty": []
        }) else {
            unreachable!()
        };
        let mut pairs: Vec<_> = form_urlencoded::parse(form_body(&fields).unwrap().as_bytes())
            .into_owned()
            .collect();
        pairs.sort();
        let expected = [
            ("amount", "100"),
            ("items[0][price]", "p1"),
            ("items[1][price]", "p2"),
            ("metadata[order]", "a&b=c"),
            ("on", "true"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_query_is_added_to_what_the_url_asks() {
        for (url, whole) in [
            ("http://h.example/x", "http://h.example/x?a=1"),
            ("http://h.example/x?", "http://h.example/x?a=1"),
            ("http://h.example/x?b=2", "http://h.example/x?b=2&a=1"),
        ] {
            let mut url = Url::parse(url).unwrap();
            append_query(&mut url, &["a=1".to_owned()]);
            assert_eq!(url.as_str(), whole);
        }
    }
}
