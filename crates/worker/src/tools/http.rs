//! HTTP tools: one HTTP API that a tenant has registered. And documents that are fetched on the same ways.

mod connect;
mod request;
mod response;

use super::{Call, Departed, ToolKind};
use crate::{
    guard::Guard,
    outcome::{Code, Failure},
    progress::Reporter,
    settings::Outbound,
};
use async_trait::async_trait;
use connect::Clients;
pub(super) use request::{Hop, credential};
pub(super) use response::{MAX_DEPTH, depth, document_too_large, part};
use serde_json::Value;

/// Calls registered HTTP APIs.
pub(super) struct HttpTool {
    clients: Clients,
    guard: Guard,
    max_response_bytes: usize,
    max_redirects: u32,
}

impl HttpTool {
    pub(super) fn new(settings: &Outbound) -> anyhow::Result<Self> {
        let guard = Guard::new(&settings.allow_private);
        Ok(Self {
            clients: Clients::new(settings, &guard)?,
            guard,
            max_response_bytes: settings.max_response_bytes,
            max_redirects: settings.max_redirects,
        })
    }

    /// Asks for a document: its answer, from which nothing of the body has been read yet. `limit` in bytes.
    ///
    /// # Errors
    /// [`Failure`]; also when the answer is not 2xx, or says that it is larger than the limit.
    pub(super) async fn document(&self, url: &str, limit: u64) -> Result<reqwest::Response, Failure> {
        let (first, departed) = (Hop::document(url)?, Departed::default());
        let answer = self.exchange(first, &departed, true, |_| ()).await?;
        if !answer.status().is_success() {
            let message = format!("the endpoint answered {}", answer.status());
            return Err(Failure::new(Code::HttpStatus, message));
        }
        match answer.content_length() {
            Some(length) if length > limit => Err(document_too_large(limit)),
            _ => Ok(answer),
        }
    }

    /// Follows redirects to the first answer that is none.
    pub(super) async fn exchange(
        &self,
        mut hop: Hop,
        departed: &Departed,
        runs_twice: bool,
        redirected: impl Fn(http::StatusCode) + Send,
    ) -> Result<reqwest::Response, Failure> {
        for _ in 0..=self.max_redirects {
            let answer = self.send(&hop, departed, runs_twice).await?;
            let Some(next) = hop.redirected(answer.status(), answer.headers())? else {
                return Ok(answer);
            };
            redirected(answer.status());
            hop = next;
        }
        let message = format!("the endpoint redirects more than {} times", self.max_redirects);
        Err(Failure::new(Code::TooManyRedirects, message))
    }

    /// One exchange, up to the answer's headers.
    async fn send(
        &self,
        hop: &Hop,
        departed: &Departed,
        runs_twice: bool,
    ) -> Result<reqwest::Response, Failure> {
        let refused =
            |refused: crate::guard::Refused| Failure::new(Code::AddressNotAllowed, refused.to_string());
        self.guard.check_url(&hop.url).map_err(refused)?;
        let mut request = hop.request();
        let outgoing = telemetry::client::start(&hop.method, &hop.span_url, request.headers_mut());
        let exchange = outgoing
            .span()
            .run(self.clients.client(runs_twice).execute(request));
        let answer = connect::watch(departed, runs_twice, exchange).await;
        let answer = answer.map_err(|error| connect::failure(&error));
        outgoing.finish(
            answer
                .as_ref()
                .map(|a| a.status().as_u16())
                .map_err(|failure| failure.code.as_str()),
        );
        answer
    }
}

#[async_trait]
impl ToolKind for HttpTool {
    async fn run(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure> {
        let first = Hop::first(call)?;
        progress.report("calling the endpoint");
        let redirected = |status| progress.report(format!("redirected by {status}"));
        let answer = self
            .exchange(first, &call.departed, call.tool.runs_twice(), redirected)
            .await?;
        progress.report(format!("the endpoint answers {}", answer.status()));
        response::read(answer, self.max_response_bytes, progress).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tools::Departed;
    use domain::{ExecutionId, tool::ToolSpec};

    /// A tool that may not run twice, unless a test makes it one that may.
    pub(in crate::tools) fn tool(method: &str, url: &str) -> ToolSpec {
        ToolSpec {
            name: "probe".into(),
            description: "A test's tool".into(),
            method: method.parse().unwrap(),
            url: url.into(),
            headers: Default::default(),
            input_schema: Default::default(),
            timeout_ms: 2_000,
            read_only: false,
            idempotent: false,
            destructive: false,
            options: Default::default(),
        }
    }

    pub(in crate::tools) fn call(tool: ToolSpec, arguments: Value) -> Call {
        let Value::Object(arguments) = arguments else {
            panic!("arguments are an object")
        };
        Call {
            execution_id: ExecutionId::new(),
            tenant: "acme".into(),
            tool,
            arguments,
            credentials: None,
            departed: Departed::default(),
            attempt: None,
            built_in: false,
            caller: Default::default(),
        }
    }
}
