//! Contexts. An expired one is invisible from that moment on; `expire` only clears it away.

use super::{
    SqlStore, Statement, check_version, commit, dialect,
    dialect::{Db, skip_locked},
    items,
};
use crate::clock::now;
use crate::store::{
    Append, Appended, Idempotency, Made, Result, StoreError,
    cursor::{Listing, NEWEST, page},
    rows::{ContextRow, json, micros, read_all, read_found},
};
use domain::{
    ContextId, TenantId, Time,
    context::{Context, ContextFilter, ContextItem, ContextPatch, ContextStatus, NewContext, NewItem},
    page::{Page, PageRequest},
};
use sqlx::{Database, Transaction};

macro_rules! columns {
    () => {
        "id, tenant_id, name, kind, agent_id, session_id, metadata, status, version, item_count, size_bytes, \
         created_at, updated_at, expires_at"
    };
}

const INSERT: Statement = Statement::new(
    "contexts.insert",
    concat!(
        "INSERT INTO contexts (",
        columns!(),
        ")
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
    ),
);
const GET: Statement = Statement::new(
    "contexts.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM contexts
         WHERE id = $1 AND tenant_id = $2 AND (expires_at IS NULL OR expires_at > $3)"
    ),
);
const UPDATE: Statement = Statement::new(
    "contexts.update",
    concat!(
        "UPDATE contexts SET name = COALESCE($4, name), status = COALESCE($5, status),
         metadata = COALESCE($6, metadata), expires_at = CASE WHEN $7 THEN $8 ELSE expires_at END,
         version = version + 1, updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND (expires_at IS NULL OR expires_at > $3) RETURNING ",
        columns!()
    ),
);
const GROW: Statement = Statement::new(
    "contexts.grow",
    concat!(
        "UPDATE contexts SET item_count = item_count + $4, size_bytes = size_bytes + $5, version = version + 1,
         updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND (expires_at IS NULL OR expires_at > $3) RETURNING ", columns!()
    ),
);
const DELETE: Statement = Statement::new(
    "contexts.delete",
    "DELETE FROM contexts WHERE id = $1 AND tenant_id = $2 AND (expires_at IS NULL OR expires_at > $3)
     AND ($4 IS NULL OR version = $4)",
);
const EXPIRE: Statement = Statement::new(
    "contexts.expire",
    concat!(
        "WITH expired AS MATERIALIZED
         (SELECT id FROM contexts WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
        skip_locked!(),
        ")
         DELETE FROM contexts WHERE id IN (SELECT id FROM expired)"
    ),
);
const COUNT_ACTIVE: Statement = Statement::new(
    "contexts.count_active",
    "SELECT t.name, COUNT(c.status) FROM tenants t LEFT JOIN contexts c ON c.tenant_id = t.id
     AND c.status = 'active' AND (c.expires_at IS NULL OR c.expires_at > $1)
     GROUP BY t.name ORDER BY t.name",
);

/// The listing, with the condition that names an index of its own.
macro_rules! list {
    ($agent:literal, $session:literal) => {
        Statement::new(
            "contexts.list",
            concat!(
                "SELECT ",
                columns!(),
                " FROM contexts
                 WHERE tenant_id = $1 AND (updated_at, id) < ($2, $3) AND updated_at >= $4
                 AND ",
                $agent,
                " AND ",
                $session,
                "
                 AND ($7 IS NULL OR kind = $7) AND ($8 IS NULL OR status = $8)
                 AND (expires_at IS NULL OR expires_at > $9)
                 ORDER BY updated_at DESC, id DESC LIMIT $10"
            ),
        )
    };
}
const LIST: Statement = list!("($5 IS NULL OR agent_id = $5)", "($6 IS NULL OR session_id = $6)");
const LIST_BY_AGENT: Statement = list!("agent_id = $5", "($6 IS NULL OR session_id = $6)");
const LIST_BY_SESSION: Statement = list!("($5 IS NULL OR agent_id = $5)", "session_id = $6");

const CLAIM: Statement = Statement::new(
    "idempotency.claim",
    "INSERT INTO idempotency
     (tenant_id, route, key, fingerprint, context_id, first_sequence, last_sequence, expires_at)
     VALUES ($1, $2, $3, $4, $5, 0, 0, $6)
     ON CONFLICT (tenant_id, route, key) DO UPDATE SET fingerprint = excluded.fingerprint,
     context_id = excluded.context_id, first_sequence = 0, last_sequence = 0, expires_at = excluded.expires_at
     WHERE idempotency.expires_at <= $7",
);
const CLAIMED: Statement = Statement::new(
    "idempotency.get",
    "SELECT fingerprint, context_id, first_sequence, last_sequence FROM idempotency
     WHERE tenant_id = $1 AND route = $2 AND key = $3",
);
const SETTLE: Statement = Statement::new(
    "idempotency.settle",
    "UPDATE idempotency SET first_sequence = $4, last_sequence = $5 WHERE tenant_id = $1 AND route = $2 AND key = $3",
);
const PURGE: Statement = Statement::new(
    "idempotency.purge",
    concat!(
        "WITH expired AS MATERIALIZED (SELECT tenant_id, route, key FROM idempotency WHERE expires_at <= $1
         ORDER BY expires_at LIMIT $2", skip_locked!(), ")
         DELETE FROM idempotency WHERE (tenant_id, route, key) IN (SELECT tenant_id, route, key FROM expired)"
    ),
);

/// What an idempotency key is remembered for.
#[derive(Clone, Copy)]
enum Route {
    Create,
    Append,
}

impl Route {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "contexts.create",
            Self::Append => "items.append",
        }
    }
}

/// What an earlier call with the same idempotency key made.
struct Earlier {
    context: ContextId,
    first: i64,
    last: i64,
}

type InTransaction<'a> = &'a mut Transaction<'static, dialect::Db>;

pub(super) async fn create(
    store: &SqlStore,
    tenant: TenantId,
    new: &NewContext,
    items: &[NewItem],
    idempotency: Option<&Idempotency>,
) -> Result<Made<Context>> {
    let context = first_version(tenant, new, items);
    let mut tx = store.begin().await?;
    if let Some(idempotency) = idempotency
        && let Some(earlier) = claim(&mut tx, tenant, Route::Create, context.id, idempotency).await?
    {
        return get_on(&mut tx, tenant, earlier.context).await.map(Made::Before);
    }
    insert(&mut tx, &context, items).await?;
    commit(tx).await?;
    Ok(Made::New(context))
}

/// Inserts a context with its first items.
pub(super) async fn insert(tx: InTransaction<'_>, context: &Context, items: &[NewItem]) -> Result<()> {
    let tenant = context.tenant_id;
    let call = INSERT
        .bind(context.id.0)
        .bind(tenant.0)
        .bind(context.name.clone())
        .bind(context.kind.clone());
    let call = call
        .bind(context.agent_id.clone())
        .bind(context.session_id.clone())
        .bind(json(&context.metadata)?);
    let call = call
        .bind(context.status.as_str())
        .bind(context.version)
        .bind(context.item_count);
    let call = call
        .bind(context.size_bytes)
        .bind(micros(context.created_at))
        .bind(micros(context.updated_at));
    call.bind(context.expires_at.map(micros))
        .execute(&mut **tx)
        .await?;
    dialect::index(tx, tenant, context.id, &[(0, &context.name)]).await?;
    items::insert(tx, tenant, context.id, 1, items, context.created_at).await?;
    Ok(())
}

/// A context as it is made now.
pub(super) fn first_version(tenant: TenantId, new: &NewContext, items: &[NewItem]) -> Context {
    let now = now();
    let new = new.clone();
    Context {
        id: ContextId::new(),
        tenant_id: tenant,
        name: new.name,
        kind: new.kind,
        agent_id: new.agent_id,
        session_id: new.session_id,
        metadata: new.metadata,
        status: ContextStatus::Active,
        version: 1,
        item_count: items.len() as i64,
        size_bytes: size(items),
        created_at: now,
        updated_at: now,
        expires_at: new
            .expires_at
            .and_then(|t| Time::from_timestamp_micros(micros(t))),
    }
}

/// The items' content, bytes.
pub(super) fn size(items: &[NewItem]) -> i64 {
    items.iter().map(|item| item.content.len() as i64).sum()
}

pub(super) async fn get(store: &SqlStore, tenant: TenantId, id: ContextId) -> Result<Context> {
    let call = GET.bind(id.0).bind(tenant.0).bind(micros(now()));
    read_found(call.first::<ContextRow>(&store.read).await?)
}

/// As [`get`], on a connection that is held.
pub(super) async fn get_on(
    connection: &mut <Db as Database>::Connection,
    tenant: TenantId,
    id: ContextId,
) -> Result<Context> {
    let call = GET.bind(id.0).bind(tenant.0).bind(micros(now()));
    read_found(call.first::<ContextRow>(connection).await?)
}

pub(super) async fn list(
    store: &SqlStore,
    tenant: TenantId,
    filter: &ContextFilter,
    request: &PageRequest,
) -> Result<Page<Context>> {
    let (time, id) = Listing::Contexts.place(request.cursor.as_deref(), NEWEST)?;
    let statement = match filter {
        ContextFilter {
            session_id: Some(_), ..
        } => LIST_BY_SESSION,
        ContextFilter {
            agent_id: Some(_), ..
        } => LIST_BY_AGENT,
        _ => LIST,
    };
    let call = statement
        .bind(tenant.0)
        .bind(time)
        .bind(id)
        .bind(filter.updated_since.map_or(i64::MIN, micros));
    let call = call
        .bind(filter.agent_id.clone())
        .bind(filter.session_id.clone())
        .bind(filter.kind.clone());
    let call = call
        .bind(filter.status.map(ContextStatus::as_str))
        .bind(micros(now()));
    let call = call.bind(i64::from(request.limit) + 1);
    let contexts = read_all(call.all::<ContextRow>(&store.read).await?)?;
    Ok(page(contexts, request.limit, |last| {
        Listing::Contexts.after((micros(last.updated_at), last.id.0))
    }))
}

pub(super) async fn update(
    store: &SqlStore,
    tenant: TenantId,
    id: ContextId,
    patch: &ContextPatch,
    if_version: Option<i64>,
) -> Result<Context> {
    let mut tx = store.begin().await?;
    let context = patch_in(&mut tx, tenant, id, patch).await?;
    check_version(context.version, if_version)?;
    commit(tx).await?;
    Ok(context)
}

/// Changes a context, whatever version it is at.
pub(super) async fn patch_in(
    tx: InTransaction<'_>,
    tenant: TenantId,
    id: ContextId,
    patch: &ContextPatch,
) -> Result<Context> {
    let call = UPDATE
        .bind(id.0)
        .bind(tenant.0)
        .bind(micros(now()))
        .bind(patch.name.clone());
    let call = call.bind(patch.status.map(ContextStatus::as_str));
    let call = call.bind(patch.metadata.as_ref().map(json).transpose()?);
    let call = call
        .bind(patch.expires_at.is_some())
        .bind(patch.expires_at.flatten().map(micros));
    let context = read_found(call.first::<ContextRow>(&mut **tx).await?)?;
    if patch.name.is_some() {
        dialect::unindex_name(tx, id).await?;
        dialect::index(tx, tenant, id, &[(0, &context.name)]).await?;
    }
    Ok(context)
}

pub(super) async fn delete(
    store: &SqlStore,
    tenant: TenantId,
    id: ContextId,
    if_version: Option<i64>,
) -> Result<()> {
    let call = DELETE
        .bind(id.0)
        .bind(tenant.0)
        .bind(micros(now()))
        .bind(if_version);
    if call.execute(&store.write).await? > 0 {
        return Ok(());
    }
    let current = get(store, tenant, id).await?.version;
    Err(StoreError::VersionMismatch { current })
}

pub(super) async fn append(
    store: &SqlStore,
    tenant: TenantId,
    id: ContextId,
    append: Append<'_>,
) -> Result<Made<Appended>> {
    let mut tx = store.begin().await?;
    if let Some(idempotency) = append.idempotency
        && let Some(earlier) = claim(&mut tx, tenant, Route::Append, id, idempotency).await?
    {
        let context = get_on(&mut tx, tenant, id).await?;
        let items = items::between(&mut tx, id, earlier.first, earlier.last).await?;
        return Ok(Made::Before(Appended { context, items }));
    }
    let context = grow(&mut tx, tenant, id, append.items).await?;
    check_version(context.version, append.if_version)?;
    if u64::try_from(context.size_bytes).is_ok_and(|size| size > append.max_bytes) {
        return Err(StoreError::TooLarge {
            limit: append.max_bytes,
        });
    }
    let items = put(&mut tx, &context, append.items).await?;
    if let Some(idempotency) = append.idempotency {
        let call = SETTLE
            .bind(tenant.0)
            .bind(Route::Append.as_str())
            .bind(idempotency.key.clone());
        call.bind(context.item_count - append.items.len() as i64 + 1)
            .bind(context.item_count)
            .execute(&mut *tx)
            .await?;
    }
    commit(tx).await?;
    Ok(Made::New(Appended { context, items }))
}

/// Counts items that a context is to have more; [`put`] appends them. Counting first locks the row: who comes later waits,
/// then counts on from there.
pub(super) async fn grow(
    tx: InTransaction<'_>,
    tenant: TenantId,
    id: ContextId,
    items: &[NewItem],
) -> Result<Context> {
    let call = GROW.bind(id.0).bind(tenant.0).bind(micros(now()));
    let call = call.bind(items.len() as i64).bind(size(items));
    read_found(call.first::<ContextRow>(&mut **tx).await?)
}

/// Appends the items that a context has counted.
pub(super) async fn put(
    tx: InTransaction<'_>,
    context: &Context,
    items: &[NewItem],
) -> Result<Vec<ContextItem>> {
    let first = context.item_count - items.len() as i64 + 1;
    items::insert(
        tx,
        context.tenant_id,
        context.id,
        first,
        items,
        context.updated_at,
    )
    .await
}

/// Takes the idempotency key for this call; what the call before made when there was one with the same body.
async fn claim(
    tx: InTransaction<'_>,
    tenant: TenantId,
    route: Route,
    context: ContextId,
    idempotency: &Idempotency,
) -> Result<Option<Earlier>> {
    let call = CLAIM
        .bind(tenant.0)
        .bind(route.as_str())
        .bind(idempotency.key.clone());
    let call = call.bind(idempotency.fingerprint.to_vec()).bind(context.0);
    let call = call.bind(micros(idempotency.expires_at)).bind(micros(now()));
    if call.execute(&mut **tx).await? > 0 {
        return Ok(None);
    }
    let call = CLAIMED
        .bind(tenant.0)
        .bind(route.as_str())
        .bind(idempotency.key.clone());
    let claimed = call.first::<(Vec<u8>, uuid::Uuid, i64, i64)>(&mut **tx).await?;
    let (fingerprint, context, first, last) = claimed.ok_or(StoreError::NotFound)?;
    if fingerprint != idempotency.fingerprint {
        return Err(StoreError::IdempotencyMismatch);
    }
    Ok(Some(Earlier {
        context: ContextId(context),
        first,
        last,
    }))
}

pub(super) async fn expire(store: &SqlStore, now: Time, limit: u32) -> Result<u64> {
    EXPIRE
        .bind(micros(now))
        .bind(i64::from(limit))
        .execute(&store.write)
        .await
}

pub(super) async fn count_active(store: &SqlStore, now: Time) -> Result<Vec<(String, i64)>> {
    COUNT_ACTIVE.bind(micros(now)).all(&store.read).await
}

pub(super) async fn purge_idempotency(store: &SqlStore, now: Time, limit: u32) -> Result<u64> {
    PURGE
        .bind(micros(now))
        .bind(i64::from(limit))
        .execute(&store.write)
        .await
}
