//! How much there is to do.

use super::super::{SqlStore, Statement};
use super::open;
use crate::store::{
    QueueState, Result,
    rows::{from_word, micros, optional_time},
};
use domain::Time;

const COUNT: Statement = Statement::new(
    "executions.count",
    concat!(
        "SELECT t.name, c.status, c.n
         FROM (SELECT tenant_id, status, COUNT(*) AS n FROM executions WHERE ",
        open!(),
        " GROUP BY tenant_id, status) c JOIN tenants t ON t.id = c.tenant_id ORDER BY t.name, c.status"
    ),
);
const OLDEST: Statement = Statement::new(
    "executions.oldest",
    "SELECT (SELECT MIN(run_at) FROM executions WHERE status = 'queued' AND ready = TRUE),
     (SELECT MIN(run_at) FROM executions WHERE status = 'queued' AND ready = FALSE AND run_at <= $1)",
);

pub(super) async fn state(store: &SqlStore, now: Time) -> Result<QueueState> {
    let rows = COUNT.call().all::<(String, String, i64)>(&store.read).await?;
    let read = |(tenant, status, n): (String, String, i64)| Ok((tenant, from_word(&status)?, n));
    let by_status = rows.into_iter().map(read).collect::<Result<_>>()?;
    let call = OLDEST.bind(micros(now));
    let oldest = call.first::<(Option<i64>, Option<i64>)>(&store.read).await?;
    let (ready, waiting) = oldest.unwrap_or_default();
    let oldest = ready.into_iter().chain(waiting).min();
    Ok(QueueState {
        by_status,
        oldest_queued: optional_time(oldest)?,
    })
}
