//! Tells a server of the older era that a call is given up. One of the newer learns it from the connection.

use super::{
    Asked, Server,
    peers::Era,
    wire::{self, Message},
};
use crate::tools::{Departed, http::HttpTool};
use domain::tool::Credentials;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request in flight: dropped before it was disarmed, its server is told.
pub(super) struct Cancel(Option<Flight>);

struct Flight {
    http: Arc<HttpTool>,
    tenant: String,
    name: String,
    url: String,
    credentials: Option<Credentials>,
    era: Era,
    id: u64,
    departed: Departed,
}

impl Cancel {
    pub(super) fn new(
        http: &Arc<HttpTool>,
        server: &Server<'_>,
        era: &Era,
        message: &Message<'_>,
        departed: &Departed,
    ) -> Self {
        let legacy = message.id.filter(|_| matches!(era, Era::Legacy { .. }));
        Self(legacy.map(|id| Flight {
            http: Arc::clone(http),
            tenant: server.tenant.to_owned(),
            name: server.name.to_owned(),
            url: server.url.to_owned(),
            credentials: server.credentials.cloned(),
            era: era.clone(),
            id,
            departed: departed.clone(),
        }))
    }

    /// It was answered.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Some(flight) = self.0.take().filter(|flight| flight.departed.is_raised()) else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            let told = telemetry::span::in_context(flight.tell(), telemetry::context::current());
            telemetry::tasks::spawn("cancel at an MCP server", told);
        }
    }
}

impl Flight {
    async fn tell(self) {
        let server = Server {
            tenant: &self.tenant,
            name: &self.name,
            url: &self.url,
            credentials: self.credentials.as_ref(),
        };
        let params = json!({"requestId": self.id, "reason": "the caller left, or its time is over"});
        let message = Message::notification("notifications/cancelled", params);
        let Ok(hop) = wire::hop(&server, &self.era, &message, &telemetry::context::current()) else {
            return;
        };
        let asked = Asked::plain();
        let sent = self.http.exchange(hop, &asked.departed, asked.runs_twice, |_| ());
        // Whether it arrives changes nothing here.
        let _ = tokio::time::timeout(PATIENCE, sent).await;
    }
}
