//! HTTP requests to the outside, whatever client makes them.

use crate::{
    metrics::own::{HTTP_CLIENT_REQUEST_DURATION, HTTP_CLIENT_REQUESTS},
    propagate,
    recent::{self, Kind},
    span::{self, Open},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use opentelemetry::KeyValue;
use std::time::Instant;

/// Starts a request: opens its span (when the request in hand is sampled) and writes the trace context and the request
/// id into its headers. `url` comes without user and query, which may hold secrets.
#[must_use = "dropped, the request counts as cancelled"]
pub fn start(method: &Method, url: &str, headers: &mut HeaderMap) -> ClientCall {
    let method = known(method);
    let open = span::client(method, || attributes(method, url));
    propagate::inject_outward(open.context(), headers);
    let name = if recent::is_enabled() {
        name(method, url)
    } else {
        String::new()
    };
    ClientCall {
        open,
        method,
        name,
        started: Instant::now(),
        done: false,
    }
}

/// A request in flight. Dropped unfinished, it was cancelled.
#[derive(Debug)]
pub struct ClientCall {
    open: Open,
    method: &'static str,
    /// What its request's record calls it.
    name: String,
    started: Instant,
    done: bool,
}

impl ClientCall {
    /// Its span: run the request in it ([`Open::run`]), and set what only the caller knows.
    #[must_use]
    pub fn span(&self) -> &Open {
        &self.open
    }

    /// Notes how it ended: with a response's status, or with a class of errors (`timeout`, `connect`, never a
    /// message). A response counts when its headers are there.
    pub fn finish(mut self, outcome: Result<u16, &str>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<u16, &str>) {
        self.done = true;
        let took = self.started.elapsed();
        let _call = self.open.context().clone().attach();
        let code = outcome.ok().and_then(|code| StatusCode::from_u16(code).ok());
        let labels = [self.method, code.as_ref().map_or("error", StatusCode::as_str)];
        HTTP_CLIENT_REQUESTS.inc(labels);
        HTTP_CLIENT_REQUEST_DURATION.record(took, labels);
        let failed = outcome.is_ok_and(|code| code >= 400) || outcome.is_err();
        let name = std::mem::take(&mut self.name);
        recent::child(Kind::Http, name, self.started, took, failed);
        match outcome {
            Ok(code) => {
                self.open.set("http.response.status_code", i64::from(code));
                if code >= 400 {
                    self.open.fail(code.to_string());
                }
            }
            Err(class) => self.open.fail(class.to_owned()),
        }
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        if !self.done {
            self.end(Err("cancelled"));
        }
    }
}

fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("other")
}

/// Method, server and path: as much of the URL as the span has.
fn name(method: &str, url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else {
        return method.to_owned();
    };
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{method} {}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

fn attributes(method: &'static str, url: &str) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("http.request.method", method)];
    let Ok(uri) = url.parse::<Uri>() else {
        return attributes;
    };
    if let Some(host) = uri.host() {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
    }
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    });
    attributes.push(KeyValue::new("server.port", i64::from(port)));
    // Rebuilt from its parts, so that a user or a query passed in by mistake doesn't end up in a trace.
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    attributes.push(KeyValue::new(
        "url.full",
        format!("{scheme}://{host}:{port}{}", uri.path()),
    ));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_stay_out_of_the_span() {
        let attributes = attributes("GET", "https://user:pass@api.example/v1/items?token=s3cret");
        let text = format!("{attributes:?}");
        assert!(text.contains("https://api.example:443/v1/items"), "{text}");
        assert!(!text.contains("pass") && !text.contains("s3cret"), "{text}");
        let name = name("GET", "https://user:pass@api.example:8443/v1/items?token=s3cret");
        assert_eq!(name, "GET api.example:8443/v1/items");
    }
}
