//! The `http_*` series, with handles kept for each method, route and status.

use crate::metrics::{
    CounterHandle, GaugeHandle, HistogramHandle,
    own::{HTTP_REQUEST_DURATION, HTTP_REQUESTS, HTTP_REQUESTS_IN_FLIGHT},
};
use http::{Method, StatusCode};
use parking_lot::RwLock;
use std::{collections::HashMap, sync::OnceLock, time::Duration};

/// The route of a request that matched none.
pub(super) const UNMATCHED: &str = "unmatched";

/// A method as a label: one of the known ones, or `other`, for a client can make up as many as it likes.
pub(super) fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT",
    ];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("other")
}

#[derive(Clone, Debug)]
struct Handles {
    requests: CounterHandle,
    duration: HistogramHandle,
}

type ByRoute = HashMap<String, Handles>;

/// Handles to the series of one server. Methods, routes and statuses are bounded, so this is.
#[derive(Debug, Default)]
pub(super) struct Series {
    answered: RwLock<HashMap<(&'static str, StatusCode), ByRoute>>,
    in_flight: OnceLock<GaugeHandle>,
}

impl Series {
    pub(super) fn in_flight(&self) -> &GaugeHandle {
        self.in_flight.get_or_init(|| HTTP_REQUESTS_IN_FLIGHT.with([]))
    }

    pub(super) fn answered(&self, method: &'static str, route: &str, status: StatusCode, took: Duration) {
        let handles = self
            .answered
            .read()
            .get(&(method, status))
            .and_then(|routes| routes.get(route))
            .cloned();
        let handles = handles.unwrap_or_else(|| self.register(method, route, status));
        handles.requests.inc();
        handles.duration.record(took);
    }

    fn register(&self, method: &'static str, route: &str, status: StatusCode) -> Handles {
        let labels = [method, route, status.as_str()];
        let handles = Handles {
            requests: HTTP_REQUESTS.with(labels),
            duration: HTTP_REQUEST_DURATION.with(labels),
        };
        let mut answered = self.answered.write();
        answered
            .entry((method, status))
            .or_default()
            .insert(route.to_owned(), handles.clone());
        handles
    }
}
