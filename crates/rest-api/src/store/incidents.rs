//! Incidents, as a part of the store.

use super::{
    Result,
    rows::{Row, from_json, from_word, optional_time, time},
};
use domain::{
    ApiKeyId, ContextId, ExecutionId, IncidentId, JsonObject, TenantId, Time,
    context::{NewContext, NewItem},
    incident::{Alert, Incident, IncidentStatus, Summary},
    page::{Page, PageRequest},
};
use sqlx::FromRow;
use uuid::Uuid;

/// An incident and all that is known of its alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The incident.
    pub incident: Incident,
    /// Its alerts.
    pub alerts: Vec<Alert>,
}

/// What a new incident is made from.
#[derive(Clone, Debug)]
pub struct NewIncident<'a> {
    /// Identifier.
    pub id: IncidentId,
    /// The group of alerts: one incident of it is open at a time.
    pub group: [u8; 32],
    /// The key that told of it.
    pub key_id: ApiKeyId,
    /// What its alerts come to.
    pub summary: &'a Summary,
    /// Its alerts.
    pub alerts: &'a [Alert],
    /// What is to be explained: the alert, and what `explain_alert` is called with.
    pub explain: &'a [(String, JsonObject)],
    /// The context that tells of it.
    pub context: &'a NewContext,
    /// The context's first items.
    pub items: &'a [NewItem],
}

/// What is told in an incident's context. A context that is gone, or has no room for it, is told nothing.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// What is appended.
    pub items: &'a [NewItem],
    /// The most bytes of content that the context may have afterwards.
    pub max_bytes: u64,
}

/// What changes of an incident.
#[derive(Clone, Debug)]
pub struct IncidentChange<'a> {
    /// The version that the change was made from.
    pub version: i64,
    /// What its alerts come to now.
    pub summary: &'a Summary,
    /// Its alerts.
    pub alerts: &'a [Alert],
    /// Members of the context's metadata that are set; the others stay.
    pub metadata: &'a JsonObject,
    /// What its context is told.
    pub news: News<'a>,
}

/// An explanation that is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The incident.
    pub incident: IncidentId,
    /// Its place among the incident's.
    pub position: i32,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The alert's name.
    pub alert: String,
    /// What the tool is called with.
    pub arguments: JsonObject,
    /// The run that looks for it, once there is one.
    pub execution_id: Option<ExecutionId>,
    /// When it was asked for.
    pub created_at: Time,
}

/// Incidents. [`Store`](super::Store)'s rules hold here, too.
#[async_trait::async_trait]
pub trait IncidentStore: Send + Sync + 'static {
    /// Opens an incident, makes its context and asks for its explanations, in one transaction.
    /// [`StoreError::Conflict`](super::StoreError::Conflict) when one of that group is open.
    async fn open_incident(&self, tenant: TenantId, new: &NewIncident<'_>) -> Result<Incident>;
    /// Changes an incident and tells its context, in one transaction.
    /// [`StoreError::VersionMismatch`](super::StoreError::VersionMismatch) when it is not at that version.
    async fn change_incident(
        &self,
        tenant: TenantId,
        id: IncidentId,
        change: &IncidentChange<'_>,
    ) -> Result<Incident>;
    /// The newest two incidents of a group: the open one, if there is one, then the newest.
    async fn incidents_of_group(&self, tenant: TenantId, group: &[u8; 32]) -> Result<Vec<Known>>;
    /// One incident.
    async fn get_incident(&self, tenant: TenantId, id: IncidentId) -> Result<Known>;
    /// Incidents, newest first.
    async fn list_incidents(
        &self,
        tenant: TenantId,
        status: Option<IncidentStatus>,
        page: &PageRequest,
    ) -> Result<Page<Incident>>;
    /// Open incidents by tenant name, for the gauge.
    async fn count_open_incidents(&self) -> Result<Vec<(String, i64)>>;
    /// How many of a tenant's are open.
    async fn count_open_of(&self, tenant: TenantId) -> Result<u64>;
    /// Notes that an incident was told of again, which changed nothing.
    async fn incident_heard(&self, tenant: TenantId, id: IncidentId, at: Time) -> Result<()>;
    /// At most `limit` open incidents of any tenant that nobody told of since `before`.
    async fn unheard_incidents(&self, before: Time, limit: u32) -> Result<Vec<Known>>;
    /// Deletes at most `limit` incidents that ended before `before`; their contexts stay. Says how many.
    async fn purge_incidents(&self, before: Time, limit: u32) -> Result<u64>;

    /// Gives at most `limit` explanations that are due at `now`, those that have waited longest first, to nobody else until
    /// `until`.
    async fn claim_explanations(&self, now: Time, until: Time, limit: u32) -> Result<Vec<Explanation>>;
    /// Has an explanation looked at again at `next_at`, and notes the run that looks for it.
    async fn put_off_explanation(
        &self,
        explanation: &Explanation,
        run: Option<ExecutionId>,
        next_at: Time,
    ) -> Result<()>;
    /// Ends the search for an explanation and tells the incident's context what was found, in one transaction; `None`
    /// when another did so before.
    async fn end_explanation(&self, explanation: &Explanation, news: News<'_>) -> Result<Option<Incident>>;
}

#[derive(FromRow)]
pub(crate) struct IncidentRow {
    id: Uuid,
    tenant_id: Uuid,
    context_id: Uuid,
    key_id: Uuid,
    title: String,
    severity: String,
    status: String,
    alerts: String,
    started_at: i64,
    resolved_at: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Row for IncidentRow {
    type Entity = Incident;
    fn read(self) -> Result<Incident> {
        let summary = Summary {
            title: self.title,
            severity: self.severity,
            status: from_word(&self.status)?,
            alerts: from_json(&self.alerts)?,
            started_at: time(self.started_at)?,
            resolved_at: optional_time(self.resolved_at)?,
        };
        Ok(Incident {
            id: IncidentId(self.id),
            tenant_id: TenantId(self.tenant_id),
            context_id: ContextId(self.context_id),
            key_id: ApiKeyId(self.key_id),
            summary,
            version: self.version,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct KnownRow {
    #[sqlx(flatten)]
    incident: IncidentRow,
    known: String,
}

impl Row for KnownRow {
    type Entity = Known;
    fn read(self) -> Result<Known> {
        Ok(Known {
            incident: self.incident.read()?,
            alerts: from_json(&self.known)?,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct ExplanationRow {
    incident_id: Uuid,
    position: i32,
    tenant_id: Uuid,
    alert: String,
    arguments: String,
    execution_id: Option<Uuid>,
    created_at: i64,
}

impl Row for ExplanationRow {
    type Entity = Explanation;
    fn read(self) -> Result<Explanation> {
        Ok(Explanation {
            incident: IncidentId(self.incident_id),
            position: self.position,
            tenant_id: TenantId(self.tenant_id),
            alert: self.alert,
            arguments: from_json(&self.arguments)?,
            execution_id: self.execution_id.map(ExecutionId),
            created_at: time(self.created_at)?,
        })
    }
}
