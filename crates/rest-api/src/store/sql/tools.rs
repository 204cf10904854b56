//! Tools, and the catalogue's revision that counts their changes.

use super::{SqlStore, Statement, check_version, commit, dialect, dialect::ids};
use crate::clock::now;
use crate::store::{
    CatalogueChanges, CredentialsChange, Result, SealedCredentials, StoreError,
    cursor::{Listing, page},
    rows::{Row as _, ToolRow, ToolToRunRow, json, micros, read_all, read_found},
};
use domain::{
    TenantId, ToolId, UpstreamId,
    page::{Page, PageRequest},
    tool::{Tool, ToolSpec},
};
use sqlx::Transaction;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// How long a watch that was cut off can still learn of a removal.
const REMOVALS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

macro_rules! columns {
    () => {
        "id, tenant_id, name, description, method, url, headers, input_schema, timeout_ms, read_only, idempotent, \
         destructive, options, credentials_key_id IS NOT NULL AS has_credentials, version, created_at, updated_at"
    };
}

const NEXT_REVISION: Statement = Statement::new(
    "catalogue.next",
    "UPDATE catalogue SET revision = revision + 1 WHERE id = 1 RETURNING revision",
);
const REVISION: Statement = Statement::new("catalogue.get", "SELECT revision FROM catalogue WHERE id = 1");
const INSERT: Statement = Statement::new(
    "tools.insert",
    concat!(
        "INSERT INTO tools (id, tenant_id, created_at, updated_at, version, revision, name, description, method, url,
         headers, input_schema, timeout_ms, read_only, idempotent, destructive, options, credentials_key_id, credentials,
         upstream_id)
         VALUES ($1, $2, $3, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING ", columns!()
    ),
);
const UPDATE: Statement = Statement::new(
    "tools.update",
    concat!(
        "UPDATE tools SET updated_at = $2, version = version + 1, revision = $3, description = $5, method = $6,
         url = $7, headers = $8, input_schema = $9, timeout_ms = $10, read_only = $11, idempotent = $12,
         destructive = $13, options = $14, credentials_key_id = CASE WHEN $17 THEN credentials_key_id ELSE $15 END,
         credentials = CASE WHEN $17 THEN credentials ELSE $16 END
         WHERE tenant_id = $1 AND name = $4 AND upstream_id IS NOT DISTINCT FROM $18 RETURNING ", columns!()
    ),
);
const GET: Statement = Statement::new(
    "tools.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM tools WHERE tenant_id = $1 AND name = $2"
    ),
);
const TO_RUN: Statement = Statement::new(
    "tools.to_run",
    concat!(
        "SELECT ",
        columns!(),
        ", credentials_key_id, credentials FROM tools WHERE tenant_id = $1 AND name = $2"
    ),
);
const BY_IDS: Statement = Statement::new(
    "tools.by_ids",
    concat!(
        "SELECT ",
        columns!(),
        ", credentials_key_id, credentials FROM tools WHERE id IN ",
        ids!("$1")
    ),
);
pub(super) const OF_UPSTREAM: Statement = Statement::new(
    "tools.of_upstream",
    concat!(
        "SELECT ",
        columns!(),
        ", credentials_key_id, credentials FROM tools WHERE upstream_id = $1"
    ),
);
const LIST: Statement = Statement::new(
    "tools.list",
    concat!(
        "SELECT ",
        columns!(),
        " FROM tools WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3"
    ),
);
const SINCE: Statement = Statement::new(
    "tools.since",
    concat!(
        "SELECT ",
        columns!(),
        " FROM tools WHERE revision > $1 ORDER BY revision"
    ),
);
const REMOVED_SINCE: Statement = Statement::new(
    "removed_tools.since",
    "SELECT tenant_id, tool_id FROM removed_tools WHERE revision > $1 ORDER BY revision",
);
const DELETE: Statement = Statement::new(
    "tools.delete",
    "DELETE FROM tools WHERE tenant_id = $1 AND name = $2 AND upstream_id IS NOT DISTINCT FROM $3 RETURNING id",
);
const BURY: Statement = Statement::new(
    "removed_tools.insert",
    "INSERT INTO removed_tools (tool_id, tenant_id, revision, removed_at) VALUES ($1, $2, $3, $4)",
);
const FORGET: Statement = Statement::new(
    "removed_tools.purge",
    "DELETE FROM removed_tools WHERE removed_at <= $1",
);
const TO_REKEY: Statement = Statement::new(
    "tools.to_rekey",
    "SELECT id, credentials_key_id, credentials FROM tools WHERE credentials_key_id <> $1 ORDER BY id LIMIT $2",
);
const REKEY: Statement = Statement::new(
    "tools.rekey",
    "UPDATE tools SET credentials_key_id = $4, credentials = $5
     WHERE id = $1 AND credentials_key_id = $2 AND credentials = $3",
);

/// Counts a change of the catalogue. Holds every other change up until the transaction ends, so it comes first: then
/// revisions become visible in their order, and none is missed.
pub(super) async fn next_revision(tx: &mut Transaction<'static, dialect::Db>) -> Result<i64> {
    let row = NEXT_REVISION.call().first::<(i64,)>(&mut **tx).await?;
    row.map(|(revision,)| revision).ok_or(StoreError::NotFound)
}

pub(super) async fn create(
    store: &SqlStore,
    tenant: TenantId,
    spec: &ToolSpec,
    credentials: Option<&SealedCredentials>,
) -> Result<Tool> {
    let mut tx = store.begin().await?;
    let revision = next_revision(&mut tx).await?;
    let tool = insert(&mut tx, revision, tenant, spec, credentials, None).await?;
    commit(tx).await?;
    Ok(tool)
}

/// Adds a tool, an HTTP API or one of that upstream.
pub(super) async fn insert(
    tx: &mut Transaction<'static, dialect::Db>,
    revision: i64,
    tenant: TenantId,
    spec: &ToolSpec,
    credentials: Option<&SealedCredentials>,
    upstream: Option<UpstreamId>,
) -> Result<Tool> {
    let call = INSERT
        .bind(ToolId::new().0)
        .bind(tenant.0)
        .bind(micros(now()))
        .bind(revision);
    let call = call
        .bind(spec.name.clone())
        .bind(spec.description.clone())
        .bind(spec.method.as_str());
    let call = call
        .bind(spec.url.clone())
        .bind(json(&spec.headers)?)
        .bind(json(&spec.input_schema)?);
    let call = call
        .bind(i64::from(spec.timeout_ms))
        .bind(spec.read_only)
        .bind(spec.idempotent);
    let call = call
        .bind(spec.destructive)
        .bind(json(&spec.options)?)
        .bind(credentials.map(|c| c.key_id.clone()));
    let call = call
        .bind(credentials.map(|c| c.sealed.clone()))
        .bind(upstream.map(|id| id.0));
    read_found(call.first::<ToolRow>(&mut **tx).await?)
}

pub(super) async fn update(
    store: &SqlStore,
    tenant: TenantId,
    spec: &ToolSpec,
    credentials: &CredentialsChange,
    if_version: Option<i64>,
) -> Result<Tool> {
    let mut tx = store.begin().await?;
    let revision = next_revision(&mut tx).await?;
    let tool = replace(&mut tx, revision, tenant, spec, credentials, None).await?;
    check_version(tool.version, if_version)?;
    commit(tx).await?;
    Ok(tool)
}

/// Replaces the tool of that name, an HTTP API or one of that upstream.
pub(super) async fn replace(
    tx: &mut Transaction<'static, dialect::Db>,
    revision: i64,
    tenant: TenantId,
    spec: &ToolSpec,
    credentials: &CredentialsChange,
    upstream: Option<UpstreamId>,
) -> Result<Tool> {
    let set = match credentials {
        CredentialsChange::Set(sealed) => Some(sealed),
        CredentialsChange::Keep | CredentialsChange::Remove => None,
    };
    let call = UPDATE
        .bind(tenant.0)
        .bind(micros(now()))
        .bind(revision)
        .bind(spec.name.clone());
    let call = call
        .bind(spec.description.clone())
        .bind(spec.method.as_str())
        .bind(spec.url.clone());
    let call = call
        .bind(json(&spec.headers)?)
        .bind(json(&spec.input_schema)?)
        .bind(i64::from(spec.timeout_ms));
    let call = call
        .bind(spec.read_only)
        .bind(spec.idempotent)
        .bind(spec.destructive)
        .bind(json(&spec.options)?);
    let call = call
        .bind(set.map(|c| c.key_id.clone()))
        .bind(set.map(|c| c.sealed.clone()));
    let call = call
        .bind(*credentials == CredentialsChange::Keep)
        .bind(upstream.map(|id| id.0));
    read_found(call.first::<ToolRow>(&mut **tx).await?)
}

pub(super) async fn get(store: &SqlStore, tenant: TenantId, name: &str) -> Result<Tool> {
    read_found(
        GET.bind(tenant.0)
            .bind(name.to_owned())
            .first::<ToolRow>(&store.read)
            .await?,
    )
}

pub(super) async fn to_run(
    store: &SqlStore,
    tenant: TenantId,
    name: &str,
) -> Result<(Tool, Option<SealedCredentials>)> {
    read_found(
        TO_RUN
            .bind(tenant.0)
            .bind(name.to_owned())
            .first::<ToolToRunRow>(&store.read)
            .await?,
    )
}

/// A tool with its credentials, or why it cannot be read: a newer version may have written it.
pub(super) type Found = Result<(Tool, Option<SealedCredentials>)>;

/// The tools that exist of these, whoever owns them.
pub(super) async fn by_ids(store: &SqlStore, ids: &[ToolId]) -> Result<HashMap<ToolId, Found>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = ids.iter().map(|id| id.0.simple().to_string()).collect();
    let rows = BY_IDS.bind(json(&ids)?).all::<ToolToRunRow>(&store.read).await?;
    Ok(rows.into_iter().map(|row| (row.id(), row.read())).collect())
}

pub(super) async fn list(store: &SqlStore, tenant: TenantId, request: &PageRequest) -> Result<Page<Tool>> {
    let after = Listing::Tools.name(request.cursor.as_deref())?;
    let call = LIST.bind(tenant.0).bind(after).bind(i64::from(request.limit) + 1);
    let tools = read_all(call.all::<ToolRow>(&store.read).await?)?;
    Ok(page(tools, request.limit, |last| {
        Listing::Tools.after_name(&last.spec.name)
    }))
}

pub(super) async fn revision(store: &SqlStore) -> Result<i64> {
    Ok(REVISION
        .call()
        .first::<(i64,)>(&store.read)
        .await?
        .map_or(0, |(revision,)| revision))
}

/// The revision is read first: what changes while the rest is read is answered now, and once more next time.
pub(super) async fn since(store: &SqlStore, revision: i64) -> Result<CatalogueChanges> {
    let now = self::revision(store).await?;
    if now == revision {
        return Ok(CatalogueChanges {
            revision,
            ..Default::default()
        });
    }
    let upserted = read_all(SINCE.bind(revision).all::<ToolRow>(&store.read).await?)?;
    let removed = REMOVED_SINCE
        .bind(revision)
        .all::<(Uuid, Uuid)>(&store.read)
        .await?;
    let removed = removed
        .into_iter()
        .map(|(tenant, tool)| (TenantId(tenant), ToolId(tool)))
        .collect();
    Ok(CatalogueChanges {
        revision: now,
        upserted,
        removed,
    })
}

pub(super) async fn delete(store: &SqlStore, tenant: TenantId, name: &str) -> Result<()> {
    let mut tx = store.begin().await?;
    let revision = next_revision(&mut tx).await?;
    remove(&mut tx, revision, tenant, name, None).await?;
    commit(tx).await
}

/// Removes the tool of that name, an HTTP API or one of that upstream, so that watches learn of it.
pub(super) async fn remove(
    tx: &mut Transaction<'static, dialect::Db>,
    revision: i64,
    tenant: TenantId,
    name: &str,
    upstream: Option<UpstreamId>,
) -> Result<()> {
    let call = DELETE
        .bind(tenant.0)
        .bind(name.to_owned())
        .bind(upstream.map(|id| id.0));
    let row = call.first::<(Uuid,)>(&mut **tx).await?;
    let (id,) = row.ok_or(StoreError::NotFound)?;
    let now = now();
    BURY.bind(id)
        .bind(tenant.0)
        .bind(revision)
        .bind(micros(now))
        .execute(&mut **tx)
        .await?;
    FORGET
        .bind(micros(now - REMOVALS_KEPT))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn to_rekey(
    store: &SqlStore,
    key_id: &str,
    limit: u32,
) -> Result<Vec<(ToolId, SealedCredentials)>> {
    let call = TO_REKEY.bind(key_id.to_owned()).bind(i64::from(limit));
    let rows = call.all::<(Uuid, String, Vec<u8>)>(&store.read).await?;
    let read = |(id, key_id, sealed)| (ToolId(id), SealedCredentials { key_id, sealed });
    Ok(rows.into_iter().map(read).collect())
}

pub(super) async fn rekey(
    store: &SqlStore,
    id: ToolId,
    old: &SealedCredentials,
    new: &SealedCredentials,
) -> Result<bool> {
    let call = REKEY.bind(id.0).bind(old.key_id.clone()).bind(old.sealed.clone());
    let call = call.bind(new.key_id.clone()).bind(new.sealed.clone());
    Ok(call.execute(&store.write).await? > 0)
}
