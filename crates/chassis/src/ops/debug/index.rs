//! `/debug/` and `/debug/pprof/`: which pages there are, and what is switched on.

use crate::Host;
use axum::{
    Router,
    body::Body,
    extract::State,
    response::{Html, Redirect},
    routing::get,
};
use http::{Method, Request, StatusCode};
use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::profiles::{cpu, heap};
use tower::ServiceExt;

/// A page of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its path.
    pub path: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
}

/// What every service may have; what is not routed is not listed.
const PAGES: &[Page] = &[
    Page {
        path: "/debug/traces",
        shows: "the last slow, failed and debugged requests",
    },
    Page {
        path: "/debug/pprof/profile?seconds=10&format=svg",
        shows: "what keeps the CPU busy in the next ten seconds, as a flame graph",
    },
    Page {
        path: "/debug/pprof/profile",
        shows: "the same for go tool pprof; ?seconds=10, &frequency=100",
    },
    Page {
        path: "/debug/pprof/heap",
        shows: "memory in use, by the code that allocated it; ?seconds=N: what changed meanwhile",
    },
    Page {
        path: "/debug/pprof/allocs",
        shows: "all that was allocated since profiling began, freed or not; ?seconds=N: meanwhile",
    },
    Page {
        path: "/debug/heap",
        shows: "the heap in numbers; PUT {\"profiling\": true} or false switches its profiles",
    },
    Page {
        path: "/debug/pprof/tasks?debug=1",
        shows: "live tasks by where they were spawned; ?debug=2: each by itself",
    },
    Page {
        path: "/debug/pprof/tasks",
        shows: "the same for go tool pprof",
    },
    Page {
        path: "/debug/pprof/goroutine",
        shows: "the same, under Go's name for them",
    },
    Page {
        path: "/admin/log-level",
        shows: "the log level; PUT {\"level\": \"debug\", \"ttl\": \"10m\"} changes it",
    },
];

#[derive(Clone)]
struct Index {
    host: Host,
    /// The pages themselves, to see which there are.
    shown: Router,
    pages: Arc<[Page]>,
}

/// The pages, and the index to them. `own` are those of the service.
pub(in crate::ops) fn with_index(host: &Host, shown: Router, own: &[Page]) -> Router {
    let index = Index {
        host: host.clone(),
        shown: shown.clone(),
        pages: [PAGES, own].concat().into(),
    };
    Router::new()
        .route("/debug", get(async || Redirect::permanent("/debug/")))
        .route("/debug/", get(all))
        .route("/debug/pprof", get(async || Redirect::permanent("/debug/pprof/")))
        .route("/debug/pprof/", get(profiles))
        .with_state(index)
        .merge(shown)
}

async fn all(State(index): State<Index>) -> Html<String> {
    Html(index.page("").await)
}

async fn profiles(State(index): State<Index>) -> Html<String> {
    Html(index.page("/debug/pprof/").await)
}

impl Index {
    async fn page(&self, below: &str) -> String {
        let service = self.host.telemetry.service();
        let mut rows = String::new();
        for Page { path, shows } in self.pages.iter().filter(|page| page.path.starts_with(below)) {
            if self.has(path).await {
                let (link, shows) = (escape(path), escape(shows));
                let _ = write!(rows, "<tr><td><a href=\"{link}\">{link}</a><td>{shows}");
            }
        }
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{service}: debugging</title><style>{STYLE}</style>\
             <h1>{service}</h1><p>{}<table>{rows}</table>",
            escape(&self.state())
        )
    }

    /// Whether the page is routed. A method that no page takes is refused where there is one, and unknown where not;
    /// either way the page isn't made.
    async fn has(&self, path: &str) -> bool {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::TRACE;
        *request.uri_mut() = http::Uri::from_static("/");
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        let Ok(response) = self.shown.clone().oneshot(request).await;
        response.status() == StatusCode::METHOD_NOT_ALLOWED
    }

    fn state(&self) -> String {
        let heap = heap::statistics();
        let heap = match heap.profiling_since {
            Some(since) if heap.profiling => {
                let ago = since.elapsed().unwrap_or_default().as_secs();
                format!("on, for {}", humantime::format_duration(Duration::from_secs(ago)))
            }
            _ => "off".to_owned(),
        };
        let cpu = cpu::running_until().map_or_else(
            || "none".to_owned(),
            |until| {
                let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                format!("one is being taken, for another {left} s")
            },
        );
        let level = self.host.telemetry.log_level();
        format!("Heap profiling: {heap}. CPU profile: {cpu}. Log level: {level}.")
    }
}

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em}td{padding:.2em 1.5em .2em 0}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
