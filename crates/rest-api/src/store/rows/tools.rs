//! Tools as they are kept.

use super::{Row, from_json, from_word, time};
use crate::store::{Result, SealedCredentials, StoreError};
use domain::{
    TenantId, ToolId,
    tool::{Tool, ToolSpec},
};
use sqlx::FromRow;
use uuid::Uuid;

#[derive(FromRow)]
pub(crate) struct ToolRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    description: String,
    method: String,
    url: String,
    headers: String,
    input_schema: String,
    timeout_ms: i64,
    read_only: bool,
    idempotent: bool,
    destructive: bool,
    options: String,
    has_credentials: bool,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl ToolRow {
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Row for ToolRow {
    type Entity = Tool;
    fn read(self) -> Result<Tool> {
        let spec = ToolSpec {
            name: self.name,
            description: self.description,
            method: from_word(&self.method)?,
            url: self.url,
            headers: from_json(&self.headers)?,
            input_schema: from_json(&self.input_schema)?,
            timeout_ms: u32::try_from(self.timeout_ms).map_err(StoreError::decode)?,
            read_only: self.read_only,
            idempotent: self.idempotent,
            destructive: self.destructive,
            options: from_json(&self.options)?,
        };
        Ok(Tool {
            id: ToolId(self.id),
            tenant_id: TenantId(self.tenant_id),
            spec,
            has_credentials: self.has_credentials,
            version: self.version,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct ToolToRunRow {
    #[sqlx(flatten)]
    tool: ToolRow,
    credentials_key_id: Option<String>,
    credentials: Option<Vec<u8>>,
}

impl ToolToRunRow {
    pub(crate) fn id(&self) -> ToolId {
        ToolId(self.tool.id)
    }
}

impl Row for ToolToRunRow {
    type Entity = (Tool, Option<SealedCredentials>);
    fn read(self) -> Result<Self::Entity> {
        let credentials = self.credentials_key_id.zip(self.credentials);
        let credentials = credentials.map(|(key_id, sealed)| SealedCredentials { key_id, sealed });
        Ok((self.tool.read()?, credentials))
    }
}
