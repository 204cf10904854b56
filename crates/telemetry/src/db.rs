//! Queries.

use crate::{
    metrics::own::{DB_QUERY_DURATION, DB_QUERY_ERRORS},
    recent::{self, Kind},
    span,
};
use opentelemetry::KeyValue;
use std::time::Instant;

/// Runs a query: measures it, and makes a span of it when the request in hand is sampled. `system` is `sqlite` or
/// `postgresql`, `operation` names what is done (`contexts.insert`), and `sql` is its text, which holds placeholders
/// where the values go. `failed` tells errors from answers: that a row was there already is one.
///
/// # Errors
/// Those of `query`; the ones that `failed` says are one are counted.
pub async fn query<T, E>(
    system: &'static str,
    operation: &'static str,
    sql: &'static str,
    failed: impl FnOnce(&E) -> bool,
    query: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let open = span::client(operation, || {
        vec![
            KeyValue::new("db.system.name", system),
            KeyValue::new("db.operation.name", operation),
            KeyValue::new("db.query.text", sql),
        ]
    });
    let started = Instant::now();
    let result = if open.is_recording() {
        open.run(query).await
    } else {
        query.await
    };
    let took = started.elapsed();
    DB_QUERY_DURATION.record(took, [operation]);
    // Also when it did not fail: an error count that first appears at 1 hides that error from `rate()`.
    let failed = result.as_ref().is_err_and(failed);
    DB_QUERY_ERRORS.add(u64::from(failed), [operation]);
    recent::child(Kind::Db, operation, started, took, failed);
    if failed {
        open.fail(std::any::type_name::<E>());
    }
    result
}
