//! Incidents: alerts that are told make them, change them and end them; what was found is looked up (see [`explain`]) and
//! told in their contexts.

mod cited;
mod explain;
mod postmortem;
mod text;

pub(crate) use explain::look;

use super::Api;
use crate::{
    changes::Changes,
    clock::now,
    error::{Error, Found, Result},
    metrics,
    store::{
        StoreError,
        incidents::{IncidentChange, Known, NewIncident, News},
    },
};
use domain::{
    IncidentId, JsonObject, Principal, Scope,
    context::{NewContext, NewItem},
    incident::{Incident, IncidentStatus, Merged, Notification, Summary, merge},
    page::{Page, PageRequest},
};
use serde_json::{Value, json};
use std::{fmt::Write as _, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How often a change is tried that meets another one: replicas are told the same at the same time.
const ATTEMPTS: u32 = 10;
/// The first pause between them.
const PAUSE: Duration = Duration::from_millis(5);
/// The most incidents of a tenant that are open.
const MAX_OPEN: u64 = 1000;
/// An open incident that was not told of for so long is over: its group may be another one since a route was edited, and
/// Alertmanager repeats what still fires each few hours.
const UNHEARD: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// Who speaks in the product's own items. Not `system`: most of their words are others'.
const ROLE: &str = "tool";
/// The type of an incident's context.
const CONTEXT_TYPE: &str = "incident";

/// What a notification came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An incident was opened.
    Opened,
    /// An open one changed.
    Changed,
    /// An open one is over.
    Resolved,
    /// All of it was known.
    Repeated,
    /// No incident is open, and it opens none: it tells of an end, or is an older word that came late.
    Ignored,
}

impl Heard {
    /// The word that stands in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::Resolved => "resolved",
            Self::Repeated => "repeated",
            Self::Ignored => "ignored",
        }
    }
}

/// Lets few postmortems be drafted at a time: each reads a good part of a context.
pub struct Drafts(Arc<Semaphore>);

impl Default for Drafts {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(postmortem::AT_ONCE)))
    }
}

/// How it is known that an incident is over.
#[derive(Clone, Copy)]
enum Ending<'a> {
    /// Its alerts tell.
    Told,
    /// A key says so.
    ByHand(&'a Principal),
    /// Nothing was told of it for long.
    Unheard,
}

impl Ending<'_> {
    fn why(self, merged: &Merged) -> String {
        let why = match self {
            Self::ByHand(caller) => {
                let key = text::code(&caller.key_name, 100);
                return format!("It was closed with the key {key}.");
            }
            Self::Unheard => "Nothing was heard of it for a week.",
            Self::Told if merged.again => {
                "Nobody told of its end, but its alerts began anew: what fires now is another incident."
            }
            Self::Told => "None of its alerts fires any more.",
        };
        why.to_owned()
    }
}

/// The answer to a notification.
#[derive(Clone, Debug)]
pub struct Received {
    /// The incident that it is about; the last one of its group where it is [`Heard::Ignored`], if there was one.
    pub incident: Option<Incident>,
    /// What it came to.
    pub heard: Heard,
}

impl Api {
    /// Takes what is told of a group of alerts. Told twice, it changes nothing. Needs `alerts:receive`.
    pub async fn receive_alerts(&self, caller: &Principal, told: &Notification) -> Result<Received> {
        caller.require(Scope::AlertsReceive)?;
        told.check()?;
        for attempt in 0..ATTEMPTS {
            match self.hear(caller, told).await {
                Err(Error::Conflict(_) | Error::VersionMismatch { .. }) => {
                    tokio::time::sleep(PAUSE * (1 << attempt.min(6))).await;
                }
                Err(error) => return Err(error),
                // What was open is over, and what is told makes another one.
                Ok(None) => {}
                Ok(Some(received)) => {
                    metrics::INCIDENT_NOTIFICATIONS.inc([received.heard.as_str()]);
                    return Ok(received);
                }
            }
        }
        Err(Error::Unavailable { what: "the incident" })
    }

    /// `None`: it ended an incident, and is to be heard again.
    async fn hear(&self, caller: &Principal, told: &Notification) -> Result<Option<Received>> {
        let group = told.group();
        let mut known = self
            .0
            .store
            .incidents_of_group(caller.tenant_id, &group)
            .await?
            .into_iter();
        let first = known.next();
        let is_open = |known: &Known| known.incident.summary.status == IncidentStatus::Firing;
        let (open, past) = match first {
            Some(open) if is_open(&open) => (Some(open), known.next()),
            past => (None, past),
        };
        let alerts = |known: &Option<Known>| known.as_ref().map_or(Vec::new(), |known| known.alerts.clone());
        let merged = merge(&alerts(&open), &alerts(&past), told, now());
        let received = match open {
            None if merged.started.is_empty() => Ok(Received {
                incident: past.map(|past| past.incident),
                heard: Heard::Ignored,
            }),
            None => self.open(caller, group, &merged).await,
            Some(open) if !merged.changes() && !merged.over => {
                let (tenant, id) = (caller.tenant_id, open.incident.id);
                self.0.store.incident_heard(tenant, id, now()).await?;
                Ok(Received {
                    incident: Some(open.incident),
                    heard: Heard::Repeated,
                })
            }
            Some(open) => self.change(&open.incident, &merged, Ending::Told).await,
        };
        Ok(Some(received?).filter(|_| !merged.again))
    }

    async fn open(&self, caller: &Principal, group: [u8; 32], merged: &Merged) -> Result<Received> {
        let open = self.0.store.count_open_of(caller.tenant_id).await?;
        if open >= MAX_OPEN {
            return Err(Error::TooMany {
                what: "open incidents",
                limit: MAX_OPEN,
            });
        }
        let id = IncidentId::new();
        let summary = Summary::of(&merged.alerts, IncidentStatus::Firing, now());
        let explain = explain::wanted(caller, &merged.alerts);
        let context = NewContext {
            name: summary.title.clone(),
            kind: CONTEXT_TYPE.to_owned(),
            metadata: metadata(id, &summary),
            ..NewContext::default()
        };
        let mut text = text::alerts("Firing", &merged.started);
        text.push_str(&text::alerts("Ended before it was told of", &merged.ended));
        let _ = writeln!(text, "{}", explain::announced(caller, &explain));
        let items = [self.item("opened", &text, id)];
        let new = NewIncident {
            id,
            group,
            key_id: caller.key_id,
            summary: &summary,
            alerts: &merged.alerts,
            explain: &explain,
            context: &context,
            items: &items,
        };
        let opened = self.0.store.open_incident(caller.tenant_id, &new).await;
        let incident = opened.or_missing("incident")?;
        metrics::CONTEXTS_CREATED.inc([caller.tenant.as_str(), CONTEXT_TYPE]);
        self.tell(&incident);
        self.0.looks.notify_one();
        let (alerts, context) = (merged.alerts.len(), incident.context_id);
        tracing::info!(incident_id = %id, context_id = %context, alerts, "incident opened");
        Ok(Received {
            incident: Some(incident),
            heard: Heard::Opened,
        })
    }

    async fn change(&self, open: &Incident, merged: &Merged, ending: Ending<'_>) -> Result<Received> {
        let (status, heard) = if merged.over {
            (IncidentStatus::Resolved, Heard::Resolved)
        } else {
            (IncidentStatus::Firing, Heard::Changed)
        };
        let mut summary = Summary::of(&merged.alerts, status, now());
        // An alert that fires again began later than it did at first.
        summary.started_at = summary.started_at.min(open.summary.started_at);
        let mut text = text::alerts("Firing", &merged.started);
        text.push_str(&text::alerts("Ended", &merged.ended));
        if merged.over {
            text.push_str(&over(open, &summary, &ending.why(merged)));
        }
        let items = [self.item(heard.as_str(), &text, open.id)];
        let metadata = metadata(open.id, &summary);
        let change = IncidentChange {
            version: open.version,
            summary: &summary,
            alerts: &merged.alerts,
            metadata: &metadata,
            news: self.news(&items),
        };
        let changed = self
            .0
            .store
            .change_incident(open.tenant_id, open.id, &change)
            .await;
        let incident = changed.or_missing("incident")?;
        self.tell(&incident);
        let (fire, ended) = (merged.started.len(), merged.ended.len());
        let status = summary.status.as_str();
        tracing::info!(incident_id = %incident.id, status, fire, ended, "incident changed");
        Ok(Received {
            incident: Some(incident),
            heard,
        })
    }

    /// Closes an incident whose end nobody tells, since its alerts were silenced or are gone. Closing again changes
    /// nothing. Needs `contexts:write`.
    pub async fn resolve_incident(&self, caller: &Principal, id: IncidentId) -> Result<Incident> {
        caller.require(Scope::ContextsWrite)?;
        for _ in 0..ATTEMPTS {
            let found = self.0.store.get_incident(caller.tenant_id, id).await;
            let known = found.or_missing("incident")?;
            if known.incident.summary.status == IncidentStatus::Resolved {
                return Ok(known.incident);
            }
            let merged = all_ended(known.alerts);
            match self
                .change(&known.incident, &merged, Ending::ByHand(caller))
                .await
            {
                Err(Error::VersionMismatch { .. }) => {}
                done => return Ok(done?.incident.unwrap_or(known.incident)),
            }
        }
        Err(Error::Unavailable { what: "the incident" })
    }

    /// Closes at most `limit` incidents of which nothing was heard for long. What cannot be closed now is tried again.
    async fn end_unheard(&self, limit: u32) -> Result<u64> {
        let mut ended = 0;
        for known in self.0.store.unheard_incidents(now() - UNHEARD, limit).await? {
            let merged = all_ended(known.alerts);
            match self.change(&known.incident, &merged, Ending::Unheard).await {
                Ok(_) => ended += 1,
                // It was told of just now.
                Err(Error::VersionMismatch { .. }) => {}
                Err(error) => {
                    let incident = known.incident.id;
                    tracing::warn!(incident_id = %incident, %error, "incident could not be closed now");
                }
            }
        }
        Ok(ended)
    }

    /// One incident. Needs `contexts:read`, as all that follow.
    pub async fn get_incident(&self, caller: &Principal, id: IncidentId) -> Result<Incident> {
        caller.require(Scope::ContextsRead)?;
        let found = self.0.store.get_incident(caller.tenant_id, id).await;
        Ok(found.or_missing("incident")?.incident)
    }

    /// Incidents, newest first.
    pub async fn list_incidents(
        &self,
        caller: &Principal,
        status: Option<IncidentStatus>,
        page: &PageRequest,
    ) -> Result<Page<Incident>> {
        caller.require(Scope::ContextsRead)?;
        let store = &self.0.store;
        Ok(store.list_incidents(caller.tenant_id, status, page).await?)
    }

    /// What an incident came to, as a draft in Markdown.
    pub async fn postmortem(&self, caller: &Principal, id: IncidentId) -> Result<String> {
        caller.require(Scope::ContextsRead)?;
        let found = self.0.store.get_incident(caller.tenant_id, id).await;
        let known = found.or_missing("incident")?;
        let permit = Arc::clone(&self.0.drafts.0).acquire_owned().await;
        let permit = permit.map_err(|closed| Error::Internal(closed.into()))?;
        let told = self.told(caller, known.incident.context_id).await?;
        let draft = tokio::task::spawn_blocking(move || {
            let draft = postmortem::draft(&known, &told, now());
            // Not before: it stays in memory even where nobody waits for it any more.
            drop((told, permit));
            draft
        });
        draft.await.map_err(|error| Error::Internal(error.into()))
    }

    /// Everything that its context holds, up to a limit; nothing when it is gone.
    async fn told(&self, caller: &Principal, context: domain::ContextId) -> Result<postmortem::Told> {
        let mut told = postmortem::Told::default();
        let mut page = PageRequest::new(Some(postmortem::PAGE), None);
        loop {
            let (store, max) = (&self.0.store, self.0.limits.page_bytes);
            let read = store
                .list_items(caller.tenant_id, context, &page, max, false)
                .await;
            let read = match read {
                Err(StoreError::NotFound) => return Ok(told),
                read => read?,
            };
            let all = usize::try_from(read.context.item_count).unwrap_or_default();
            page.cursor = read.items.next_cursor;
            if !told.take(read.items.items, all) || page.cursor.is_none() {
                return Ok(told);
            }
        }
    }

    /// Wakes whoever listens when a tenant's incidents change.
    pub fn changes(&self) -> &Changes {
        &self.0.changes
    }

    /// An incident changed, and so did its context.
    fn tell(&self, incident: &Incident) {
        self.0.changes.tell(incident.context_id);
        self.0.changes.tell_incidents(incident.tenant_id);
    }

    fn news<'a>(&self, items: &'a [NewItem]) -> News<'a> {
        News {
            items,
            max_bytes: self.0.limits.context_bytes,
        }
    }

    /// An item of the product's own.
    fn item(&self, event: &str, content: &str, id: IncidentId) -> NewItem {
        let content = format!("{}\n\n{content}", text::DATA);
        NewItem {
            role: ROLE.to_owned(),
            content: text::cut(&content, self.0.limits.item_bytes).to_owned(),
            metadata: object(json!({"event": event, "incident_id": id})),
        }
    }
}

fn metadata(id: IncidentId, summary: &Summary) -> JsonObject {
    object(json!({
        "incident_id": id,
        "alerts": summary.alerts,
        "severity": summary.severity,
        "status": summary.status,
        "started_at": summary.started_at,
        "resolved_at": summary.resolved_at,
    }))
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

fn all_ended(mut alerts: Vec<domain::incident::Alert>) -> Merged {
    let now = now();
    let mut ended = Vec::new();
    for alert in alerts.iter_mut().filter(|alert| alert.fires()) {
        *alert = alert.clone().ended(now, now);
        ended.push(alert.clone());
    }
    Merged {
        alerts,
        started: Vec::new(),
        ended,
        over: true,
        again: false,
    }
}

fn over(open: &Incident, summary: &Summary, why: &str) -> String {
    let end = summary.resolved_at.unwrap_or(open.updated_at);
    let took = text::duration(summary.started_at, end);
    format!(
        "The incident is over, after {took}. {why} A draft of its postmortem: \
         `/api/v1/incidents/{}/postmortem`, `incident://{}/postmortem`.\n",
        open.id, open.id
    )
}
