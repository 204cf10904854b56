//! Leasing: which executions are next, and all that running them needs.
//!
//! Never looks at the whole queue: it walks from tenant to tenant with something due, in the order of their
//! identifiers, from the one after that which was served last, until as many have room as executions are asked for.
//! Of each it takes the best by an index.

use super::super::{
    SqlStore, Statement,
    dialect::{chosen, picks, skip_locked},
    executions::columns,
    tools,
};
use super::open;
use crate::clock::now;
use crate::store::{
    End, LeaseAsk, Leased, MAX_LEASED, QueueStore as _, Result, StoreError,
    rows::{LeasedRow, Row as _, micros},
};
use domain::{ExecutionId, ToolId};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// How many retries whose time has come are let into the queue at once.
const PROMOTED: i64 = 1000;
/// When another replica, of another version, may try what this one does not understand.
const FOR_ANOTHER: Duration = Duration::from_secs(5);

const PROMOTE: Statement = Statement::new(
    "executions.promote",
    concat!(
        "WITH due AS MATERIALIZED (SELECT id FROM executions
         WHERE status = 'queued' AND ready = FALSE AND run_at <= $1 ORDER BY run_at LIMIT $2",
        skip_locked!(),
        ")
         UPDATE executions SET ready = TRUE WHERE id IN (SELECT id FROM due) AND status = 'queued'"
    ),
);

/// What [`LeasedRow`] is read from. Whether the key is accepted is for the reader to say: by the time that it reads, the
/// time at which the lease was asked for may be long past.
macro_rules! leased_columns {
    () => {
        concat!(
            columns!(),
            ", fencing_token, traceparent, max_attempts, idempotent,
             (SELECT t.name FROM tenants t WHERE t.id = executions.tenant_id) AS tenant,
             (SELECT CASE WHEN t.status <> 'active' THEN 0
                 WHEN k.revoked_at IS NOT NULL AND (k.expires_at IS NULL OR k.revoked_at < k.expires_at) THEN k.revoked_at
                 ELSE COALESCE(k.expires_at, 9223372036854775807) END
                 FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
                 WHERE k.id = executions.key_id AND k.tenant_id = executions.tenant_id) AS key_accepted_until,
             (SELECT k.name FROM api_keys k
                 WHERE k.id = executions.key_id AND k.tenant_id = executions.tenant_id) AS key_name,
             (SELECT k.scopes FROM api_keys k
                 WHERE k.id = executions.key_id AND k.tenant_id = executions.tenant_id) AS key_scopes"
        )
    };
}

/// How much of a tenant's is running, counted up to the most that may.
macro_rules! running {
    ($tenant:literal) => {
        concat!(
            "(SELECT COUNT(*) FROM (SELECT 1 FROM executions r WHERE r.tenant_id = ",
            $tenant,
            " AND r.",
            open!(),
            " AND r.status = 'running' LIMIT $3) AS counted)"
        )
    };
}

/// Whether the tool, as it is now, may run twice: it is what runs, and may have been another when it was asked for. Of what
/// is not registered, the product's own tools among it, nothing else is known than then.
macro_rules! runs_twice {
    () => {
        "NOT EXISTS (SELECT 1 FROM tools t WHERE t.id = executions.tool_id AND NOT (t.read_only OR t.idempotent))"
    };
}

/// The first tenant with something due, among those that meet a condition. Ordered as the index that leaves out what
/// waits for its time.
macro_rules! first_tenant {
    ($condition:literal) => {
        concat!(
            "(SELECT e.tenant_id FROM executions e WHERE e.status = 'queued' AND e.ready AND ",
            $condition,
            " ORDER BY e.tenant_id, e.priority DESC LIMIT 1)"
        )
    };
}

/// $1 the tenant served last, $2 how many at most, $3 running of a tenant at most, $4 now, $5 owner, $6 expiry.
const LEASE: Statement = Statement::new(
    "executions.lease",
    concat!(
        "WITH RECURSIVE walk (tenant_id, step, found) AS (
             SELECT $1, 0, 0
             UNION ALL
             SELECT CASE WHEN w.step > 0 AND w.tenant_id <= $1
                 THEN ", first_tenant!("e.tenant_id > w.tenant_id AND e.tenant_id <= $1"), "
                 ELSE COALESCE(", first_tenant!("e.tenant_id > w.tenant_id"), ",
                     ", first_tenant!("e.tenant_id <= $1"), ") END,
             w.step + 1,
             w.found + CASE WHEN w.step > 0 AND ", running!("w.tenant_id"), " < $3 THEN 1 ELSE 0 END
             FROM walk w WHERE w.tenant_id IS NOT NULL AND w.found < $2
         ),
         turns AS MATERIALIZED (
             SELECT tenant_id, step, $3 - ", running!("walk.tenant_id"), " AS room
             FROM walk WHERE step > 0 AND tenant_id IS NOT NULL
         ),
         picks AS MATERIALIZED (", picks!(), "),
         chosen AS MATERIALIZED (", chosen!(), ")
         UPDATE executions SET status = 'running', attempts = attempts + 1, lease_owner = $5, lease_expires_at = $6,
         leased_at = $4, fencing_token = fencing_token + 1, started_at = COALESCE(started_at, $4), error_code = NULL,
         error_message = NULL, updated_at = $4, idempotent = executions.idempotent AND ", runs_twice!(), "
         WHERE id IN (SELECT id FROM chosen) AND status = 'queued' RETURNING ", leased_columns!()
    ),
);
const HELD: Statement = Statement::new(
    "executions.held",
    concat!(
        "SELECT ",
        leased_columns!(),
        " FROM executions WHERE id = $1 AND fencing_token = $2 AND status = 'running'"
    ),
);

pub(super) async fn lease(store: &SqlStore, ask: &LeaseAsk<'_>) -> Result<Vec<Leased>> {
    if ask.limit == 0 || ask.per_tenant == 0 {
        return Ok(Vec::new());
    }
    let mut turn = store.turn.lock().await;
    PROMOTE
        .bind(micros(ask.now))
        .bind(PROMOTED)
        .execute(&store.write)
        .await?;
    let call = LEASE
        .bind(*turn)
        .bind(i64::from(ask.limit.min(MAX_LEASED)))
        .bind(i64::from(ask.per_tenant))
        .bind(micros(ask.now));
    let call = call.bind(ask.owner.to_owned()).bind(micros(ask.expires_at));
    let rows = call.all::<LeasedRow>(&store.write).await?;
    *turn = served_last(*turn, rows.iter().map(LeasedRow::tenant_id));
    drop(turn);
    complete(store, rows).await
}

/// The tenant of the last turn: the last one, in the order of turns, among those that were given most.
fn served_last(before: Uuid, tenants: impl Iterator<Item = Uuid>) -> Uuid {
    // Those up to the one served last come after all others.
    let mut given = BTreeMap::<_, u32>::new();
    for tenant in tenants {
        *given.entry((tenant <= before, tenant)).or_default() += 1;
    }
    // Of equal ones, `max_by_key` answers the last.
    given
        .into_iter()
        .max_by_key(|(_, n)| *n)
        .map_or(before, |((_, tenant), _)| tenant)
}

/// What is held under this token.
pub(super) async fn held(store: &SqlStore, id: ExecutionId, token: i64) -> Result<Leased> {
    let call = HELD.bind(id.0).bind(token);
    let row = call.first::<LeasedRow>(&store.read).await?;
    let mut leased = row.ok_or(StoreError::LeaseLost)?.read()?;
    let mut tools = tools::by_ids(store, leased.execution.tool_id.as_slice()).await?;
    if let Some(found) = leased.execution.tool_id.and_then(|id| tools.remove(&id)) {
        let (tool, credentials) = found?;
        (leased.tool, leased.credentials) = (Some(tool), credentials);
    }
    Ok(leased)
}

/// Adds the tools. What cannot be handed out is handed back: nobody would run it before its lease is over.
async fn complete(store: &SqlStore, rows: Vec<LeasedRow>) -> Result<Vec<Leased>> {
    let ids: BTreeSet<ToolId> = rows.iter().filter_map(LeasedRow::tool_id).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let tools = match tools::by_ids(store, &ids).await {
        Ok(tools) => tools,
        Err(error) => {
            for row in &rows {
                hand_back(store, row.held(), Duration::ZERO).await;
            }
            return Err(error);
        }
    };
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let (held, tool) = (row.held(), row.tool_id().and_then(|id| tools.get(&id)));
        match with_tool(row, tool) {
            Ok(leased) => all.push(leased),
            Err(error) => {
                tracing::error!(execution = %held.0, %error, "a leased execution cannot be read");
                hand_back(store, held, FOR_ANOTHER).await;
            }
        }
    }
    // The best first: the database answers in an order of its own.
    all.sort_by_key(|leased| {
        let execution = &leased.execution;
        (Reverse(execution.priority), execution.created_at, execution.id)
    });
    Ok(all)
}

fn with_tool(row: LeasedRow, tool: Option<&tools::Found>) -> std::result::Result<Leased, String> {
    let leased = row.read().map_err(|e| e.to_string())?;
    let (tool, credentials) = match tool {
        None => (None, None),
        Some(Ok((tool, credentials))) => (Some(tool.clone()), credentials.clone()),
        Some(Err(error)) => return Err(error.to_string()),
    };
    if leased.idempotent && tool.as_ref().is_some_and(|tool| !tool.spec.runs_twice()) {
        return Err("its tool changed while it was leased".to_owned());
    }
    Ok(Leased {
        tool,
        credentials,
        ..leased
    })
}

async fn hand_back(store: &SqlStore, (id, token): (ExecutionId, i64), wait: Duration) {
    let run_at = now() + wait;
    if let Err(error) = store.end_attempt(id, token, End::HandBack { run_at }).await {
        tracing::warn!(execution = %id, %error, "a leased execution cannot be handed back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_turn_begins_after_the_last_one() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let last = |before, given: &[Uuid]| served_last(before, given.iter().copied());
        assert_eq!(last(Uuid::nil(), &[]), Uuid::nil());
        assert_eq!(last(Uuid::nil(), &[a, b, c]), c);
        assert_eq!(last(Uuid::nil(), &[a, a, b, c]), a, "a had the fourth turn");
        assert_eq!(last(b, &[c, a]), a, "the walk began at c");
        assert_eq!(last(b, &[b]), b);
    }
}
