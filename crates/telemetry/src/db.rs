//! Queries.

use crate::{
    metrics::own::{DB_QUERY_DURATION, DB_QUERY_ERRORS},
    span,
};
use opentelemetry::KeyValue;
use std::time::Instant;

/// Runs a query: measures it, and makes a span of it when the request in hand is sampled. `system` is `sqlite` or
/// `postgresql`, `operation` names what is done (`contexts.insert`), and `sql` is its text, which holds placeholders
/// where the values go.
///
/// # Errors
/// Those of `query`, which are counted.
pub async fn query<T, E>(
    system: &'static str,
    operation: &'static str,
    sql: &'static str,
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
    DB_QUERY_DURATION.record(started.elapsed(), [operation]);
    // Also when it did not fail: an error count that first appears at 1 hides that error from `rate()`.
    DB_QUERY_ERRORS.add(u64::from(result.is_err()), [operation]);
    if result.is_err() {
        open.fail(std::any::type_name::<E>());
    }
    result
}
