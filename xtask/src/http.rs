//! The few HTTP requests this program makes itself, all to this host.

use serde_json::Value;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The status of a GET, `None` when nobody answered.
pub(crate) fn status(url: &str, bearer: Option<&str>) -> Option<u16> {
    let mut request = agent().get(url);
    if let Some(token) = bearer {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.call().ok().map(|response| response.status().as_u16())
}

/// What a GET was answered with, `None` when nobody answered, or not in JSON.
pub(crate) fn json(url: &str) -> Option<Value> {
    agent().get(url).call().ok()?.body_mut().read_json().ok()
}

fn agent() -> ureq::Agent {
    // No proxy: the environment's would be asked for addresses on this host.
    ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}
