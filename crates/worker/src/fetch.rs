//! Documents that rest-api needs from the outside: fetched here, behind the guard, since rest-api itself goes nowhere.

use crate::{outcome::Failure, runner::Runner};
use bytes::Bytes;
use futures_util::Stream;
use proto::v1::FetchRequest;
use std::time::Instant;

/// The most bytes in one part.
const PART: usize = 64 * 1024;

/// A document in parts of at most [`PART`] bytes. It takes one of the tenant's slots and the time that a tool may take at
/// most; no more of it than a part is held here.
pub(crate) fn parts(
    runner: Runner,
    request: FetchRequest,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    // The stream is polled after the call's own layers have returned.
    let context = telemetry::context::current();
    async_stream::try_stream! {
        let mut account = Account { started: Instant::now(), bytes: 0, code: Some("cancelled"), context: context.clone() };
        let deadline = tokio::time::Instant::now() + runner.max_time();
        let begun = async {
            let slot = runner.slot(&request.tenant, || ()).await?;
            Ok((slot, runner.document(&request.url, request.max_bytes).await?))
        };
        let begun = telemetry::span::in_context(runner.bounded(deadline, begun), context);
        let (_slot, mut document) = account.note(begun.await)?;
        while let Some(mut chunk) = account.note(runner.bounded(deadline, document.next()).await)? {
            account.bytes += chunk.len();
            while chunk.len() > PART {
                yield chunk.split_to(PART);
            }
            yield chunk;
        }
        account.code = None;
    }
}

/// Logs how it ended, also when nobody waits any longer. The address is not told: it may hold a secret.
struct Account {
    started: Instant,
    bytes: usize,
    code: Option<&'static str>,
    context: telemetry::context::Context,
}

impl Account {
    fn note<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.inspect_err(|failure| self.code = Some(failure.code.as_str()))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _request = self.context.clone().attach();
        tracing::info!(
            bytes = self.bytes,
            code = self.code,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "document fetched"
        );
    }
}
