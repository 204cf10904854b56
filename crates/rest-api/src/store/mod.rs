//! The database: one trait, two implementations, one contract (`tests/store_contract` runs on both).
//!
//! Every method that touches a tenant's rows takes the tenant first and never sees another's: a row of another
//! tenant is [`StoreError::NotFound`], exactly as one that does not exist.

pub mod audit;
mod cursor;
mod error;
pub mod incidents;
pub mod inspect;
mod migrations;
mod outage;
mod postgres;
mod queue;
mod rows;
pub mod schedules;
pub mod settings;
mod signals;
mod sqlite;
mod text;
mod timings;
mod trace_comment;
pub mod upstreams;

pub use audit::{AuditFilter, AuditStore};
pub use error::StoreError;
pub use incidents::IncidentStore;
pub use inspect::InspectStore;
pub use migrations::Schema;
pub use queue::{
    End, FIRST_TOKEN, HeldLease, LeaseAsk, Leased, MAX_LEASED, MAX_LOST, NewExecution, QueueState,
    QueueStore, Reaped, Renewed, Signal, Start,
};
pub use schedules::ScheduleStore;
pub use settings::DatabaseSettings;
pub use upstreams::UpstreamStore;

use domain::{
    ApiKeyId, ContextId, ExecutionId, Principal, ScheduleId, TenantId, Time, ToolId,
    api_key::{ApiKey, SecretHash},
    context::{Context, ContextFilter, ContextItem, ContextPatch, NewContext, NewItem, SearchHit},
    execution::{Execution, ExecutionStatus},
    page::{Page, PageRequest},
    tenant::{Tenant, TenantStatus},
    tool::{Tool, ToolSpec},
};
use secrecy::ExposeSecret as _;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// What a store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A store of either kind.
pub type SharedStore = Arc<dyn Store>;

/// Opens the database that the URL names. Does not touch its schema: see [`Store::migrate`].
///
/// # Errors
/// [`StoreError::Internal`] when the URL is none; [`StoreError::Unavailable`] when SQLite's file cannot be opened. A
/// PostgreSQL server that is away is no error here.
pub async fn connect(settings: &DatabaseSettings) -> Result<SharedStore> {
    timings::TIMINGS.remember_from(settings.slow_statement);
    trace_comment::switch(settings.trace_comments);
    let url = settings.url.expose_secret();
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Arc::new(sqlite::connect(settings).await?)),
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::connect(settings)?)),
        _ => Err(sqlx::Error::Configuration("expected sqlite://… or postgres://…".into()).into()),
    }
}

/// Who a key belongs to, and until when that may be believed.
#[derive(Clone, Debug)]
pub struct KeyOwner {
    /// The caller.
    pub principal: Principal,
    /// The key's record.
    pub key: ApiKey,
    /// The tenant's status.
    pub tenant_status: TenantStatus,
}

/// Makes the same POST answer the same: what the first one made is found again under the caller's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's `Idempotency-Key`, 1 to 200 characters.
    pub key: String,
    /// SHA-256 of route and body: the same key with another body is refused.
    pub fingerprint: [u8; 32],
    /// Until when it is remembered.
    pub expires_at: Time,
}

/// What a POST with an idempotency key made, or had made before.
#[derive(Clone, Debug, PartialEq)]
pub enum Made<T> {
    /// Made now.
    New(T),
    /// Made by an earlier call with the same key and body; shown as it is now.
    Before(T),
}

impl<T> Made<T> {
    /// What was made, now or before.
    pub fn into_inner(self) -> T {
        match self {
            Self::New(made) | Self::Before(made) => made,
        }
    }
}

/// Credentials as they are kept: encrypted, with the name of the key that they were encrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCredentials {
    /// The credentials key's name.
    pub key_id: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// What an update does with a tool's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsChange {
    /// Leaves them.
    Keep,
    /// Removes them.
    Remove,
    /// Replaces them.
    Set(SealedCredentials),
}

/// Which executions a listing shows.
#[derive(Clone, Debug, Default)]
pub struct ExecutionFilter {
    /// Only this tool's, by name.
    pub tool: Option<String>,
    /// Only those that stand so.
    pub status: Option<ExecutionStatus>,
    /// Only those asked for at or after this time.
    pub created_since: Option<Time>,
    /// Only those asked for before this time.
    pub created_until: Option<Time>,
    /// Only those that this schedule asked for.
    pub schedule_id: Option<ScheduleId>,
}

/// How full the connection pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Open connections.
    pub open: u32,
    /// Those of them that wait for work.
    pub idle: usize,
    /// The most that there may be.
    pub max: u32,
}

/// What the database knows of the statements that it ran.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementStatistics {
    /// This kind of database keeps no count.
    NotKept,
    /// It would, but is not set up for it.
    NotReadable,
    /// The statements, the most expensive first.
    Read(Vec<StatementTotals>),
}

/// What a statement has cost since the database began to count.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementTotals {
    /// Its text without values and comments, cut to 120 characters.
    pub text: String,
    /// How often it ran.
    pub calls: f64,
    /// For how long, seconds.
    pub seconds: f64,
    /// How many rows it gave or touched.
    pub rows: f64,
}

/// The database.
///
/// Every method may answer [`StoreError::Unavailable`], and one that changes something [`StoreError::InDoubt`]; what else it may answer stands with it.
#[async_trait::async_trait]
pub trait Store:
    QueueStore + ScheduleStore + IncidentStore + AuditStore + UpstreamStore + InspectStore
{
    /// `sqlite` or `postgresql`, as in `db.system.name`.
    fn system(&self) -> &'static str;
    /// How full the pool is.
    fn pool(&self) -> PoolState;
    /// Brings the schema up to date; safe to run from several replicas at once. A newer schema is accepted.
    async fn migrate(&self) -> Result<()> {
        self.migrate_to(Schema::default()).await
    }
    /// The same, to a schema that a test may have planted faults in. [`StoreError::Migration`] says which one failed;
    /// it has changed nothing.
    async fn migrate_to(&self, schema: Schema) -> Result<()>;
    /// Asks the database for a sign of life.
    async fn ping(&self) -> Result<()>;
    /// The directory of this machine that the database lies in; `None` for a server's and for one in memory.
    fn directory(&self) -> Option<PathBuf>;
    /// The database's size, bytes.
    async fn size_bytes(&self) -> Result<u64>;
    /// The statements that the database spent the most time on, at most `limit`, as far as it keeps count of them.
    async fn statement_statistics(&self, limit: u32) -> Result<StatementStatistics>;
    /// Runs a statement that takes more than half a second and changes nothing: a fault that tests plant.
    async fn run_slow_statement(&self) -> Result<()>;
    /// Closes the pool.
    async fn close(&self);

    // --- tenants ---
    /// Makes a tenant. [`StoreError::Conflict`] when the name is taken.
    async fn create_tenant(&self, name: &str) -> Result<Tenant>;
    /// Every tenant, by name.
    async fn list_tenants(&self) -> Result<Vec<Tenant>>;
    /// A tenant by its name.
    async fn tenant_by_name(&self, name: &str) -> Result<Tenant>;
    /// Changes a tenant's status.
    async fn set_tenant_status(&self, name: &str, status: TenantStatus) -> Result<Tenant>;

    // --- API keys ---
    /// Keeps a key whose secret has this hash.
    async fn create_key(&self, key: &ApiKey, hash: &SecretHash) -> Result<()>;
    /// The owner of the key with this hash, revoked or not; `None` when there is none.
    async fn key_owner(&self, hash: &SecretHash) -> Result<Option<KeyOwner>>;
    /// Notes that a key was accepted; called at most once a minute a key.
    async fn touch_key(&self, id: ApiKeyId, at: Time) -> Result<()>;
    /// A tenant's keys, newest first, revoked ones too.
    async fn list_keys(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<ApiKey>>;
    /// One key.
    async fn get_key(&self, tenant: TenantId, id: ApiKeyId) -> Result<ApiKey>;
    /// Those of a tenant's keys that exist of these, in no order.
    async fn get_keys(&self, tenant: TenantId, ids: &[ApiKeyId]) -> Result<Vec<ApiKey>>;
    /// Revokes a key from `at` on (which may lie ahead: rotation with overlap). Revoking again never postpones.
    async fn revoke_key(&self, tenant: TenantId, id: ApiKeyId, at: Time) -> Result<ApiKey>;
    /// How many of a tenant's keys are active.
    async fn count_tenant_keys(&self, tenant: TenantId, now: Time) -> Result<i64>;
    /// Active keys by tenant name, for the gauge.
    async fn count_active_keys(&self, now: Time) -> Result<Vec<(String, i64)>>;

    // --- contexts ---
    /// Makes a context with its first items, in one transaction. [`StoreError::IdempotencyMismatch`] when the
    /// idempotency key was used with another body.
    async fn create_context(
        &self,
        tenant: TenantId,
        new: &NewContext,
        items: &[NewItem],
        idempotency: Option<&Idempotency>,
    ) -> Result<Made<Context>>;
    /// One context. What has expired is not found any more, here and everywhere below.
    async fn get_context(&self, tenant: TenantId, id: ContextId) -> Result<Context>;
    /// Contexts, last changed first (`updated_at`, then `id`, both descending).
    async fn list_contexts(
        &self,
        tenant: TenantId,
        filter: &ContextFilter,
        page: &PageRequest,
    ) -> Result<Page<Context>>;
    /// Changes a context. [`StoreError::VersionMismatch`] when it is not at `if_version`.
    async fn update_context(
        &self,
        tenant: TenantId,
        id: ContextId,
        patch: &ContextPatch,
        if_version: Option<i64>,
    ) -> Result<Context>;
    /// Deletes a context and its items. [`StoreError::VersionMismatch`] as above.
    async fn delete_context(&self, tenant: TenantId, id: ContextId, if_version: Option<i64>) -> Result<()>;
    /// Appends items, numbered without gaps also when calls race; the context may grow to `max_bytes` and no
    /// further ([`StoreError::TooLarge`]). [`StoreError::VersionMismatch`], [`StoreError::IdempotencyMismatch`].
    async fn append_items(
        &self,
        tenant: TenantId,
        id: ContextId,
        append: Append<'_>,
    ) -> Result<Made<Appended>>;
    /// A context and its items in order (or backwards), cut where their content would pass `max_bytes`, but never empty
    /// while there are more.
    async fn list_items(
        &self,
        tenant: TenantId,
        id: ContextId,
        page: &PageRequest,
        max_bytes: usize,
        newest_first: bool,
    ) -> Result<Contents>;
    /// Full-text search in items' content and contexts' names, best first, one hit a context (its best item), with a
    /// highlighted, HTML-escaped snippet. Any text is a valid query: words are ANDed, quotes make phrases.
    async fn search_contexts(
        &self,
        tenant: TenantId,
        query: &str,
        filter: &ContextFilter,
        limit: u32,
    ) -> Result<Vec<SearchHit>>;
    /// Deletes at most `limit` contexts that expired before `now`; says how many.
    async fn expire_contexts(&self, now: Time, limit: u32) -> Result<u64>;
    /// Active, unexpired contexts by tenant name, for the gauge.
    async fn count_active_contexts(&self, now: Time) -> Result<Vec<(String, i64)>>;

    // --- tools ---
    /// Registers a tool. [`StoreError::Conflict`] when the tenant has one of that name.
    async fn create_tool(
        &self,
        tenant: TenantId,
        spec: &ToolSpec,
        credentials: Option<&SealedCredentials>,
    ) -> Result<Tool>;
    /// One tool, by name.
    async fn get_tool(&self, tenant: TenantId, name: &str) -> Result<Tool>;
    /// One tool with its sealed credentials, to run it.
    async fn tool_to_run(&self, tenant: TenantId, name: &str) -> Result<(Tool, Option<SealedCredentials>)>;
    /// A tenant's tools, by name.
    async fn list_tools(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<Tool>>;
    /// The catalogue's revision: grows with every change of any tenant's tools.
    async fn catalogue_revision(&self) -> Result<i64>;
    /// Every tenant's tools that changed after `revision` (0: all), in order of revision, and those removed since;
    /// for the catalogue's watch.
    async fn tools_since(&self, revision: i64) -> Result<CatalogueChanges>;
    /// Replaces a tool's spec (the name stays). [`StoreError::VersionMismatch`] when it is not at `if_version`.
    async fn update_tool(
        &self,
        tenant: TenantId,
        spec: &ToolSpec,
        credentials: &CredentialsChange,
        if_version: Option<i64>,
    ) -> Result<Tool>;
    /// Removes a tool; its executions stay.
    async fn delete_tool(&self, tenant: TenantId, name: &str) -> Result<()>;
    /// Credentials sealed with another key than `key_id`, for re-keying: at most `limit`.
    async fn credentials_to_rekey(
        &self,
        key_id: &str,
        limit: u32,
    ) -> Result<Vec<(ToolId, SealedCredentials)>>;
    /// Replaces sealed credentials if they still are `old`; says whether it did.
    async fn rekey_credentials(
        &self,
        id: ToolId,
        old: &SealedCredentials,
        new: &SealedCredentials,
    ) -> Result<bool>;

    // --- executions ---
    /// One execution.
    async fn get_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<Execution>;
    /// Executions, newest first.
    async fn list_executions(
        &self,
        tenant: TenantId,
        filter: &ExecutionFilter,
        page: &PageRequest,
    ) -> Result<Page<Execution>>;
    /// Deletes at most `limit` final executions that ended before `before`.
    async fn purge_executions(&self, before: Time, limit: u32) -> Result<u64>;
    /// Deletes at most `limit` idempotency records that expired before `now`.
    async fn purge_idempotency(&self, now: Time, limit: u32) -> Result<u64>;

    // --- what one replica does for all ---
    /// Takes or renews the named lease for `ttl`; says whether `owner` holds it now. The holder must stop by itself
    /// when it could not renew in time.
    async fn hold_lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool>;
    /// Gives the named lease back, if `owner` holds it.
    async fn release_lease(&self, name: &str, owner: &str) -> Result<()>;
}

/// What an append is made from.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// The items.
    pub items: &'a [NewItem],
    /// The most bytes of content that the context may have afterwards.
    pub max_bytes: u64,
    /// The version that the context must be at.
    pub if_version: Option<i64>,
    /// Makes the call safe to repeat.
    pub idempotency: Option<&'a Idempotency>,
}

/// A context and a page of its items.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The context.
    pub context: Context,
    /// The items.
    pub items: Page<ContextItem>,
}

/// What an append made.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// The context afterwards.
    pub context: Context,
    /// The items as kept.
    pub items: Vec<ContextItem>,
}

/// What changed in the catalogue of tools.
#[derive(Clone, Debug, Default)]
pub struct CatalogueChanges {
    /// The revision that these changes lead to.
    pub revision: i64,
    /// Made or changed.
    pub upserted: Vec<Tool>,
    /// Removed.
    pub removed: Vec<(TenantId, ToolId)>,
}
