//! Which function answers which method of the [`Store`].
//!
//! What may meet another transaction over several rows is run again when the database undid it.

use super::{
    SqlStore, Statement, Twice, contexts, dialect, executions, items, keys, leases, search, statistics,
    tenants, tools,
};
use crate::store::{
    Append, Appended, CatalogueChanges, Contents, CredentialsChange, ExecutionFilter, Idempotency, KeyOwner,
    Made, PoolState, Result, Schema, SealedCredentials, StatementStatistics, Store,
};
use domain::{
    ApiKeyId, ContextId, ExecutionId, TenantId, Time, ToolId,
    api_key::{ApiKey, SecretHash},
    context::{Context, ContextFilter, ContextPatch, NewContext, NewItem, SearchHit},
    execution::Execution,
    page::{Page, PageRequest},
    tenant::{Tenant, TenantStatus},
    tool::{Tool, ToolSpec},
};
use std::{path::PathBuf, time::Duration};

const PING: Statement = Statement::new("ping", "SELECT 1");
const PLANTED: Statement = Statement::new("contexts.planted_slow", dialect::SLOW);

#[async_trait::async_trait]
impl Store for SqlStore {
    fn system(&self) -> &'static str {
        dialect::SYSTEM
    }

    fn pool(&self) -> PoolState {
        dialect::pool_state(self)
    }

    async fn migrate_to(&self, schema: Schema) -> Result<()> {
        dialect::migrate(self, schema).await
    }

    async fn ping(&self) -> Result<()> {
        PING.call().execute(&self.read).await?;
        Ok(())
    }

    fn directory(&self) -> Option<PathBuf> {
        statistics::directory(self)
    }

    async fn size_bytes(&self) -> Result<u64> {
        let size: Option<(i64,)> = statistics::SIZE.call().first(&self.read).await?;
        Ok(size.map_or(0, |(bytes,)| bytes.unsigned_abs()))
    }

    async fn statement_statistics(&self, limit: u32) -> Result<StatementStatistics> {
        statistics::statements(self, limit).await
    }

    async fn run_slow_statement(&self) -> Result<()> {
        PLANTED.call().execute(&self.read).await?;
        Ok(())
    }

    async fn close(&self) {
        self.signals.close().await;
        self.read.close().await;
        self.write.close().await;
    }

    async fn create_tenant(&self, name: &str) -> Result<Tenant> {
        tenants::create(self, name).await
    }

    async fn list_tenants(&self) -> Result<Vec<Tenant>> {
        tenants::list(self).await
    }

    async fn tenant_by_name(&self, name: &str) -> Result<Tenant> {
        tenants::get(self, name).await
    }

    async fn set_tenant_status(&self, name: &str, status: TenantStatus) -> Result<Tenant> {
        tenants::set_status(self, name, status).await
    }

    async fn create_key(&self, key: &ApiKey, hash: &SecretHash) -> Result<()> {
        keys::create(self, key, hash).await
    }

    async fn key_owner(&self, hash: &SecretHash) -> Result<Option<KeyOwner>> {
        keys::owner(self, hash).await
    }

    async fn touch_key(&self, id: ApiKeyId, at: Time) -> Result<()> {
        keys::touch(self, id, at).await
    }

    async fn list_keys(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<ApiKey>> {
        keys::list(self, tenant, page).await
    }

    async fn get_key(&self, tenant: TenantId, id: ApiKeyId) -> Result<ApiKey> {
        keys::get(self, tenant, id).await
    }

    async fn get_keys(&self, tenant: TenantId, ids: &[ApiKeyId]) -> Result<Vec<ApiKey>> {
        keys::get_some(self, tenant, ids).await
    }

    async fn revoke_key(&self, tenant: TenantId, id: ApiKeyId, at: Time) -> Result<ApiKey> {
        keys::revoke(self, tenant, id, at).await
    }

    async fn count_tenant_keys(&self, tenant: TenantId, now: Time) -> Result<i64> {
        keys::count_of_tenant(self, tenant, now).await
    }

    async fn count_active_keys(&self, now: Time) -> Result<Vec<(String, i64)>> {
        keys::count_active(self, now).await
    }

    async fn create_context(
        &self,
        tenant: TenantId,
        new: &NewContext,
        items: &[NewItem],
        idempotency: Option<&Idempotency>,
    ) -> Result<Made<Context>> {
        self.again(Twice::with(idempotency), || {
            contexts::create(self, tenant, new, items, idempotency)
        })
        .await
    }

    async fn get_context(&self, tenant: TenantId, id: ContextId) -> Result<Context> {
        contexts::get(self, tenant, id).await
    }

    async fn list_contexts(
        &self,
        tenant: TenantId,
        filter: &ContextFilter,
        page: &PageRequest,
    ) -> Result<Page<Context>> {
        contexts::list(self, tenant, filter, page).await
    }

    async fn update_context(
        &self,
        tenant: TenantId,
        id: ContextId,
        patch: &ContextPatch,
        if_version: Option<i64>,
    ) -> Result<Context> {
        self.retrying(|| contexts::update(self, tenant, id, patch, if_version))
            .await
    }

    async fn delete_context(&self, tenant: TenantId, id: ContextId, if_version: Option<i64>) -> Result<()> {
        self.retrying(|| contexts::delete(self, tenant, id, if_version))
            .await
    }

    async fn append_items(
        &self,
        tenant: TenantId,
        id: ContextId,
        append: Append<'_>,
    ) -> Result<Made<Appended>> {
        self.again(Twice::with(append.idempotency), || {
            contexts::append(self, tenant, id, append)
        })
        .await
    }

    async fn list_items(
        &self,
        tenant: TenantId,
        id: ContextId,
        page: &PageRequest,
        max_bytes: usize,
        newest_first: bool,
    ) -> Result<Contents> {
        self.again(Twice::Safe, || {
            items::list(self, tenant, id, page, max_bytes, newest_first)
        })
        .await
    }

    async fn search_contexts(
        &self,
        tenant: TenantId,
        query: &str,
        filter: &ContextFilter,
        limit: u32,
    ) -> Result<Vec<SearchHit>> {
        search::search(self, tenant, query, filter, limit).await
    }

    async fn expire_contexts(&self, now: Time, limit: u32) -> Result<u64> {
        self.retrying(|| contexts::expire(self, now, limit)).await
    }

    async fn count_active_contexts(&self, now: Time) -> Result<Vec<(String, i64)>> {
        contexts::count_active(self, now).await
    }

    async fn create_tool(
        &self,
        tenant: TenantId,
        spec: &ToolSpec,
        credentials: Option<&SealedCredentials>,
    ) -> Result<Tool> {
        self.retrying(|| tools::create(self, tenant, spec, credentials))
            .await
    }

    async fn get_tool(&self, tenant: TenantId, name: &str) -> Result<Tool> {
        tools::get(self, tenant, name).await
    }

    async fn tool_to_run(&self, tenant: TenantId, name: &str) -> Result<(Tool, Option<SealedCredentials>)> {
        tools::to_run(self, tenant, name).await
    }

    async fn list_tools(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<Tool>> {
        tools::list(self, tenant, page).await
    }

    async fn tools_since(&self, revision: i64) -> Result<CatalogueChanges> {
        tools::since(self, revision).await
    }

    async fn catalogue_revision(&self) -> Result<i64> {
        tools::revision(self).await
    }

    async fn update_tool(
        &self,
        tenant: TenantId,
        spec: &ToolSpec,
        credentials: &CredentialsChange,
        if_version: Option<i64>,
    ) -> Result<Tool> {
        self.retrying(|| tools::update(self, tenant, spec, credentials, if_version))
            .await
    }

    async fn delete_tool(&self, tenant: TenantId, name: &str) -> Result<()> {
        self.retrying(|| tools::delete(self, tenant, name)).await
    }

    async fn credentials_to_rekey(
        &self,
        key_id: &str,
        limit: u32,
    ) -> Result<Vec<(ToolId, SealedCredentials)>> {
        tools::to_rekey(self, key_id, limit).await
    }

    async fn rekey_credentials(
        &self,
        id: ToolId,
        old: &SealedCredentials,
        new: &SealedCredentials,
    ) -> Result<bool> {
        tools::rekey(self, id, old, new).await
    }

    async fn get_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
        executions::get(self, tenant, id).await
    }

    async fn list_executions(
        &self,
        tenant: TenantId,
        filter: &ExecutionFilter,
        page: &PageRequest,
    ) -> Result<Page<Execution>> {
        executions::list(self, tenant, filter, page).await
    }

    async fn purge_executions(&self, before: Time, limit: u32) -> Result<u64> {
        self.retrying(|| executions::purge(self, before, limit)).await
    }

    async fn purge_idempotency(&self, now: Time, limit: u32) -> Result<u64> {
        self.retrying(|| contexts::purge_idempotency(self, now, limit))
            .await
    }

    async fn hold_lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        leases::hold(self, name, owner, ttl).await
    }

    async fn release_lease(&self, name: &str, owner: &str) -> Result<()> {
        leases::release(self, name, owner).await
    }
}
