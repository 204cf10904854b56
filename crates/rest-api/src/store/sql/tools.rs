//! Tools, and the catalogue's revision that counts their changes.

use super::{SqlStore, Statement, check_version, commit, dialect, dialect::ids, statement::Call};
use crate::clock::now;
use crate::store::{
    CatalogueChanges, CredentialsChange, Result, SealedCredentials, StoreError,
    cursor::{Listing, page},
    rows::{Row as _, ToolRow, ToolToRunRow, json, micros, read_found, read_known},
};
use domain::{
    TenantId, ToolId, UpstreamId,
    page::{Page, PageRequest},
    tool::{Tool, ToolSpec},
};
use sqlx::Transaction;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// Where earlier versions, which take every tool for an HTTP API, find those of upstreams: a name that is kept from ever
/// being one (RFC 6761).
const NOWHERE: &str = "https://upstream.invalid/";
/// How long a watch that was cut off can still learn of a removal.
const REMOVALS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

macro_rules! columns {
    () => {
        "id, tenant_id, name, description, method, COALESCE(upstream_url, url) AS url, headers, input_schema, \
         timeout_ms, read_only, idempotent, destructive, COALESCE(upstream_options, options) AS options, \
         (CASE WHEN upstream_id IS NULL THEN credentials_key_id ELSE upstream_credentials_key_id END) IS NOT NULL \
         AS has_credentials, version, created_at, updated_at"
    };
}
macro_rules! columns_to_run {
    () => {
        concat!(
            columns!(),
            ", CASE WHEN upstream_id IS NULL THEN credentials_key_id ELSE upstream_credentials_key_id END \
             AS credentials_key_id, \
             CASE WHEN upstream_id IS NULL THEN credentials ELSE upstream_credentials END AS credentials"
        )
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
         upstream_id, upstream_url, upstream_options, upstream_credentials_key_id, upstream_credentials)
         VALUES ($1, $2, $3, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
         RETURNING ", columns!()
    ),
);
const UPDATE: Statement = Statement::new(
    "tools.update",
    concat!(
        "UPDATE tools SET updated_at = $2, version = version + 1, revision = $3, description = $5, method = $6,
         url = $7, headers = $8, input_schema = $9, timeout_ms = $10, read_only = $11, idempotent = $12,
         destructive = $13, options = $14, credentials_key_id = CASE WHEN $17 THEN credentials_key_id ELSE $15 END,
         credentials = CASE WHEN $17 THEN credentials ELSE $16 END, upstream_url = $19, upstream_options = $20,
         upstream_credentials_key_id = $21, upstream_credentials = $22
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
        columns_to_run!(),
        " FROM tools WHERE tenant_id = $1 AND name = $2"
    ),
);
const BY_IDS: Statement = Statement::new(
    "tools.by_ids",
    concat!(
        "SELECT ",
        columns_to_run!(),
        " FROM tools WHERE id IN ",
        ids!("$1")
    ),
);
pub(super) const OF_UPSTREAM: Statement = Statement::new(
    "tools.of_upstream",
    concat!("SELECT ", columns_to_run!(), " FROM tools WHERE upstream_id = $1"),
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

/// The columns that are told apart by whose tool it is.
#[derive(Default)]
struct Columns {
    url: Option<String>,
    options: Option<String>,
    key_id: Option<String>,
    sealed: Option<Vec<u8>>,
}

/// A tool's columns: those that every version reads, and those of an upstream's tool, which earlier ones do not know.
struct Split {
    own: Columns,
    upstream_id: Option<Uuid>,
    upstream: Columns,
}

impl Split {
    fn of(
        spec: &ToolSpec,
        credentials: Option<&SealedCredentials>,
        upstream: Option<UpstreamId>,
    ) -> Result<Self> {
        let told = Columns {
            url: Some(spec.url.clone()),
            options: Some(json(&spec.options)?),
            key_id: credentials.map(|c| c.key_id.clone()),
            sealed: credentials.map(|c| c.sealed.clone()),
        };
        let Some(UpstreamId(id)) = upstream else {
            return Ok(Self {
                own: told,
                upstream_id: None,
                upstream: Columns::default(),
            });
        };
        let nowhere = Columns {
            url: Some(NOWHERE.to_owned()),
            options: Some("{}".to_owned()),
            ..Columns::default()
        };
        Ok(Self {
            own: nowhere,
            upstream_id: Some(id),
            upstream: told,
        })
    }
}

impl Columns {
    /// The last arguments of insert and update.
    fn bind(self, call: Call, upstream_id: Option<Uuid>) -> Call {
        call.bind(upstream_id)
            .bind(self.url)
            .bind(self.options)
            .bind(self.key_id)
            .bind(self.sealed)
    }
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
    let split = Split::of(spec, credentials, upstream)?;
    let call = call
        .bind(split.own.url)
        .bind(json(&spec.headers)?)
        .bind(json(&spec.input_schema)?);
    let call = call
        .bind(i64::from(spec.timeout_ms))
        .bind(spec.read_only)
        .bind(spec.idempotent);
    let call = call
        .bind(spec.destructive)
        .bind(split.own.options)
        .bind(split.own.key_id)
        .bind(split.own.sealed);
    let call = split.upstream.bind(call, split.upstream_id);
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

/// Replaces the tool of that name, an HTTP API or one of that upstream; the credentials of the latter are always told.
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
    let split = Split::of(spec, set, upstream)?;
    let call = call
        .bind(spec.description.clone())
        .bind(spec.method.as_str())
        .bind(split.own.url);
    let call = call
        .bind(json(&spec.headers)?)
        .bind(json(&spec.input_schema)?)
        .bind(i64::from(spec.timeout_ms));
    let call = call
        .bind(spec.read_only)
        .bind(spec.idempotent)
        .bind(spec.destructive)
        .bind(split.own.options);
    let call = call
        .bind(split.own.key_id)
        .bind(split.own.sealed)
        .bind(*credentials == CredentialsChange::Keep);
    let call = split.upstream.bind(call, split.upstream_id);
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
    let rows = call.all::<ToolRow>(&store.read).await?;
    let page = page(rows, request.limit, |last| Listing::Tools.after_name(last.name()));
    Ok(Page {
        items: read_known(page.items, ToolRow::id),
        next_cursor: page.next_cursor,
    })
}

pub(super) async fn revision(store: &SqlStore) -> Result<i64> {
    Ok(REVISION
        .call()
        .first::<(i64,)>(&store.read)
        .await?
        .map_or(0, |(revision,)| revision))
}

/// The revision is read first: what changes while the rest is read is answered now, and once more next time. What a newer
/// version wrote and this one cannot read is left out: it must not hide the tools of all tenants.
pub(super) async fn since(store: &SqlStore, revision: i64) -> Result<CatalogueChanges> {
    let now = self::revision(store).await?;
    if now == revision {
        return Ok(CatalogueChanges {
            revision,
            ..Default::default()
        });
    }
    let rows = SINCE.bind(revision).all::<ToolRow>(&store.read).await?;
    let upserted = read_known(rows, ToolRow::id);
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
