//! Rows as both databases give them, and what they mean.

mod tools;

use super::{KeyOwner, Leased, Reaped, Result, StoreError};
use crate::clock::now;
use chrono::DateTime;
use domain::{
    ApiKeyId, ContextId, ExecutionId, JsonObject, Principal, ScheduleId, Scope, Scopes, TenantId, Time,
    ToolId, ToolRules,
    api_key::ApiKey,
    context::{Context, ContextItem, ContextStatus},
    execution::{Attempt, Execution, ExecutionError, ExecutionStatus},
    tenant::{Tenant, TenantStatus},
    tool::built_in,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::FromRow;
pub(crate) use tools::{ToolRow, ToolToRunRow};
use uuid::Uuid;

/// A time as it is stored.
pub(crate) fn micros(time: Time) -> i64 {
    time.timestamp_micros()
}

/// A value as it is stored.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Internal(sqlx::Error::Encode(Box::new(e))))
}

pub(crate) fn time(micros: i64) -> Result<Time> {
    let range = || StoreError::Internal(sqlx::Error::Decode("a time out of range".into()));
    DateTime::from_timestamp_micros(micros).ok_or_else(range)
}

pub(crate) fn optional_time(micros: Option<i64>) -> Result<Option<Time>> {
    micros.map(time).transpose()
}

pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(StoreError::decode)
}

pub(crate) fn from_word<T>(word: &str) -> Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    word.parse().map_err(StoreError::decode)
}

/// A row that stands for something of the domain.
pub(crate) trait Row {
    /// What it stands for.
    type Entity;
    /// Reads it. [`StoreError::Internal`] when another version wrote what this one does not understand.
    fn read(self) -> Result<Self::Entity>;
}

/// Reads many.
pub(crate) fn read_all<R: Row>(rows: Vec<R>) -> Result<Vec<R::Entity>> {
    rows.into_iter().map(R::read).collect()
}

/// Reads those that can be read; the others are told to the log by their `id`.
pub(crate) fn read_known<R: Row>(rows: Vec<R>, id: impl Fn(&R) -> Uuid) -> Vec<R::Entity> {
    let read = |row: R| {
        let id = id(&row);
        let read = row.read();
        read.inspect_err(|error| tracing::error!(row = %id, %error, "a row that cannot be read is left out"))
            .ok()
    };
    rows.into_iter().filter_map(read).collect()
}

/// Reads one that must be there.
pub(crate) fn read_found<R: Row>(row: Option<R>) -> Result<R::Entity> {
    row.ok_or(StoreError::NotFound)?.read()
}

#[derive(FromRow)]
pub(crate) struct TenantRow {
    id: Uuid,
    name: String,
    status: String,
    created_at: i64,
}

impl Row for TenantRow {
    type Entity = Tenant;
    fn read(self) -> Result<Tenant> {
        let status = tenant_status(&self.status);
        Ok(Tenant {
            id: TenantId(self.id),
            name: self.name,
            status,
            created_at: time(self.created_at)?,
        })
    }
}

/// A status that this version does not know is one that keeps the tenant out.
fn tenant_status(word: &str) -> TenantStatus {
    if word == TenantStatus::Active.as_str() {
        TenantStatus::Active
    } else {
        TenantStatus::Suspended
    }
}

#[derive(FromRow)]
pub(crate) struct KeyRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    prefix: String,
    scopes: String,
    tools: Option<String>,
    created_at: i64,
    last_used_at: Option<i64>,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

/// A newer version may have given scopes that this one does not know; they grant nothing here.
fn scopes(text: &str) -> Scopes {
    let known = text.split(',').filter_map(|word| word.parse().ok());
    known.collect::<Vec<Scope>>().into()
}

impl Row for KeyRow {
    type Entity = ApiKey;
    fn read(self) -> Result<ApiKey> {
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            tenant_id: TenantId(self.tenant_id),
            name: self.name,
            prefix: self.prefix,
            scopes: scopes(&self.scopes),
            tools: self
                .tools
                .as_deref()
                .map_or_else(|| Ok(ToolRules::unlimited()), from_json)?,
            created_at: time(self.created_at)?,
            last_used_at: optional_time(self.last_used_at)?,
            expires_at: optional_time(self.expires_at)?,
            revoked_at: optional_time(self.revoked_at)?,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct KeyOwnerRow {
    #[sqlx(flatten)]
    key: KeyRow,
    tenant: String,
    tenant_status: String,
}

impl Row for KeyOwnerRow {
    type Entity = KeyOwner;
    fn read(self) -> Result<KeyOwner> {
        let key = self.key.read()?;
        let principal = Principal {
            tenant_id: key.tenant_id,
            tenant: self.tenant,
            key_id: key.id,
            key_name: key.name.clone(),
            scopes: key.scopes.clone(),
            tools: key.tools.clone(),
        };
        Ok(KeyOwner {
            principal,
            key,
            tenant_status: tenant_status(&self.tenant_status),
        })
    }
}

#[derive(FromRow)]
pub(crate) struct ContextRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    kind: String,
    agent_id: Option<String>,
    session_id: Option<String>,
    metadata: String,
    status: String,
    version: i64,
    item_count: i64,
    size_bytes: i64,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
}

impl Row for ContextRow {
    type Entity = Context;
    fn read(self) -> Result<Context> {
        Ok(Context {
            id: ContextId(self.id),
            tenant_id: TenantId(self.tenant_id),
            name: self.name,
            kind: self.kind,
            agent_id: self.agent_id,
            session_id: self.session_id,
            metadata: from_json(&self.metadata)?,
            status: from_word::<ContextStatus>(&self.status)?,
            version: self.version,
            item_count: self.item_count,
            size_bytes: self.size_bytes,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
            expires_at: optional_time(self.expires_at)?,
        })
    }
}

/// A context that a search found, with the text that matched.
#[derive(FromRow)]
pub(crate) struct HitRow {
    #[sqlx(flatten)]
    pub(crate) context: ContextRow,
    pub(crate) sequence: i64,
    pub(crate) score: f64,
    pub(crate) matched: String,
}

#[derive(FromRow)]
pub(crate) struct ItemRow {
    pub(crate) sequence: i64,
    pub(crate) role: String,
    pub(crate) content: String,
    pub(crate) metadata: String,
    pub(crate) created_at: i64,
}

impl Row for ItemRow {
    type Entity = ContextItem;
    fn read(self) -> Result<ContextItem> {
        Ok(ContextItem {
            sequence: self.sequence,
            role: self.role,
            content: self.content,
            metadata: from_json(&self.metadata)?,
            created_at: time(self.created_at)?,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct ExecutionRow {
    id: Uuid,
    tenant_id: Uuid,
    /// That of a registered tool that still exists.
    tool_id: Option<Uuid>,
    asked_tool_id: Uuid,
    tool: String,
    key_id: Uuid,
    status: String,
    arguments: String,
    result: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    attempts: i32,
    priority: i32,
    run_at: Option<i64>,
    deadline: Option<i64>,
    cancel_requested: bool,
    progress: Option<String>,
    schedule_id: Option<Uuid>,
    digest: String,
    approved_by: Option<Uuid>,
    trace_id: Option<String>,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl Row for ExecutionRow {
    type Entity = Execution;
    fn read(self) -> Result<Execution> {
        let status = from_word::<ExecutionStatus>(&self.status)?;
        let error = self.error_code.map(|code| ExecutionError {
            code,
            message: self.error_message.unwrap_or_default(),
        });
        Ok(Execution {
            id: ExecutionId(self.id),
            tenant_id: TenantId(self.tenant_id),
            tool_id: self.tool_id.map(ToolId).or_else(|| {
                let own = ToolId(self.asked_tool_id);
                built_in::is_id_of(own, &self.tool).then_some(own)
            }),
            tool: self.tool,
            key_id: ApiKeyId(self.key_id),
            status,
            arguments: from_json::<JsonObject>(&self.arguments)?,
            result: self.result.as_deref().map(from_json).transpose()?,
            error,
            attempts: self.attempts,
            priority: self.priority,
            run_at: optional_time(self.run_at.filter(|_| status == ExecutionStatus::Queued))?,
            deadline: optional_time(self.deadline)?,
            cancel_requested: self.cancel_requested,
            progress: self.progress,
            schedule_id: self.schedule_id.map(ScheduleId),
            digest: self.digest,
            approved_by: self.approved_by.map(ApiKeyId),
            trace_id: self.trace_id,
            created_at: time(self.created_at)?,
            started_at: optional_time(self.started_at)?,
            finished_at: optional_time(self.finished_at)?,
        })
    }
}

/// An attempt; nothing in it where an execution has none.
#[derive(FromRow)]
pub(crate) struct AttemptRow {
    number: Option<i64>,
    owner: Option<String>,
    outcome: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl Row for AttemptRow {
    type Entity = Option<Attempt>;
    fn read(self) -> Result<Self::Entity> {
        let (Some(number), Some(started_at), Some(finished_at)) =
            (self.number, self.started_at, self.finished_at)
        else {
            return Ok(None);
        };
        let error = self.error_code.map(|code| ExecutionError {
            code,
            message: self.error_message.unwrap_or_default(),
        });
        Ok(Some(Attempt {
            number: i32::try_from(number).map_err(StoreError::decode)?,
            owner: self.owner.unwrap_or_default(),
            outcome: self.outcome.unwrap_or_default(),
            error,
            started_at: time(started_at)?,
            finished_at: time(finished_at)?,
        }))
    }
}

#[derive(FromRow)]
pub(crate) struct ReapedRow {
    id: Uuid,
    tool: String,
    status: String,
    created_at: i64,
    error_code: Option<String>,
}

impl Row for ReapedRow {
    type Entity = Reaped;
    fn read(self) -> Result<Reaped> {
        Ok(Reaped {
            id: ExecutionId(self.id),
            tool: self.tool,
            status: from_word(&self.status)?,
            created_at: time(self.created_at)?,
            error_code: self.error_code,
        })
    }
}

/// A row that was leased, without its tool.
#[derive(FromRow)]
pub(crate) struct LeasedRow {
    #[sqlx(flatten)]
    execution: ExecutionRow,
    fencing_token: i64,
    traceparent: Option<String>,
    max_attempts: i32,
    idempotent: bool,
    tenant: String,
    /// None where there is no such key.
    key_accepted_until: Option<i64>,
    key_name: Option<String>,
    key_scopes: Option<String>,
}

impl LeasedRow {
    pub(crate) fn tenant_id(&self) -> Uuid {
        self.execution.tenant_id
    }

    pub(crate) fn tool_id(&self) -> Option<ToolId> {
        self.execution.tool_id.map(ToolId)
    }

    pub(crate) fn held(&self) -> (ExecutionId, i64) {
        (ExecutionId(self.execution.id), self.fencing_token)
    }
}

impl Row for LeasedRow {
    type Entity = Leased;
    fn read(self) -> Result<Leased> {
        let run_at = optional_time(self.execution.run_at)?;
        let execution = self.execution.read()?;
        Ok(Leased {
            due: run_at.unwrap_or(execution.created_at),
            execution,
            token: self.fencing_token,
            tenant: self.tenant,
            tool: None,
            credentials: None,
            key_name: self.key_name.unwrap_or_default(),
            key_scopes: scopes(&self.key_scopes.unwrap_or_default()),
            key_active: self.key_accepted_until.is_some_and(|until| until > micros(now())),
            traceparent: self.traceparent,
            max_attempts: self.max_attempts,
            idempotent: self.idempotent,
        })
    }
}
