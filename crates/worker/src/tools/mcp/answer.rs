//! A server's answer: JSON, or a stream of events in which the answer comes last.

use crate::{
    outcome::{Code, Failure},
    progress::Reporter,
    tools::http::{MAX_DEPTH, depth, part},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::wire::SESSION;

/// How many times one answer's size a whole stream may be: progress comes in it, too.
const STREAM_FACTOR: usize = 4;
/// The most that is read of an answer that is no success, bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// The longest progress that is passed on, characters.
const MAX_PROGRESS: usize = 200;
/// The longest error of a server that is passed on, characters.
const MAX_ERROR: usize = 1000;

/// How much is read.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// One message, bytes.
    message: usize,
    /// All of it, bytes.
    whole: usize,
}

impl Limits {
    pub(super) fn of(message: usize) -> Self {
        Self {
            message,
            whole: message.saturating_mul(STREAM_FACTOR),
        }
    }
}

/// An error of JSON-RPC.
#[derive(Debug, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    message: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The answer to the request; `None`: there is none.
    pub(super) message: Option<Result<Value, RpcError>>,
    /// The session that begins with it.
    pub(super) session: Option<HeaderValue>,
    retry_after: Option<String>,
}

impl Reply {
    fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        Self {
            status,
            message: None,
            session: headers.get(SESSION).cloned(),
            retry_after: retry_after.map(str::to_owned),
        }
    }

    /// Whether asking in another way would be answered no better.
    pub(super) fn is_refusal_for_good(&self) -> bool {
        matches!(self.status.as_u16(), 401 | 403 | 407 | 408 | 429 | 502..=504)
    }

    /// The request's result.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn into_result(self) -> Result<Value, Failure> {
        match self.message {
            Some(Ok(result)) => Ok(result),
            _ => Err(self.failure()),
        }
    }

    /// Why there is no result.
    pub(super) fn failure(&self) -> Failure {
        if let Some(Err(error)) = &self.message {
            let message = format!("the server refuses the request with the error {}", error.code);
            return Failure {
                result: Some(json!({"error": {"code": error.code, "message": error.message}})),
                ..Failure::new(Code::UpstreamError, message)
            };
        }
        if self.status.is_success() {
            return Failure::new(Code::InvalidResponse, "the server does not answer the request");
        }
        let mut result = json!({"status": self.status.as_u16()});
        if let Some(wait) = &self.retry_after {
            result["headers"] = json!({"retry-after": wait});
        }
        Failure {
            result: Some(result),
            ..Failure::new(Code::HttpStatus, format!("the server answered {}", self.status))
        }
    }
}

/// Reads the answer to the request `id`; of a notification there is none.
pub(super) async fn read(
    mut answer: reqwest::Response,
    id: Option<u64>,
    limits: &Limits,
    progress: Option<&Reporter>,
) -> Result<Reply, Failure> {
    let mut reply = Reply::new(answer.status(), answer.headers());
    let Some(id) = id else { return Ok(reply) };
    if !reply.status.is_success() {
        let text = whole(&mut answer, MAX_REFUSAL).await?;
        let said = text.and_then(|text| serde_json::from_slice(&text).ok());
        // An error about a request that could not be read has no id.
        let error = said
            .as_ref()
            .and_then(|said: &Value| said.get("error"))
            .map(rpc_error);
        reply.message = error.map(Err);
        return Ok(reply);
    }
    let found = if is_stream(answer.headers()) {
        events(&mut answer, id, limits, progress).await?
    } else {
        let text = whole(&mut answer, limits.message)
            .await?
            .ok_or_else(|| too_large(limits.message))?;
        if text.is_empty() {
            None
        } else {
            answer_in(parse(&text)?, id, None)?
        }
    };
    reply.message = found;
    Ok(reply)
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    essence.eq_ignore_ascii_case("text/event-stream")
}

/// The whole body; `None` when it is larger than `limit`.
async fn whole(answer: &mut reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part(answer).await? {
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// Reads events until one of them is the answer.
async fn events(
    answer: &mut reqwest::Response,
    id: u64,
    limits: &Limits,
    progress: Option<&Reporter>,
) -> Result<Option<Result<Value, RpcError>>, Failure> {
    let mut stream = Events::default();
    let mut seen = 0;
    while let Some(chunk) = part(answer).await? {
        seen += chunk.len();
        stream.feed(&chunk);
        while let Some(data) = stream.next() {
            if let Some(found) = answer_in(parse(data.as_bytes())?, id, progress)? {
                return Ok(Some(found));
            }
        }
        if stream.waiting() > limits.message {
            return Err(too_large(limits.message));
        }
        if seen > limits.whole {
            return Err(too_large(limits.whole));
        }
    }
    Err(Failure::new(
        Code::ConnectionLost,
        "the server's stream ended before its answer",
    ))
}

/// The answer to `id` among what was sent: a message, or a list of them as older revisions have it.
fn answer_in(
    sent: Value,
    id: u64,
    progress: Option<&Reporter>,
) -> Result<Option<Result<Value, RpcError>>, Failure> {
    let messages = match sent {
        Value::Array(messages) => messages,
        message => vec![message],
    };
    for mut message in messages {
        if message["method"].is_string() {
            told(&message, progress)?;
        } else if message["id"] == json!(id) {
            return Ok(match message.get_mut("result").map(Value::take) {
                Some(result) => Some(Ok(result)),
                None => message.get("error").map(|error| Err(rpc_error(error))),
            });
        }
    }
    Ok(None)
}

/// What the server says or asks while it works.
fn told(message: &Value, progress: Option<&Reporter>) -> Result<(), Failure> {
    match message["method"].as_str().unwrap_or_default() {
        "notifications/progress" => {
            let params = &message["params"];
            let words = params["message"].as_str().map_or_else(
                || format!("{} of {}", params["progress"], params["total"]),
                |words| words.chars().take(MAX_PROGRESS).collect(),
            );
            if let Some(progress) = progress {
                progress.report(words);
            }
            Ok(())
        }
        "ping" => Ok(()),
        // It would wait for an answer until the call's time is over.
        _ if message.get("id").is_some() => Err(Failure::new(
            Code::UpstreamError,
            "the server asks for something that only an agent or a person could answer",
        )),
        _ => Ok(()),
    }
}

fn rpc_error(error: &Value) -> RpcError {
    let message = error["message"].as_str().unwrap_or_default();
    RpcError {
        code: error["code"].as_i64().unwrap_or_default(),
        message: message.chars().take(MAX_ERROR).collect(),
    }
}

fn parse(text: &[u8]) -> Result<Value, Failure> {
    let value = serde_json::from_slice(text)
        .ok()
        .filter(|value| depth(value) <= MAX_DEPTH);
    value.ok_or_else(|| Failure::new(Code::InvalidResponse, "what the server sends is no JSON-RPC"))
}

fn too_large(limit: usize) -> Failure {
    let message = format!("the server's answer is larger than the limit of {limit} bytes");
    Failure::new(Code::ResponseTooLarge, message)
}

/// Takes a stream of events apart.
#[derive(Default)]
struct Events {
    bytes: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
    data: String,
}

impl Events {
    fn feed(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// How much is kept of an event whose end has not come.
    fn waiting(&self) -> usize {
        self.bytes.len() + self.data.len()
    }

    /// The next event's data, when all of it is there.
    fn next(&mut self) -> Option<String> {
        let mut begin = 0;
        let mut found = None;
        while let Some(length) = self.bytes[self.searched.max(begin)..]
            .iter()
            .position(|b| *b == b'\n')
        {
            let end = self.searched.max(begin) + length;
            let line = String::from_utf8_lossy(&self.bytes[begin..end]);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            begin = end + 1;
            if line.is_empty() {
                if !self.data.trim().is_empty() {
                    found = Some(std::mem::take(&mut self.data));
                    break;
                }
                self.data.clear();
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        self.bytes.drain(..begin);
        self.searched = if found.is_some() { 0 } else { self.bytes.len() };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let text =
            ": hello\r\nid: 1\r\ndata:\r\n\r\nevent: message\ndata: {\"a\":\ndata: \"ü\"}\n\ndata: 2\n\n";
        for size in [1, 2, 7, text.len()] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                events.feed(piece);
                while let Some(data) = events.next() {
                    found.push(data);
                }
            }
            assert_eq!(found, ["{\"a\":\n\"ü\"}", "2"], "in pieces of {size}");
            assert_eq!(events.waiting(), 0);
        }
    }

    #[test]
    fn the_answer_is_the_one_with_the_requests_id() {
        let other = json!({"jsonrpc": "2.0", "id": 8, "result": {}});
        let ours = json!({"jsonrpc": "2.0", "id": 7, "result": {"x": 1}});
        let found = answer_in(json!([other, ours]), 7, None).unwrap();
        assert_eq!(found, Some(Ok(json!({"x": 1}))));
        assert_eq!(answer_in(other, 7, None).unwrap(), None);
        let error = json!({"id": 7, "error": {"code": -32602, "message": "no"}});
        let Some(Err(error)) = answer_in(error, 7, None).unwrap() else {
            panic!("it is an error")
        };
        assert_eq!(error.code, -32602);
        let asks = json!({"id": 1, "method": "elicitation/create", "params": {}});
        assert_eq!(answer_in(asks, 7, None).unwrap_err().code, Code::UpstreamError);
    }
}
