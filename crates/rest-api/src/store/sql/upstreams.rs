//! Upstreams, and their tools among the others.

mod settle;

use super::{SqlStore, Statement, check_version, commit, dialect::skip_locked, statement::Call};
use crate::clock::now;
use crate::store::{
    CredentialsChange, Result, SealedCredentials, StoreError,
    cursor::{Listing, page},
    rows::{json, micros, read_all, read_found, read_known},
    upstreams::{Answered, Settled, ToAsk, ToAskRow, UpstreamRow, UpstreamStore},
};
use domain::{
    TenantId, Time, UpstreamId,
    page::{Page, PageRequest},
    upstream::{Learnt, RefreshError, Upstream, UpstreamSpec},
};
use settle::Owner;
use uuid::Uuid;

macro_rules! columns {
    () => {
        "id, tenant_id, name, url, timeout_ms, max_result_bytes, tools, enabled, \
         credentials_key_id IS NOT NULL AS has_credentials, version, created_at, updated_at, next_refresh_at, asked_at, \
         answered_at, error_code, error_message, learnt"
    };
}
macro_rules! columns_to_ask {
    () => {
        concat!(
            columns!(),
            ", credentials_key_id, credentials,
             (SELECT tenants.name FROM tenants WHERE tenants.id = upstreams.tenant_id) AS tenant"
        )
    };
}

const INSERT: Statement = Statement::new(
    "upstreams.insert",
    concat!(
        "INSERT INTO upstreams (id, tenant_id, created_at, updated_at, version, name, url, timeout_ms, max_result_bytes,
         tools, enabled, next_refresh_at, credentials_key_id, credentials)
         VALUES ($1, $2, $3, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING ",
        columns!()
    ),
);
const GET: Statement = Statement::new(
    "upstreams.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM upstreams WHERE tenant_id = $1 AND name = $2"
    ),
);
const TO_ASK: Statement = Statement::new(
    "upstreams.to_ask",
    concat!(
        "SELECT ",
        columns_to_ask!(),
        " FROM upstreams WHERE tenant_id = $1 AND name = $2"
    ),
);
const LIST: Statement = Statement::new(
    "upstreams.list",
    concat!(
        "SELECT ",
        columns!(),
        " FROM upstreams WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3"
    ),
);
const COUNT: Statement = Statement::new(
    "upstreams.count",
    "SELECT COUNT(*) FROM upstreams WHERE tenant_id = $1",
);
/// What was learnt of another server, or under other conditions, says nothing of this one.
const UPDATE: Statement = Statement::new(
    "upstreams.update",
    concat!(
        "UPDATE upstreams SET updated_at = $3, version = version + 1, url = $4, timeout_ms = $5, max_result_bytes = $6,
         tools = $7, enabled = $8, next_refresh_at = $9,
         credentials_key_id = CASE WHEN $12 THEN credentials_key_id ELSE $10 END,
         credentials = CASE WHEN $12 THEN credentials ELSE $11 END, error_code = NULL, error_message = NULL
         WHERE tenant_id = $1 AND name = $2 RETURNING ",
        columns_to_ask!()
    ),
);
const DELETE: Statement = Statement::new(
    "upstreams.delete",
    "DELETE FROM upstreams WHERE tenant_id = $1 AND name = $2 RETURNING id, version + 1",
);
const CLAIM: Statement = Statement::new(
    "upstreams.claim",
    concat!(
        "UPDATE upstreams SET next_refresh_at = $2 WHERE id IN (
             SELECT id FROM upstreams
             WHERE enabled AND next_refresh_at <= $1
             AND tenant_id IN (SELECT t.id FROM tenants t WHERE t.status = 'active')
             ORDER BY next_refresh_at LIMIT $3",
        skip_locked!(),
        ") RETURNING ",
        columns_to_ask!()
    ),
);
/// Locks the row, too: of two that ask at once, one settles after the other.
const ANSWERED: Statement = Statement::new(
    "upstreams.answered",
    concat!(
        "UPDATE upstreams SET asked_at = $4, answered_at = $4, error_code = NULL, error_message = NULL
         WHERE tenant_id = $1 AND id = $2 AND version = $3 RETURNING ",
        columns_to_ask!()
    ),
);
const LEARN: Statement = Statement::new(
    "upstreams.learn",
    concat!(
        "UPDATE upstreams SET learnt = $2 WHERE id = $1 RETURNING ",
        columns!()
    ),
);
const FAILED: Statement = Statement::new(
    "upstreams.failed",
    concat!(
        "UPDATE upstreams SET asked_at = $4, error_code = $5, error_message = $6
         WHERE tenant_id = $1 AND id = $2 AND version = $3 RETURNING ",
        columns!()
    ),
);
const TO_REKEY: Statement = Statement::new(
    "upstreams.to_rekey",
    "SELECT id, credentials_key_id, credentials FROM upstreams WHERE credentials_key_id <> $1 ORDER BY id LIMIT $2",
);
const REKEY: Statement = Statement::new(
    "upstreams.rekey",
    "UPDATE upstreams SET credentials_key_id = $4, credentials = $5
     WHERE id = $1 AND credentials_key_id = $2 AND credentials = $3",
);

/// Its tools show the server the same.
const REKEY_TOOLS: Statement = Statement::new(
    "tools.rekey_of_upstream",
    "UPDATE tools SET upstream_credentials_key_id = $2, upstream_credentials = $3 WHERE upstream_id = $1",
);

/// What insert and update have in common.
fn bind_spec(call: Call, spec: &UpstreamSpec, next_refresh_at: Time) -> Result<Call> {
    let call = call
        .bind(spec.url.clone())
        .bind(i64::from(spec.timeout_ms))
        .bind(spec.max_result_bytes.map(i64::from));
    Ok(call
        .bind(json(&spec.tools)?)
        .bind(spec.enabled)
        .bind(spec.enabled.then_some(micros(next_refresh_at))))
}

fn bind_sealed(call: Call, sealed: Option<&SealedCredentials>) -> Call {
    call.bind(sealed.map(|c| c.key_id.clone()))
        .bind(sealed.map(|c| c.sealed.clone()))
}

async fn update(
    store: &SqlStore,
    tenant: TenantId,
    spec: &UpstreamSpec,
    credentials: &CredentialsChange,
    version: i64,
    next_refresh_at: Time,
) -> Result<Upstream> {
    let set = match credentials {
        CredentialsChange::Set(sealed) => Some(sealed),
        CredentialsChange::Keep | CredentialsChange::Remove => None,
    };
    let mut tx = store.begin().await?;
    let call = UPDATE.bind(tenant.0).bind(spec.name.clone()).bind(micros(now()));
    let call = bind_sealed(bind_spec(call, spec, next_refresh_at)?, set);
    let call = call.bind(*credentials == CredentialsChange::Keep);
    let updated = read_found(call.first::<ToAskRow>(&mut *tx).await?)?;
    check_version(updated.upstream.version, Some(version))?;
    let owner = Owner::of(&updated);
    let had = settle::tools(&mut tx, owner.id).await?;
    let wanted: Vec<_> = had
        .iter()
        .filter_map(|(tool, _)| spec.reshaped(tool.spec.clone()))
        .collect();
    let learnt = Learnt {
        tools: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
        ..updated.upstream.learnt
    };
    settle::settle(&mut tx, &owner, had, &wanted).await?;
    let call = LEARN.bind(owner.id.0).bind(json(&learnt)?);
    let upstream = read_found(call.first::<UpstreamRow>(&mut *tx).await?)?;
    commit(tx).await?;
    Ok(upstream)
}

async fn delete(store: &SqlStore, tenant: TenantId, name: &str, if_version: Option<i64>) -> Result<()> {
    let mut tx = store.begin().await?;
    let call = DELETE.bind(tenant.0).bind(name.to_owned());
    let row = call.first::<(Uuid, i64)>(&mut *tx).await?;
    let (id, next) = row.ok_or(StoreError::NotFound)?;
    check_version(next, if_version)?;
    let owner = Owner {
        tenant,
        id: UpstreamId(id),
        prefix: format!("{name}_"),
        credentials: None,
    };
    let had = settle::tools(&mut tx, owner.id).await?;
    settle::settle(&mut tx, &owner, had, &[]).await?;
    commit(tx).await
}

async fn keep_answer(store: &SqlStore, answered: &Answered<'_>) -> Result<(Upstream, Settled)> {
    let asked = answered.upstream;
    let mut tx = store.begin().await?;
    let call = ANSWERED.bind(asked.tenant_id.0).bind(asked.id.0);
    let call = call.bind(asked.version).bind(micros(answered.at));
    let locked = read_found(call.first::<ToAskRow>(&mut *tx).await?)?;
    let owner = Owner::of(&locked);
    let had = settle::tools(&mut tx, owner.id).await?;
    let settled = settle::settle(&mut tx, &owner, had, answered.tools).await?;
    let learnt = answered.learnt.clone().with_taken(&settled.taken);
    let call = LEARN.bind(asked.id.0).bind(json(&learnt)?);
    let upstream = read_found(call.first::<UpstreamRow>(&mut *tx).await?)?;
    commit(tx).await?;
    Ok((upstream, settled))
}

#[async_trait::async_trait]
impl UpstreamStore for SqlStore {
    async fn create_upstream(
        &self,
        tenant: TenantId,
        spec: &UpstreamSpec,
        credentials: Option<&SealedCredentials>,
        next_refresh_at: Time,
    ) -> Result<Upstream> {
        let call = INSERT
            .bind(UpstreamId::new().0)
            .bind(tenant.0)
            .bind(micros(now()))
            .bind(spec.name.clone());
        let call = bind_sealed(bind_spec(call, spec, next_refresh_at)?, credentials);
        read_found(call.first::<UpstreamRow>(&self.write).await?)
    }

    async fn get_upstream(&self, tenant: TenantId, name: &str) -> Result<Upstream> {
        let call = GET.bind(tenant.0).bind(name.to_owned());
        read_found(call.first::<UpstreamRow>(&self.read).await?)
    }

    async fn upstream_to_ask(&self, tenant: TenantId, name: &str) -> Result<ToAsk> {
        let call = TO_ASK.bind(tenant.0).bind(name.to_owned());
        read_found(call.first::<ToAskRow>(&self.read).await?)
    }

    async fn list_upstreams(&self, tenant: TenantId, request: &PageRequest) -> Result<Page<Upstream>> {
        let after = Listing::Upstreams.name(request.cursor.as_deref())?;
        let call = LIST.bind(tenant.0).bind(after).bind(i64::from(request.limit) + 1);
        let upstreams = read_all(call.all::<UpstreamRow>(&self.read).await?)?;
        Ok(page(upstreams, request.limit, |last| {
            Listing::Upstreams.after_name(&last.spec.name)
        }))
    }

    async fn count_upstreams(&self, tenant: TenantId) -> Result<i64> {
        let row = COUNT.bind(tenant.0).first::<(i64,)>(&self.read).await?;
        Ok(row.map_or(0, |(count,)| count))
    }

    async fn update_upstream(
        &self,
        tenant: TenantId,
        spec: &UpstreamSpec,
        credentials: &CredentialsChange,
        version: i64,
        next_refresh_at: Time,
    ) -> Result<Upstream> {
        self.retrying(|| update(self, tenant, spec, credentials, version, next_refresh_at))
            .await
    }

    async fn delete_upstream(&self, tenant: TenantId, name: &str, if_version: Option<i64>) -> Result<()> {
        self.retrying(|| delete(self, tenant, name, if_version)).await
    }

    async fn claim_due_upstreams(&self, now: Time, next: Time, limit: u32) -> Result<Vec<ToAsk>> {
        self.retrying(|| async {
            let call = CLAIM.bind(micros(now)).bind(micros(next)).bind(i64::from(limit));
            let rows = call.all::<ToAskRow>(&self.write).await?;
            Ok(read_known(rows, ToAskRow::id))
        })
        .await
    }

    async fn keep_answer(&self, answered: &Answered<'_>) -> Result<(Upstream, Settled)> {
        self.retrying(|| keep_answer(self, answered)).await
    }

    async fn keep_failure(&self, asked: &Upstream, error: &RefreshError, at: Time) -> Result<Upstream> {
        let call = FAILED.bind(asked.tenant_id.0).bind(asked.id.0);
        let call = call
            .bind(asked.version)
            .bind(micros(at))
            .bind(error.code.clone())
            .bind(error.message.clone());
        read_found(call.first::<UpstreamRow>(&self.write).await?)
    }

    async fn upstream_credentials_to_rekey(
        &self,
        key_id: &str,
        limit: u32,
    ) -> Result<Vec<(UpstreamId, SealedCredentials)>> {
        let call = TO_REKEY.bind(key_id.to_owned()).bind(i64::from(limit));
        let rows = call.all::<(Uuid, String, Vec<u8>)>(&self.read).await?;
        let read = |(id, key_id, sealed)| (UpstreamId(id), SealedCredentials { key_id, sealed });
        Ok(rows.into_iter().map(read).collect())
    }

    async fn rekey_upstream_credentials(
        &self,
        id: UpstreamId,
        old: &SealedCredentials,
        new: &SealedCredentials,
    ) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin().await?;
            let call = REKEY.bind(id.0).bind(old.key_id.clone()).bind(old.sealed.clone());
            let moved = bind_sealed(call, Some(new)).execute(&mut *tx).await? > 0;
            if moved {
                let call = bind_sealed(REKEY_TOOLS.bind(id.0), Some(new));
                call.execute(&mut *tx).await?;
            }
            commit(tx).await?;
            Ok(moved)
        })
        .await
    }
}
