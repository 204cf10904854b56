//! Who may see the admin pages, and how they answer.

use crate::{ADMIN_REQUESTS_REFUSED, Common, Problem, same_secret};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Refusals come in floods when somebody guesses; this often one is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Unless a page says otherwise: it loads nothing and runs nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the guard knows.
#[derive(Clone)]
pub(super) struct Guard {
    common: Arc<Common>,
    logged: Arc<Mutex<Logged>>,
}

/// When a refusal was last logged, and how many were not since.
#[derive(Default)]
struct Logged {
    last: Option<Instant>,
    since: u64,
}

impl Guard {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            logged: Arc::default(),
        }
    }

    fn admit(&self, request: &Request) -> Result<(), (&'static str, Problem)> {
        let Some(expected) = &self.common.admin_token else {
            let detail = "the admin pages are closed: no admin token is configured (set ADMIN_TOKEN)";
            return Err(("closed", Problem::forbidden("admin_closed", detail)));
        };
        match token(request.headers()) {
            Some(given) if same_secret(&given, expected) => {}
            Some(_) => {
                return Err((
                    "wrong_token",
                    unauthorized("this is not the admin token of this service"),
                ));
            }
            None => return Err(("no_token", unauthorized("the admin token is needed"))),
        }
        if is_anothers(request.method(), request.uri(), request.headers()) {
            let detail = "a page of another site asked the browser for this; browsers may be used on these pages only \
                          from these pages";
            return Err(("cross_site", Problem::forbidden("cross_site", detail)));
        }
        Ok(())
    }

    fn log(&self, reason: &str, path: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if logged.last.is_some_and(|last| now - last < LOG_EVERY) {
            logged.since += 1;
            return;
        }
        let unlogged = std::mem::take(&mut logged.since);
        logged.last = Some(now);
        drop(logged);
        tracing::warn!(reason, path, unlogged, "admin access refused");
    }
}

/// Lets only the holder of the admin token through.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.admit(&request) {
        Ok(()) => next.run(request).await,
        Err((reason, problem)) => {
            ADMIN_REQUESTS_REFUSED.inc([reason]);
            guard.log(reason, request.uri().path());
            let mut refusal = problem.into_response();
            if refusal.status() == StatusCode::UNAUTHORIZED {
                ask(refusal.headers_mut());
            }
            refusal
        }
    };
    let defaults = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in defaults {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn unauthorized(why: &str) -> Problem {
    Problem::unauthorized(format!(
        "{why}: ADMIN_TOKEN, as Bearer or as the password of HTTP Basic"
    ))
}

/// Makes browsers ask. On a line of its own: Chromium takes no challenge from a line that holds two.
fn ask(headers: &mut HeaderMap) {
    headers.append(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"admin\""),
    );
}

/// The token of a Bearer header, or the password of a Basic one: browsers cannot send Bearer.
fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether a page of another site made the browser send this, with the password that the browser remembers. A link from
/// elsewhere may lead to a page that only shows something; nothing else may come from there: no change, and no profile,
/// which costs work.
fn is_anothers(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Programs send neither.
    let foreign = match (
        header(&HeaderName::from_static("sec-fetch-site")),
        header(&ORIGIN),
    ) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != header(&HOST),
        (None, None) => false,
    };
    let followed_link = header(&HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
    let profile = uri.path().starts_with("/debug/pprof/") && uri.path() != "/debug/pprof/";
    foreign && !(*method == Method::GET && followed_link && !profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_pages_come_from_elsewhere() {
        let navigate = ("sec-fetch-mode", "navigate");
        let no_cors = ("sec-fetch-mode", "no-cors");
        let cross = ("sec-fetch-site", "cross-site");
        let same = ("sec-fetch-site", "same-origin");
        for (method, path, headers, refused) in [
            ("GET", "/debug/", &[][..], false),
            ("PUT", "/debug/heap", &[], false),
            ("PUT", "/debug/heap", &[same], false),
            ("PUT", "/debug/heap", &[cross], true),
            ("PUT", "/debug/heap", &[("sec-fetch-site", "same-site")], true),
            ("PUT", "/debug/heap", &[("origin", "http://here:1")], false),
            ("PUT", "/debug/heap", &[("origin", "http://there")], true),
            ("PUT", "/debug/heap", &[("origin", "null")], true),
            ("GET", "/debug/traces", &[cross, navigate], false),
            ("GET", "/debug/traces", &[cross, no_cors], true),
            ("GET", "/debug/pprof/", &[cross, navigate], false),
            ("GET", "/debug/pprof/profile", &[cross, navigate], true),
            (
                "GET",
                "/debug/pprof/profile",
                &[("sec-fetch-site", "none"), navigate],
                false,
            ),
        ] {
            let mut map = HeaderMap::new();
            map.insert(HOST, HeaderValue::from_static("here:1"));
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            let method: Method = method.parse().expect("a method");
            let uri: Uri = path.parse().expect("a path");
            assert_eq!(
                is_anothers(&method, &uri, &map),
                refused,
                "{method} {path} {headers:?}"
            );
        }
    }

    #[tokio::test]
    async fn browsers_are_asked_on_a_line_of_its_own() {
        let common = Common {
            admin_token: Some("open".into()),
            ..Common::default()
        };
        let guard_of = Guard::new(Arc::new(common));
        let router = axum::Router::new()
            .route("/", axum::routing::get(async || "shown"))
            .layer(axum::middleware::from_fn_with_state(guard_of, guard));
        let request = Request::new(axum::body::Body::empty());
        let Ok(response) = tower::ServiceExt::oneshot(router, request).await;
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Bearer", "Basic realm=\"admin\""]);
    }
}
