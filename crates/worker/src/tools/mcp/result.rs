//! From a server's result of a call to a run's.

use super::take;
use crate::outcome::{Code, Failure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

/// What a call came to: its structured content where there is some, otherwise `{"content": […]}` with what can be read.
///
/// # Errors
/// [`Code::ToolError`] when the tool says that it failed, with what it says.
pub(super) fn of(mut result: Value) -> Result<Value, Failure> {
    let kind = result["resultType"].as_str().unwrap_or("complete");
    if kind != "complete" {
        let message = "the tool asks for something that only an agent or a person could answer";
        return Err(Failure::new(Code::UpstreamError, message));
    }
    let failed = result["isError"] == Value::Bool(true);
    let shown = match take(&mut result, "structuredContent") {
        structured @ Value::Object(_) => structured,
        _ => {
            let Value::Array(blocks) = take(&mut result, "content") else {
                let message = "the server's answer holds no content";
                return Err(Failure::new(Code::InvalidResponse, message));
            };
            json!({"content": blocks.into_iter().map(block).collect::<Vec<_>>()})
        }
    };
    if failed {
        return Err(Failure {
            result: Some(shown),
            ..Failure::new(
                Code::ToolError,
                "the server's tool says that it failed; its words are in the result",
            )
        });
    }
    Ok(shown)
}

/// A part of the content. What is no text is told by its kind and size.
fn block(mut block: Value) -> Value {
    match block["type"].as_str() {
        Some("text") => json!({"type": "text", "text": take(&mut block, "text")}),
        Some(kind @ ("image" | "audio")) => {
            let size = bytes(&block["data"]);
            json!({"type": kind, "mimeType": block["mimeType"], "bytes": size, "left_out": true})
        }
        Some("resource") => {
            let resource = &mut take(&mut block, "resource");
            let mut shown =
                json!({"type": "resource", "uri": resource["uri"], "mimeType": resource["mimeType"]});
            match take(resource, "text") {
                text @ Value::String(_) => shown["text"] = text,
                _ => {
                    shown["bytes"] = json!(bytes(&resource["blob"]));
                    shown["left_out"] = json!(true);
                }
            }
            shown
        }
        Some("resource_link") => {
            let members = ["type", "uri", "name", "title", "description", "mimeType", "size"];
            let given = members.into_iter().filter(|member| !block[*member].is_null());
            given
                .map(|member| (member.to_owned(), block[member].clone()))
                .collect::<Map<_, _>>()
                .into()
        }
        _ => json!({"type": block["type"], "left_out": true}),
    }
}

/// The size of what base64 stands for.
fn bytes(data: &Value) -> Option<usize> {
    BASE64_STANDARD
        .decode(data.as_str()?)
        .ok()
        .map(|bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_goes_before_content_and_what_is_no_text_is_told_by_size() {
        let both = json!({"content": [{"type": "text", "text": "{}"}], "structuredContent": {"a": 1}});
        assert_eq!(of(both).unwrap(), json!({"a": 1}));
        let mixed = json!({"content": [
            {"type": "text", "text": "hello", "annotations": {}},
            {"type": "image", "mimeType": "image/png", "data": "iVAA"},
            {"type": "resource", "resource": {"uri": "file:///x", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "file:///y", "name": "y"},
            {"type": "hologram"},
            {"type": "resource", "resource": "x"},
            7,
        ]});
        assert_eq!(
            of(mixed).unwrap(),
            json!({"content": [
                {"type": "text", "text": "hello"},
                {"type": "image", "mimeType": "image/png", "bytes": 3, "left_out": true},
                {"type": "resource", "uri": "file:///x", "mimeType": null, "bytes": 3, "left_out": true},
                {"type": "resource_link", "uri": "file:///y", "name": "y"},
                {"type": "hologram", "left_out": true},
                {"type": "resource", "uri": null, "mimeType": null, "bytes": null, "left_out": true},
                {"type": null, "left_out": true},
            ]})
        );
    }

    #[test]
    fn a_tools_own_failure_keeps_its_words() {
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "no such issue"}]});
        let failure = of(failed).unwrap_err();
        assert_eq!(failure.code, Code::ToolError);
        assert_eq!(failure.result.unwrap()["content"][0]["text"], "no such issue");
        for (odd, code) in [
            (json!({"resultType": "input_required"}), Code::UpstreamError),
            (json!({}), Code::InvalidResponse),
            (json!(7), Code::InvalidResponse),
        ] {
            assert_eq!(of(odd).unwrap_err().code, code);
        }
    }
}
