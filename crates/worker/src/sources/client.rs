//! Connections to sources, and what their failures and answers mean.

use super::{
    Space,
    room::Room,
    settings::{Source, Tls},
};
use crate::outcome::{Code, Failure};
use anyhow::Context as _;
use http::StatusCode;
use reqwest::{Certificate, Client, Identity};
use serde_json::{Value, json};
use std::{error::Error as _, path::Path, time::Duration};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the time for which Prometheus, Loki and the like keep idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that is told of what a source says about a failure, in characters.
const MAX_MESSAGE: usize = 500;
/// The room that is taken first for an answer that does not tell its length.
const FIRST: usize = 64 << 10;

/// The client for a source: its own certificates, no redirects, no proxy, no retries.
pub(super) fn build(source: &Source, tls: &Tls, user_agent: &str) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT.min(source.timeout))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none()) // credentials go where they were meant to go
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        // Whatever other crates turn on: a small answer must not become a large one here.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .tcp_keepalive(Duration::from_secs(30));
    if let Some(ca) = &tls.ca {
        let certificates = Certificate::from_pem_bundle(&read(ca)?);
        let certificates = certificates.with_context(|| format!("{} holds no certificates", ca.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "{} holds no certificates", ca.display());
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let problem = || format!("{} and {} are no identity", certificate.display(), key.display());
        builder = builder.identity(Identity::from_pem(&pem).with_context(problem)?);
    }
    builder
        .build()
        .context("cannot prepare connections (are the system's CA certificates installed?)")
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What an error of the client means. Its own text holds the URL, queries and all, and is not used.
pub(super) fn failure(name: &str, error: &reqwest::Error) -> Failure {
    let cause = if error.is_dns() {
        "its host's name does not resolve".to_owned()
    } else if let Some(tls) = find::<rustls::Error>(error) {
        format!("TLS: {tls}")
    } else if error.is_connect() && error.is_timeout() {
        "connecting takes too long".to_owned()
    } else {
        let kind = find::<std::io::Error>(error).map(std::io::Error::kind);
        let kind = kind.map_or_else(
            || "it ended early or is not HTTP".to_owned(),
            |kind| kind.to_string(),
        );
        match error.is_connect() {
            true => format!("cannot connect: {kind}"),
            false => format!("the connection was lost: {kind}"),
        }
    };
    Failure::new(
        Code::SourceUnavailable,
        format!("the source `{name}` is away: {cause}"),
    )
}

/// The first error of type `E` in the chain, also where an I/O error carries it.
fn find<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        let carried = io.and_then(std::io::Error::get_ref);
        let found = error
            .downcast_ref()
            .or_else(|| carried.and_then(|carried| carried.downcast_ref()));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// A whole body, no larger than the source's limit, with the room that it takes.
pub(super) async fn body(
    name: &str,
    source: &Source,
    space: &Space,
    mut answer: reqwest::Response,
) -> Result<(Vec<u8>, Room), Failure> {
    let limit = source.max_response_bytes;
    let too_large = || {
        let message = format!("the answer of the source `{name}` has more than {limit} bytes; ask for less");
        Failure::new(Code::ResponseTooLarge, message)
    };
    let length = answer.content_length();
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let first = length.map_or(FIRST, |length| usize::try_from(length).unwrap_or(limit));
    let mut room = space.take(first.min(limit)).await;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failure(name, &error))? {
        let length = bytes.len() + chunk.len();
        if length > limit {
            return Err(too_large());
        }
        if length > room.bytes() {
            drop(room); // who waits holds none
            room = space.take(limit).await;
        }
        bytes.extend_from_slice(&chunk);
    }
    room.shrink(bytes.len());
    Ok((bytes, room))
}

/// The JSON that a successful answer holds; nothing is `null`.
pub(super) fn json(name: &str, bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| {
        let message = format!("what the source `{name}` answers is not JSON; is it what its kind says?");
        Failure::new(Code::SourceError, message)
    })
}

/// What another answer than a success means. The result holds its status.
pub(super) fn refusal(name: &str, status: StatusCode, body: &[u8]) -> Failure {
    let (told, kind) = told(body);
    let code = match status.as_u16() {
        _ if kind == "timeout" => Code::Timeout,
        400 | 422 => Code::InvalidArguments,
        408 | 429 | 502..=504 => Code::SourceUnavailable,
        _ => Code::SourceError,
    };
    let message = match told.is_empty() {
        true => format!("the source `{name}` answers {status}"),
        false => format!("the source `{name}` answers {status}: {told}"),
    };
    Failure {
        result: Some(json!({ "status": status.as_u16() })),
        ..Failure::new(code, message)
    }
}

/// What a source says about a failure, cut; and Prometheus' word for the kind of it.
fn told(body: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
    let told = match &parsed {
        Value::String(text) => text.clone(),
        Value::Null => text.into_owned(),
        object => {
            let first = ["/error", "/message", "/errors/0/msg", "/msg"]
                .iter()
                .find_map(|at| object.pointer(at)?.as_str());
            first.unwrap_or_default().to_owned()
        }
    };
    let plain = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let kind = parsed["errorType"].as_str().unwrap_or_default().to_owned();
    // A page of HTML comes from something in between and tells nothing.
    let plain = if plain.starts_with('<') {
        String::new()
    } else {
        plain
    };
    (crate::tools::observe::answer::cut(&plain, MAX_MESSAGE), kind)
}
