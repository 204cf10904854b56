//! `execution://{id}`: where a run of a tool stands. `execution://{id}/result`: all that it answered, in pages.

use super::{EXECUTIONS, JSON, PAGE, Uri, uri::missing};
use crate::{
    error::{Error, Result},
    settings::Results,
    tools::{Call, view},
};
use domain::{ExecutionId, execution::ExecutionStatus};
use proto::v1::{
    Execution, GetExecutionRequest, ListExecutionsRequest, ReadResultRequest, ReadResultResponse,
};
use rmcp::model::{CacheScope, ListResourcesResult, MetaObject, Resource, ResourceContents};
use serde_json::{Value, json};

/// How many executions are listed, all pages together: there are as many as tools were ever called.
const MAX_LISTED: u32 = 200;
/// Under which key of a page's `_meta` its place stands.
const PLACE: &str = "devops-mcp/page";
/// The longest a character is in UTF-8, less one.
const CHARACTER: usize = 3;

/// The latest first. `place` is what a cursor says after its prefix: how many have been listed, and rest-api's cursor.
pub(super) async fn list(call: Call<'_>, place: Option<&str>) -> Result<ListResourcesResult> {
    let foreign = || Error::Arguments("not a cursor of this listing".to_owned());
    let (listed, cursor) = match place {
        Some(place) => place.split_once(':').ok_or_else(foreign)?,
        None => ("0", ""),
    };
    let listed: u32 = listed.parse().map_err(|_| foreign())?;
    let request = call.caller.request(ListExecutionsRequest {
        page: view::page(PAGE, Some(cursor.to_owned())),
        ..Default::default()
    });
    let page = call.upstream.executions.clone().list(request).await?.into_inner();
    let resources = page.executions.into_iter().map(listing);
    let mut result = ListResourcesResult::with_all_items(resources.collect::<Result<_>>()?);
    let listed = listed.saturating_add(PAGE);
    let more = !page.next_cursor.is_empty() && listed < MAX_LISTED;
    result.next_cursor = more.then(|| format!("{EXECUTIONS}{listed}:{}", page.next_cursor));
    Ok(result.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

fn listing(execution: Execution) -> Result<Resource> {
    let asked = view::time(execution.created_at)?.unwrap_or_default();
    let uri = Uri::EXECUTIONS.replace("{id}", &execution.id);
    Ok(Resource::new(uri, execution.tool)
        .with_description(format!("execution, {}, asked for at {asked}", execution.status))
        .with_mime_type(JSON))
}

/// Where it stands.
pub(super) async fn read(call: Call<'_>, id: ExecutionId, uri: &str) -> Result<ResourceContents> {
    let request = call.caller.request(GetExecutionRequest { id: id.to_string() });
    let execution = call.upstream.executions.clone().get(request).await?.into_inner();
    let value = state(&execution, id, call.results)?;
    Ok(ResourceContents::text(value.to_string(), uri).with_mime_type(JSON))
}

/// All but the result, which has an address of its own.
fn state(execution: &Execution, id: ExecutionId, results: &Results) -> Result<Value> {
    let status: ExecutionStatus = execution.status.parse().map_err(Error::internal)?;
    let mut value = json!({
        "id": execution.id,
        "tool": execution.tool,
        "status": execution.status,
        "attempts": execution.attempts,
        "created_at": view::time(execution.created_at)?,
        "started_at": view::time(execution.started_at)?,
        "finished_at": view::time(execution.finished_at)?,
        "next": next(status, execution),
    });
    if execution.arguments_json.len() <= results.default_bytes {
        let arguments = proto::convert::object("arguments_json", &execution.arguments_json);
        value["arguments"] = Value::Object(arguments.map_err(Error::internal)?);
    } else {
        value["arguments_bytes"] = json!(execution.arguments_json.len());
    }
    if let Some(error) = &execution.error {
        value["error"] = json!({"code": error.code, "message": error.message});
    }
    if let Some(progress) = &execution.progress {
        value["progress"] = json!(progress);
    }
    if status == ExecutionStatus::Queued {
        value["run_at"] = json!(view::time(execution.run_at)?);
    }
    if status == ExecutionStatus::AwaitingApproval {
        value["digest"] = json!(execution.digest);
    }
    if execution.cancel_requested && !status.is_final() {
        value["cancel_requested"] = json!(true);
    }
    if execution.result_bytes > 0 {
        value["result"] = json!({
            "uri": Uri::Result(id, 0).to_string(),
            "size_bytes": execution.result_bytes,
            "page_bytes": results.default_bytes,
            "note": "a page begins at every multiple of page_bytes (?offset=…); the pages' texts, one after another, \
                are the whole",
        });
    }
    Ok(value)
}

/// How to go on, for whoever reads it.
fn next(status: ExecutionStatus, execution: &Execution) -> String {
    let path = format!("/api/v1/executions/{}", execution.id);
    match status {
        ExecutionStatus::Queued | ExecutionStatus::Running => {
            "it goes on by itself: read this again, or subscribe to it".to_owned()
        }
        ExecutionStatus::AwaitingApproval => format!(
            "a person must approve it: POST {path}/approve with {{\"digest\": \"…\"}}, by a key with executions:approve \
             that is not the one that asked; until then read this again, or subscribe to it"
        ),
        ExecutionStatus::Succeeded if execution.result_bytes > 0 => "it is done: read result.uri".to_owned(),
        ExecutionStatus::Succeeded => "it is done, and answered nothing".to_owned(),
        ExecutionStatus::Failed | ExecutionStatus::Dead | ExecutionStatus::Cancelled => {
            format!("nothing more happens by itself; POST {path}/replay runs it again")
        }
        ExecutionStatus::OutcomeUnknown => format!(
            "it may or may not have had its effect: find out, then POST {path}/replay with \
             {{\"acknowledge_unknown\": true}} runs it again"
        ),
    }
}

/// A page of the whole result. Pages begin wherever they are asked to, moved back to a character's beginning, so that
/// those at multiples of the page's size follow one another without gap or overlap.
pub(super) async fn read_result(
    call: Call<'_>,
    id: ExecutionId,
    offset: u64,
    uri: &str,
) -> Result<ResourceContents> {
    let size = call.results.default_bytes;
    let request = call.caller.request(ReadResultRequest {
        id: id.to_string(),
        offset,
        // rest-api may begin a little before what was asked for.
        limit: u32::try_from(size + CHARACTER).unwrap_or(u32::MAX),
    });
    let read = call.upstream.executions.clone().read_result(request).await?;
    page(&read.into_inner(), id, offset, size, uri)
}

fn page(
    read: &ReadResultResponse,
    id: ExecutionId,
    asked: u64,
    size: usize,
    uri: &str,
) -> Result<ResourceContents> {
    let total = read.total_bytes;
    if total == 0 {
        return Err(missing());
    }
    if asked >= total {
        return Err(Error::Arguments(format!(
            "offset: expected less than the result's {total} bytes"
        )));
    }
    let moved = usize::try_from(asked.saturating_sub(read.offset)).map_err(Error::internal)?;
    let text = &read.text[..read.text.floor_char_boundary(size + moved)];
    let end = read.offset + text.len() as u64;
    let next = (end < total).then(|| Uri::Result(id, end).to_string());
    let whole = read.offset == 0 && next.is_none();
    let place = json!({"offset": read.offset, "end": end, "total_bytes": total, "next": next});
    let mut meta = MetaObject::new();
    meta.insert(PLACE.to_owned(), place);
    // A part of a JSON text is none.
    Ok(ResourceContents::text(text, uri)
        .with_mime_type(if whole { JSON } else { "text/plain" })
        .with_meta(meta))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rest-api's answer, as its contract has it.
    fn read(whole: &str, offset: usize, limit: usize) -> ReadResultResponse {
        let begin = whole.floor_char_boundary(offset);
        let end = whole.floor_char_boundary((begin + limit).min(whole.len()));
        ReadResultResponse {
            text: whole[begin..end].to_owned(),
            offset: begin as u64,
            total_bytes: whole.len() as u64,
        }
    }

    fn text(contents: ResourceContents) -> (String, Value) {
        let ResourceContents::TextResourceContents { text, meta, .. } = contents else {
            panic!("text")
        };
        (text, meta.expect("meta")[PLACE].clone())
    }

    #[test]
    fn pages_make_the_whole_by_their_links_and_at_multiples_of_their_size() {
        let whole = json!(["é", "日本語", "🦀🦀🦀", "plain", 1.5])
            .to_string()
            .repeat(7);
        let id = ExecutionId::new();
        for size in [4, 5, 16, 17, 1000] {
            let page = |offset: usize| {
                let contents = page(
                    &read(&whole, offset, size + CHARACTER),
                    id,
                    offset as u64,
                    size,
                    "u",
                );
                text(contents.expect("a page"))
            };
            let steps: String = (0..whole.len())
                .step_by(size)
                .map(|offset| page(offset).0)
                .collect();
            assert_eq!(steps, whole, "{size}");

            let (mut linked, mut next) = (String::new(), Some(0));
            while let Some(offset) = next {
                let (text, place) = page(offset);
                assert!(text.len() <= size + CHARACTER);
                linked.push_str(&text);
                next = place["next"].as_str().map(|uri| match uri.parse() {
                    Ok(Uri::Result(of, offset)) if of == id => usize::try_from(offset).expect("small"),
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!(linked, whole, "{size}");
        }
    }

    #[test]
    fn a_page_beyond_the_end_is_told_and_no_result_is_not_found() {
        let id = ExecutionId::new();
        let beyond = page(&read("[1]", 3, 9), id, 3, 6, "u").expect_err("beyond");
        assert!(beyond.code() == "invalid_arguments" && beyond.to_string().contains("3 bytes"));
        let none = page(&ReadResultResponse::default(), id, 0, 6, "u").expect_err("none");
        assert_eq!(none.code(), "not_found");
    }

    #[test]
    fn a_state_says_how_to_go_on_and_where_the_result_is() {
        let id = ExecutionId::new();
        let execution = |status: ExecutionStatus| Execution {
            id: id.to_string(),
            status: status.as_str().into(),
            digest: "d1".into(),
            result_bytes: 12,
            arguments_json: r#"{"city":"Oslo"}"#.into(),
            ..Default::default()
        };
        for status in ExecutionStatus::ALL.iter().copied() {
            let state = state(&execution(status), id, &Results::default()).expect("a state");
            assert_eq!(state["arguments"], json!({"city": "Oslo"}));
            assert_eq!(state["result"]["uri"], json!(format!("execution://{id}/result")));
            let next = state["next"].as_str().expect("a text");
            assert_eq!(
                next.contains("/replay"),
                status.is_final() && status != ExecutionStatus::Succeeded
            );
            assert_eq!(
                state.get("digest").is_some(),
                status == ExecutionStatus::AwaitingApproval
            );
        }
    }
}
