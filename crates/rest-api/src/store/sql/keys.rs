//! API keys.

use super::{SqlStore, Statement, dialect::ids};
use crate::store::{
    KeyOwner, Result,
    cursor::{Listing, NEWEST, page},
    rows::{KeyOwnerRow, KeyRow, Row as _, json, micros, read_all, read_found},
};
use domain::{
    ApiKeyId, TenantId, Time,
    api_key::{ApiKey, SecretHash},
    page::{Page, PageRequest},
};

macro_rules! columns {
    () => {
        "k.id, k.tenant_id, k.name, k.prefix, k.scopes, k.tools, k.created_at, k.last_used_at, k.expires_at, k.revoked_at"
    };
}

const INSERT: Statement = Statement::new(
    "api_keys.insert",
    "INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes, tools, created_at, last_used_at, expires_at,
     revoked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
const OWNER: Statement = Statement::new(
    "api_keys.owner",
    concat!(
        "SELECT ",
        columns!(),
        ", t.name AS tenant, t.status AS tenant_status
         FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.hash = $1"
    ),
);
const OWNER_BY_ID: Statement = Statement::new(
    "api_keys.owner_by_id",
    concat!(
        "SELECT ",
        columns!(),
        ", t.name AS tenant, t.status AS tenant_status
         FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.id = $1 AND k.tenant_id = $2"
    ),
);
const TOUCH: Statement = Statement::new(
    "api_keys.touch",
    "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
);
const LIST: Statement = Statement::new(
    "api_keys.list",
    concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys k
         WHERE k.tenant_id = $1 AND (k.created_at, k.id) < ($2, $3)
         ORDER BY k.created_at DESC, k.id DESC LIMIT $4"
    ),
);
const GET: Statement = Statement::new(
    "api_keys.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys k WHERE k.id = $1 AND k.tenant_id = $2"
    ),
);
const GET_SOME: Statement = Statement::new(
    "api_keys.get_some",
    concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys k WHERE k.tenant_id = $1 AND k.id IN ",
        ids!("$2")
    ),
);
const REVOKE: Statement = Statement::new(
    "api_keys.revoke",
    "UPDATE api_keys
     SET revoked_at = CASE WHEN revoked_at IS NULL OR revoked_at > $3 THEN $3 ELSE revoked_at END
     WHERE id = $1 AND tenant_id = $2
     RETURNING id, tenant_id, name, prefix, scopes, tools, created_at, last_used_at, expires_at, revoked_at",
);
const COUNT_OF_TENANT: Statement = Statement::new(
    "api_keys.count_of_tenant",
    "SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1
     AND (expires_at IS NULL OR expires_at > $2) AND (revoked_at IS NULL OR revoked_at > $2)",
);
const COUNT_ACTIVE: Statement = Statement::new(
    "api_keys.count_active",
    "SELECT t.name, COUNT(k.id) FROM tenants t LEFT JOIN api_keys k ON k.tenant_id = t.id
     AND (k.expires_at IS NULL OR k.expires_at > $1) AND (k.revoked_at IS NULL OR k.revoked_at > $1)
     GROUP BY t.name ORDER BY t.name",
);

pub(super) async fn create(store: &SqlStore, key: &ApiKey, hash: &SecretHash) -> Result<()> {
    let call = INSERT
        .bind(key.id.0)
        .bind(key.tenant_id.0)
        .bind(key.name.clone())
        .bind(key.prefix.clone());
    let call = call
        .bind(hash.0.to_vec())
        .bind(key.scopes.to_string())
        .bind(key.tools.rules().map(|rules| json(&rules)).transpose()?)
        .bind(micros(key.created_at));
    let call = call
        .bind(key.last_used_at.map(micros))
        .bind(key.expires_at.map(micros));
    call.bind(key.revoked_at.map(micros))
        .execute(&store.write)
        .await?;
    Ok(())
}

pub(super) async fn owner(store: &SqlStore, hash: &SecretHash) -> Result<Option<KeyOwner>> {
    let row = OWNER
        .bind(hash.0.to_vec())
        .first::<KeyOwnerRow>(&store.read)
        .await?;
    row.map(KeyOwnerRow::read).transpose()
}

pub(super) async fn owner_by_id(
    store: &SqlStore,
    tenant: TenantId,
    id: ApiKeyId,
) -> Result<Option<KeyOwner>> {
    let call = OWNER_BY_ID.bind(id.0).bind(tenant.0);
    let row = call.first::<KeyOwnerRow>(&store.read).await?;
    row.map(KeyOwnerRow::read).transpose()
}

pub(super) async fn touch(store: &SqlStore, id: ApiKeyId, at: Time) -> Result<()> {
    TOUCH.bind(id.0).bind(micros(at)).execute(&store.write).await?;
    Ok(())
}

pub(super) async fn list(store: &SqlStore, tenant: TenantId, request: &PageRequest) -> Result<Page<ApiKey>> {
    let (time, id) = Listing::Keys.place(request.cursor.as_deref(), NEWEST)?;
    let call = LIST
        .bind(tenant.0)
        .bind(time)
        .bind(id)
        .bind(i64::from(request.limit) + 1);
    let keys = read_all(call.all::<KeyRow>(&store.read).await?)?;
    Ok(page(keys, request.limit, |last| {
        Listing::Keys.after((micros(last.created_at), last.id.0))
    }))
}

pub(super) async fn get(store: &SqlStore, tenant: TenantId, id: ApiKeyId) -> Result<ApiKey> {
    read_found(GET.bind(id.0).bind(tenant.0).first::<KeyRow>(&store.read).await?)
}

pub(super) async fn get_some(store: &SqlStore, tenant: TenantId, ids: &[ApiKeyId]) -> Result<Vec<ApiKey>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = ids.iter().map(|id| id.0.simple().to_string()).collect();
    let call = GET_SOME.bind(tenant.0).bind(json(&ids)?);
    read_all(call.all::<KeyRow>(&store.read).await?)
}

pub(super) async fn revoke(store: &SqlStore, tenant: TenantId, id: ApiKeyId, at: Time) -> Result<ApiKey> {
    let call = REVOKE.bind(id.0).bind(tenant.0).bind(micros(at));
    read_found(call.first::<KeyRow>(&store.write).await?)
}

pub(super) async fn count_of_tenant(store: &SqlStore, tenant: TenantId, now: Time) -> Result<i64> {
    let call = COUNT_OF_TENANT.bind(tenant.0).bind(micros(now));
    let row = call.first::<(i64,)>(&store.read).await?;
    Ok(row.map_or(0, |(count,)| count))
}

pub(super) async fn count_active(store: &SqlStore, now: Time) -> Result<Vec<(String, i64)>> {
    COUNT_ACTIVE.bind(micros(now)).all(&store.read).await
}
