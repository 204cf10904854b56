//! Incidents.

use super::{SqlStore, Statement, Twice, check_version, commit, contexts, dialect, dialect::skip_locked};
use crate::clock::now;
use crate::store::{
    Result, StoreError,
    cursor::{Listing, NEWEST, page},
    incidents::{
        Explanation, ExplanationRow, IncidentChange, IncidentRow, IncidentStore, Known, KnownRow,
        NewIncident, News,
    },
    rows::{json, micros, read_all, read_found},
};
use domain::{
    ContextId, ExecutionId, IncidentId, JsonObject, TenantId, Time,
    context::ContextPatch,
    incident::{Incident, IncidentStatus},
    page::{Page, PageRequest},
};
use sqlx::Transaction;

macro_rules! columns {
    () => {
        "id, tenant_id, context_id, key_id, title, severity, status, alerts, started_at, resolved_at, version, \
         created_at, updated_at"
    };
}

const INSERT: Statement = Statement::new(
    "incidents.insert",
    concat!(
        "INSERT INTO incidents (id, tenant_id, group_hash, context_id, key_id, created_at, updated_at, heard_at,
         version, title, severity, status, alerts, known, started_at, resolved_at)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $6, 1, $7, $8, $9, $10, $11, $12, $13) RETURNING ",
        columns!()
    ),
);
const UPDATE: Statement = Statement::new(
    "incidents.update",
    concat!(
        "UPDATE incidents SET updated_at = $3, heard_at = $3, version = version + 1, title = $4, severity = $5, status = $6,
         alerts = $7, known = $8, started_at = $9, resolved_at = $10
         WHERE id = $1 AND tenant_id = $2 RETURNING ",
        columns!()
    ),
);
const GET: Statement = Statement::new(
    "incidents.get",
    concat!(
        "SELECT ",
        columns!(),
        ", known FROM incidents WHERE id = $1 AND tenant_id = $2"
    ),
);
const OF_GROUP: Statement = Statement::new(
    "incidents.of_group",
    concat!(
        "SELECT ",
        columns!(),
        ", known FROM incidents WHERE tenant_id = $1 AND group_hash = $2
         ORDER BY status = 'firing' DESC, created_at DESC, id DESC LIMIT 2"
    ),
);
/// Once in an hour is enough.
const HEARD: Statement = Statement::new(
    "incidents.heard",
    "UPDATE incidents SET heard_at = $3 WHERE id = $1 AND tenant_id = $2 AND heard_at < $4",
);
const UNHEARD: Statement = Statement::new(
    "incidents.unheard",
    concat!(
        "SELECT ",
        columns!(),
        ", known FROM incidents WHERE status = 'firing' AND heard_at < $1 ORDER BY heard_at LIMIT $2"
    ),
);
/// The listing, with the condition that names an index of its own.
macro_rules! list {
    ($status:literal) => {
        Statement::new(
            "incidents.list",
            concat!(
                "SELECT ",
                columns!(),
                " FROM incidents WHERE tenant_id = $1 AND (created_at, id) < ($2, $3) AND ",
                $status,
                " ORDER BY created_at DESC, id DESC LIMIT $4"
            ),
        )
    };
}
const LIST: Statement = list!("1 = 1");
const LIST_FIRING: Statement = list!("status = 'firing'");
const LIST_RESOLVED: Statement = list!("status = 'resolved'");
const COUNT_OPEN: Statement = Statement::new(
    "incidents.count_open",
    "SELECT t.name, COUNT(i.status) FROM tenants t LEFT JOIN incidents i ON i.tenant_id = t.id AND i.status = 'firing'
     GROUP BY t.name ORDER BY t.name",
);
const COUNT_OPEN_OF: Statement = Statement::new(
    "incidents.count_open_of",
    "SELECT COUNT(*) FROM incidents WHERE tenant_id = $1 AND status = 'firing'",
);
const PURGE: Statement = Statement::new(
    "incidents.purge",
    concat!(
        "WITH old AS MATERIALIZED
         (SELECT id FROM incidents WHERE resolved_at < $1 ORDER BY resolved_at LIMIT $2",
        skip_locked!(),
        ")
         DELETE FROM incidents WHERE id IN (SELECT id FROM old)"
    ),
);
const ASK: Statement = Statement::new(
    "incident_explanations.insert",
    "INSERT INTO incident_explanations (incident_id, position, tenant_id, alert, arguments, created_at, next_at)
     VALUES ($1, $2, $3, $4, $5, $6, $6)",
);
const CLAIM: Statement = Statement::new(
    "incident_explanations.claim",
    concat!(
        "WITH due AS MATERIALIZED
         (SELECT incident_id, position FROM incident_explanations
          WHERE next_at <= $1 ORDER BY next_at LIMIT $3",
        skip_locked!(),
        ")
         UPDATE incident_explanations SET next_at = $2
         WHERE (incident_id, position) IN (SELECT incident_id, position FROM due)
         RETURNING incident_id, position, tenant_id, alert, arguments, execution_id, created_at"
    ),
);
const PUT_OFF: Statement = Statement::new(
    "incident_explanations.put_off",
    "UPDATE incident_explanations SET next_at = $3, execution_id = COALESCE($4, execution_id)
     WHERE incident_id = $1 AND position = $2 AND next_at IS NOT NULL",
);
const END: Statement = Statement::new(
    "incident_explanations.end",
    "UPDATE incident_explanations SET next_at = NULL WHERE incident_id = $1 AND position = $2 AND next_at IS NOT NULL",
);
/// That something was found out is a change, too: who follows incidents looks again.
const TOUCH: Statement = Statement::new(
    "incidents.touch",
    concat!(
        "UPDATE incidents SET updated_at = $3, version = version + 1 WHERE id = $1 AND tenant_id = $2 RETURNING ",
        columns!()
    ),
);

type InTransaction<'a> = &'a mut Transaction<'static, dialect::Db>;

/// Tells an incident's context, if it is there and has room.
async fn tell(
    tx: InTransaction<'_>,
    tenant: TenantId,
    id: ContextId,
    metadata: Option<&JsonObject>,
    news: News<'_>,
) -> Result<()> {
    let mut context = match contexts::get_on(tx, tenant, id).await {
        Err(StoreError::NotFound) => return Ok(()),
        found => found?,
    };
    let size = u64::try_from(context.size_bytes + contexts::size(news.items)).unwrap_or(u64::MAX);
    if size <= news.max_bytes && !news.items.is_empty() {
        context = contexts::grow(tx, tenant, id, news.items).await?;
        contexts::put(tx, &context, news.items).await?;
    }
    let Some(set) = metadata else { return Ok(()) };
    context
        .metadata
        .extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    let patch = ContextPatch {
        metadata: Some(context.metadata),
        ..ContextPatch::default()
    };
    if patch.check().is_ok() {
        contexts::patch_in(tx, tenant, id, &patch).await?;
    }
    Ok(())
}

async fn open(store: &SqlStore, tenant: TenantId, new: &NewIncident<'_>) -> Result<Incident> {
    let context = contexts::first_version(tenant, new.context, new.items);
    let at = micros(now());
    let mut tx = store.begin().await?;
    let summary = new.summary;
    let call = INSERT
        .bind(new.id.0)
        .bind(tenant.0)
        .bind(new.group.to_vec())
        .bind(context.id.0)
        .bind(new.key_id.0)
        .bind(at);
    let call = call
        .bind(summary.title.clone())
        .bind(summary.severity.clone())
        .bind(summary.status.as_str())
        .bind(json(&summary.alerts)?)
        .bind(json(&new.alerts)?);
    let call = call
        .bind(micros(summary.started_at))
        .bind(summary.resolved_at.map(micros));
    let incident = read_found(call.first::<IncidentRow>(&mut *tx).await?)?;
    contexts::insert(&mut tx, &context, new.items).await?;
    for (position, (alert, arguments)) in (0_i32..).zip(new.explain) {
        let call = ASK.bind(new.id.0).bind(position).bind(tenant.0);
        let call = call.bind(alert.clone()).bind(json(arguments)?).bind(at);
        call.execute(&mut *tx).await?;
    }
    commit(tx).await?;
    Ok(incident)
}

async fn change(
    store: &SqlStore,
    tenant: TenantId,
    id: IncidentId,
    change: &IncidentChange<'_>,
) -> Result<Incident> {
    let summary = change.summary;
    let mut tx = store.begin().await?;
    let call = UPDATE.bind(id.0).bind(tenant.0).bind(micros(now()));
    let call = call
        .bind(summary.title.clone())
        .bind(summary.severity.clone())
        .bind(summary.status.as_str())
        .bind(json(&summary.alerts)?)
        .bind(json(&change.alerts)?);
    let call = call
        .bind(micros(summary.started_at))
        .bind(summary.resolved_at.map(micros));
    let incident = read_found(call.first::<IncidentRow>(&mut *tx).await?)?;
    check_version(incident.version, Some(change.version))?;
    tell(
        &mut tx,
        tenant,
        incident.context_id,
        Some(change.metadata),
        change.news,
    )
    .await?;
    commit(tx).await?;
    Ok(incident)
}

async fn end(store: &SqlStore, explanation: &Explanation, news: News<'_>) -> Result<Option<Incident>> {
    let (incident, tenant) = (explanation.incident, explanation.tenant_id);
    let mut tx = store.begin().await?;
    let call = END.bind(incident.0).bind(explanation.position);
    if call.execute(&mut *tx).await? == 0 {
        return Ok(None);
    }
    let touch = TOUCH.bind(incident.0).bind(tenant.0).bind(micros(now()));
    let incident = read_found(touch.first::<IncidentRow>(&mut *tx).await?)?;
    tell(&mut tx, tenant, incident.context_id, None, news).await?;
    commit(tx).await?;
    Ok(Some(incident))
}

#[async_trait::async_trait]
impl IncidentStore for SqlStore {
    // Done twice, the second time meets what the first one did: a conflict, or another version.
    async fn open_incident(&self, tenant: TenantId, new: &NewIncident<'_>) -> Result<Incident> {
        self.again(Twice::Safe, || open(self, tenant, new)).await
    }

    async fn change_incident(
        &self,
        tenant: TenantId,
        id: IncidentId,
        what: &IncidentChange<'_>,
    ) -> Result<Incident> {
        self.again(Twice::Safe, || change(self, tenant, id, what)).await
    }

    async fn incidents_of_group(&self, tenant: TenantId, group: &[u8; 32]) -> Result<Vec<Known>> {
        let call = OF_GROUP.bind(tenant.0).bind(group.to_vec());
        read_all(call.all::<KnownRow>(&self.read).await?)
    }

    async fn get_incident(&self, tenant: TenantId, id: IncidentId) -> Result<Known> {
        let call = GET.bind(id.0).bind(tenant.0);
        read_found(call.first::<KnownRow>(&self.read).await?)
    }

    async fn list_incidents(
        &self,
        tenant: TenantId,
        status: Option<IncidentStatus>,
        request: &PageRequest,
    ) -> Result<Page<Incident>> {
        let (time, id) = Listing::Incidents.place(request.cursor.as_deref(), NEWEST)?;
        let statement = match status {
            None => LIST,
            Some(IncidentStatus::Firing) => LIST_FIRING,
            Some(IncidentStatus::Resolved) => LIST_RESOLVED,
        };
        let call = statement
            .bind(tenant.0)
            .bind(time)
            .bind(id)
            .bind(i64::from(request.limit) + 1);
        let incidents = read_all(call.all::<IncidentRow>(&self.read).await?)?;
        Ok(page(incidents, request.limit, |last| {
            Listing::Incidents.after((micros(last.created_at), last.id.0))
        }))
    }

    async fn count_open_incidents(&self) -> Result<Vec<(String, i64)>> {
        COUNT_OPEN.call().all(&self.read).await
    }

    async fn count_open_of(&self, tenant: TenantId) -> Result<u64> {
        let counted = COUNT_OPEN_OF.bind(tenant.0).first::<(i64,)>(&self.read).await?;
        Ok(counted.map_or(0, |(open,)| open.unsigned_abs()))
    }

    async fn incident_heard(&self, tenant: TenantId, id: IncidentId, at: Time) -> Result<()> {
        let before = at - chrono::TimeDelta::hours(1);
        self.retrying(|| async {
            let call = HEARD
                .bind(id.0)
                .bind(tenant.0)
                .bind(micros(at))
                .bind(micros(before));
            call.execute(&self.write).await
        })
        .await
        .map(drop)
    }

    async fn unheard_incidents(&self, before: Time, limit: u32) -> Result<Vec<Known>> {
        let call = UNHEARD.bind(micros(before)).bind(i64::from(limit));
        read_all(call.all::<KnownRow>(&self.read).await?)
    }

    async fn purge_incidents(&self, before: Time, limit: u32) -> Result<u64> {
        self.retrying(|| async {
            let call = PURGE.bind(micros(before)).bind(i64::from(limit));
            call.execute(&self.write).await
        })
        .await
    }

    async fn claim_explanations(&self, now: Time, until: Time, limit: u32) -> Result<Vec<Explanation>> {
        self.retrying(|| async {
            let call = CLAIM.bind(micros(now)).bind(micros(until)).bind(i64::from(limit));
            read_all(call.all::<ExplanationRow>(&self.write).await?)
        })
        .await
    }

    async fn put_off_explanation(
        &self,
        explanation: &Explanation,
        run: Option<ExecutionId>,
        next_at: Time,
    ) -> Result<()> {
        self.again(Twice::Safe, || async {
            let call = PUT_OFF.bind(explanation.incident.0).bind(explanation.position);
            let call = call.bind(micros(next_at)).bind(run.map(|run| run.0));
            call.execute(&self.write).await?;
            Ok(())
        })
        .await
    }

    async fn end_explanation(&self, explanation: &Explanation, news: News<'_>) -> Result<Option<Incident>> {
        self.again(Twice::Safe, || end(self, explanation, news)).await
    }
}
