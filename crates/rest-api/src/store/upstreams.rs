//! Upstreams: other MCP servers, and what is kept of them.

use super::{
    CredentialsChange, Result, SealedCredentials,
    rows::{Row, from_json, optional_time, time},
};
use crate::store::StoreError;
use domain::{
    TenantId, Time, UpstreamId,
    page::{Page, PageRequest},
    tool::ToolSpec,
    upstream::{Learnt, LeftOut, RefreshError, Upstream, UpstreamSpec},
};
use sqlx::FromRow;
use uuid::Uuid;

/// An upstream, with all that is needed to ask its server.
#[derive(Clone, Debug, PartialEq)]
pub struct ToAsk {
    /// The upstream.
    pub upstream: Upstream,
    /// Its owner's name.
    pub tenant: String,
    /// What the server is shown.
    pub credentials: Option<SealedCredentials>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// The upstream as it was asked; one that has changed since is left as it is.
    pub upstream: &'a Upstream,
    /// The tools that are to be offered from now on.
    pub tools: &'a [ToolSpec],
    /// What was learnt, but for the names that turn out to be taken.
    pub learnt: &'a Learnt,
    /// When it answered.
    pub at: Time,
}

/// What was done about a server's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many are new.
    pub added: u32,
    /// How many are not what they were.
    pub changed: u32,
    /// How many are gone.
    pub removed: u32,
    /// Those whose names other tools have.
    pub taken: Vec<LeftOut>,
}

impl Settled {
    /// How many tools were touched.
    pub fn count(&self) -> u64 {
        u64::from(self.added) + u64::from(self.changed) + u64::from(self.removed)
    }
}

/// Upstreams and their tools.
#[async_trait::async_trait]
pub trait UpstreamStore: Send + Sync {
    /// Keeps an upstream whose server is asked at `next_refresh_at`, if not before. `Conflict` when the tenant has one of
    /// that name.
    async fn create_upstream(
        &self,
        tenant: TenantId,
        spec: &UpstreamSpec,
        credentials: Option<&SealedCredentials>,
        next_refresh_at: Time,
    ) -> Result<Upstream>;
    /// One upstream, by name.
    async fn get_upstream(&self, tenant: TenantId, name: &str) -> Result<Upstream>;
    /// One upstream with its sealed credentials, to ask its server.
    async fn upstream_to_ask(&self, tenant: TenantId, name: &str) -> Result<ToAsk>;
    /// A tenant's upstreams, by name.
    async fn list_upstreams(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<Upstream>>;
    /// How many a tenant has.
    async fn count_upstreams(&self, tenant: TenantId) -> Result<i64>;
    /// Replaces what an upstream is (the name stays) and what its tools have from it, in one transaction.
    /// `VersionMismatch` when it is not at `version`.
    async fn update_upstream(
        &self,
        tenant: TenantId,
        spec: &UpstreamSpec,
        credentials: &CredentialsChange,
        version: i64,
        next_refresh_at: Time,
    ) -> Result<Upstream>;
    /// Removes an upstream and its tools, in one transaction; executions stay. `VersionMismatch` when it is not at
    /// `if_version`.
    async fn delete_upstream(&self, tenant: TenantId, name: &str, if_version: Option<i64>) -> Result<()>;
    /// Gives at most `limit` upstreams that are due at `now`, the most overdue first, and puts off their next turn to
    /// `next`. Those of suspended tenants wait.
    async fn claim_due_upstreams(&self, now: Time, next: Time, limit: u32) -> Result<Vec<ToAsk>>;
    /// Makes an upstream's tools what its server answered, in one transaction. `NotFound` when it is not at that version
    /// any more; `Conflict` when a name was taken in this very moment.
    async fn keep_answer(&self, answered: &Answered<'_>) -> Result<(Upstream, Settled)>;
    /// Notes that a server could not be asked; its tools stay. `NotFound` as above.
    async fn keep_failure(&self, asked: &Upstream, error: &RefreshError, at: Time) -> Result<Upstream>;
    /// Credentials sealed with another key than `key_id`, for re-keying: at most `limit`.
    async fn upstream_credentials_to_rekey(
        &self,
        key_id: &str,
        limit: u32,
    ) -> Result<Vec<(UpstreamId, SealedCredentials)>>;
    /// Replaces sealed credentials if they still are `old`; says whether it did.
    async fn rekey_upstream_credentials(
        &self,
        id: UpstreamId,
        old: &SealedCredentials,
        new: &SealedCredentials,
    ) -> Result<bool>;
}

#[derive(FromRow)]
pub(crate) struct UpstreamRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    url: String,
    timeout_ms: i64,
    max_result_bytes: Option<i64>,
    tools: String,
    enabled: bool,
    has_credentials: bool,
    version: i64,
    created_at: i64,
    updated_at: i64,
    next_refresh_at: Option<i64>,
    asked_at: Option<i64>,
    answered_at: Option<i64>,
    error_code: Option<String>,
    error_message: Option<String>,
    learnt: String,
}

impl Row for UpstreamRow {
    type Entity = Upstream;
    fn read(self) -> Result<Upstream> {
        let max_result_bytes = self.max_result_bytes.map(u32::try_from).transpose();
        let spec = UpstreamSpec {
            name: self.name,
            url: self.url,
            timeout_ms: u32::try_from(self.timeout_ms).map_err(StoreError::decode)?,
            max_result_bytes: max_result_bytes.map_err(StoreError::decode)?,
            tools: from_json(&self.tools)?,
            enabled: self.enabled,
        };
        let error = self.error_code.map(|code| RefreshError {
            code,
            message: self.error_message.unwrap_or_default(),
        });
        Ok(Upstream {
            id: UpstreamId(self.id),
            tenant_id: TenantId(self.tenant_id),
            spec,
            has_credentials: self.has_credentials,
            version: self.version,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
            next_refresh_at: optional_time(self.next_refresh_at)?,
            asked_at: optional_time(self.asked_at)?,
            answered_at: optional_time(self.answered_at)?,
            error,
            learnt: from_json(&self.learnt)?,
        })
    }
}

/// An upstream as a statement gives it that also reads what its server is shown.
#[derive(FromRow)]
pub(crate) struct ToAskRow {
    #[sqlx(flatten)]
    upstream: UpstreamRow,
    credentials_key_id: Option<String>,
    credentials: Option<Vec<u8>>,
    tenant: String,
}

impl ToAskRow {
    pub(crate) fn id(&self) -> Uuid {
        self.upstream.id
    }
}

impl Row for ToAskRow {
    type Entity = ToAsk;
    fn read(self) -> Result<ToAsk> {
        let credentials = self.credentials_key_id.zip(self.credentials);
        Ok(ToAsk {
            upstream: self.upstream.read()?,
            tenant: self.tenant,
            credentials: credentials.map(|(key_id, sealed)| SealedCredentials { key_id, sealed }),
        })
    }
}
