//! The live tasks of the runtime.

use super::pprof::Outcome;
use crate::{Host, Problem, extract::Query};
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use telemetry::tasks::{Snapshot, snapshot};

/// Under its own name, and under the one by which Go's tools and people's fingers know it.
const PATHS: [&str; 2] = ["/debug/pprof/tasks", "/debug/pprof/goroutine"];

pub(super) fn routes(_host: &Host) -> Router {
    let dumps = dump::Dumps::default();
    PATHS.into_iter().fold(Router::new(), |router, path| {
        router.route(path, get(show).with_state(dumps.clone()))
    })
}

/// What is asked for, by Go's parameter or by ours.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    debug: Detail,
    format: Option<Format>,
    dump: Dump,
}

/// Go's `debug` parameter.
#[derive(Clone, Copy, Default, Deserialize)]
enum Detail {
    #[default]
    #[serde(rename = "0")]
    Profile,
    #[serde(rename = "1")]
    Places,
    #[serde(rename = "2")]
    Each,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Pprof,
    Text,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum Dump {
    #[default]
    #[serde(rename = "0")]
    No,
    #[serde(rename = "1")]
    Yes,
}

async fn show(State(dumps): State<dump::Dumps>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let outcome = Outcome::of("tasks");
    outcome.note(answer(&dumps, &asked).await)
}

async fn answer(dumps: &dump::Dumps, asked: &Asked) -> Result<Response, Problem> {
    if matches!(asked.dump, Dump::Yes) {
        return Ok(text(dumps.take().await?));
    }
    // Ten thousand tasks take milliseconds to sort and write: not on a thread that serves requests.
    let page: fn(&Snapshot) -> Response = match (asked.debug, asked.format) {
        (Detail::Profile, None | Some(Format::Pprof)) => |tasks| profile(tasks.profile()),
        (Detail::Each, None | Some(Format::Text)) => |tasks| text(tasks.text_of_each()),
        (Detail::Places, None) | (Detail::Profile | Detail::Places, Some(Format::Text)) => {
            |tasks| text(tasks.text())
        }
        (Detail::Places | Detail::Each, Some(Format::Pprof)) => {
            let detail = "debug: expected 0 (or nothing) with format=pprof; 1 and 2 are text";
            return Err(Problem::bad_request("invalid_query", detail));
        }
    };
    tokio::task::spawn_blocking(move || page(&snapshot()))
        .await
        .map_err(|_| Problem::internal())
}

fn profile(gzip: Vec<u8>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, r#"attachment; filename="tasks.pb.gz""#),
    ];
    (headers, gzip).into_response()
}

fn text(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// What tasks wait for, as stacks: in a build that can tell.
#[cfg(all(feature = "taskdump", tokio_unstable))]
mod dump {
    use crate::Problem;
    use std::{fmt::Write as _, sync::Arc, time::Duration};
    use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

    /// All workers meet for it, and one that is blocked does not come.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Takes one dump at a time.
    #[derive(Clone)]
    pub(super) struct Dumps(Arc<Semaphore>);

    impl Default for Dumps {
        fn default() -> Self {
            Self(Arc::new(Semaphore::new(1)))
        }
    }

    impl Dumps {
        pub(super) async fn take(&self) -> Result<String, Problem> {
            let Ok(only) = self.0.clone().try_acquire_owned() else {
                return Err(
                    Problem::conflict("profile_running", "a task dump is being taken").retry_after(PATIENCE)
                );
            };
            let runtime = Handle::current();
            let Ok(dump) = timeout(PATIENCE, runtime.dump()).await else {
                let detail =
                    "the workers did not meet within 2 s: one of them is blocked; debug=1 tells by what";
                return Err(Problem::unavailable("runtime_blocked", detail));
            };
            let write = move || {
                // Until all names are found, which takes longer than the dump.
                let _only = only;
                let mut page = String::new();
                for task in dump.tasks().iter() {
                    let _ = writeln!(page, "task {}:\n{}\n", task.id(), task.trace());
                }
                page
            };
            let page = tokio::task::spawn_blocking(write).await;
            page.map_err(|_| Problem::internal())
        }
    }
}

/// What tasks wait for cannot be told by a build with stable Tokio only.
#[cfg(not(all(feature = "taskdump", tokio_unstable)))]
mod dump {
    use crate::Problem;
    use http::StatusCode;

    #[derive(Clone, Default)]
    pub(super) struct Dumps(());

    impl Dumps {
        pub(super) async fn take(&self) -> Result<String, Problem> {
            let detail = "this build cannot dump the stacks of tasks; build one that can with RUSTFLAGS=\"--cfg \
                          tokio_unstable -C force-frame-pointers=yes\" cargo build --release --features chassis/taskdump; \
                          debug=1 tells of the tasks in any build";
            Err(Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                "taskdump_not_built",
                detail,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    async fn get(query: &str) -> (StatusCode, String, Vec<u8>) {
        let router = PATHS.into_iter().fold(Router::new(), |router, path| {
            router.route(path, axum::routing::get(show).with_state(dump::Dumps::default()))
        });
        let request = Request::get(format!("{}{query}", PATHS[1]))
            .body(axum::body::Body::empty())
            .expect("a good request");
        let response = router.oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let content_type = headers[CONTENT_TYPE].to_str().expect("ASCII").to_owned();
        (status, content_type, body.expect("a body in memory").into())
    }

    #[tokio::test]
    async fn each_form_is_answered_and_what_cannot_be_is_refused() {
        for query in ["", "?debug=0", "?format=pprof"] {
            let (status, content_type, body) = get(query).await;
            assert_eq!(
                (status.as_u16(), content_type.as_str()),
                (200, "application/octet-stream")
            );
            assert_eq!(body[..2], [0x1f, 0x8b], "{query}: gzip");
        }
        for query in ["?debug=1", "?debug=2", "?format=text", "?debug=1&format=text"] {
            let (status, content_type, body) = get(query).await;
            assert_eq!(
                (status.as_u16(), content_type.as_str()),
                (200, "text/plain; charset=utf-8")
            );
            let text = String::from_utf8(body).expect("text");
            assert!(
                text.starts_with("tasks: total ") && text.contains("spawned by libraries: "),
                "{text}"
            );
        }
        for (query, allowed) in [
            ("?debug=3", "`1`"),
            ("?format=svg", "`pprof`"),
            ("?seconds=1", "`debug`"),
            ("?debug=2&format=pprof", "0"),
        ] {
            let (status, _, body) = get(query).await;
            let text = String::from_utf8(body).expect("text");
            assert!(
                status == 400 && text.contains(r#""code":"invalid_query""#),
                "{query}: {text}"
            );
            assert!(text.contains(allowed), "{query}: it says what is allowed: {text}");
        }
    }

    #[cfg(not(all(feature = "taskdump", tokio_unstable)))]
    #[tokio::test]
    async fn a_build_without_dumps_says_which_one_has_them() {
        let (status, _, body) = get("?dump=1").await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
        let text = String::from_utf8(body).expect("text");
        assert!(text.contains("--features chassis/taskdump"), "{text}");
    }
}
