//! For tests of these tools: a source that answers what it is told to and remembers what it was asked.

use crate::{
    outcome::Failure,
    progress,
    sources::{Kind, Settings, Sources, Who},
    tools::built_in::{BuiltIn, Desk, Entry},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use domain::{Scope, Scopes, Time};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// One request that a fake got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET`, `POST`, …
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// The query's parameters and a form's, decoded.
    pub(crate) params: Vec<(String, String)>,
    /// The headers, by names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body as text.
    pub(crate) body: String,
}

impl Asked {
    /// The first parameter of this name; empty without one.
    pub(crate) fn param(&self, name: &str) -> &str {
        let mut found = self.params.iter().filter(|(key, _)| key == name);
        found.next().map_or("", |(_, value)| value)
    }

    /// All parameters of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self.params.iter().filter(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).collect()
    }
}

type Respond = Arc<dyn Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync>;

#[derive(Default)]
struct Memory {
    routes: Vec<(String, Respond)>,
    asked: Vec<Asked>,
}

/// A fake source. What it has no route for is 404. Ends with the test.
#[derive(Clone)]
pub(crate) struct Fake {
    /// Where it is.
    pub(crate) url: String,
    memory: Arc<Mutex<Memory>>,
    /// How many answers were given up because whoever waited for them went away.
    left: Arc<watch::Sender<usize>>,
}

impl Fake {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            memory: Arc::default(),
            left: Arc::new(watch::Sender::new(0)),
        };
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Answers requests for `path` with this JSON; a path that ends with `*` stands for all that begin so. The latest
    /// route wins.
    #[expect(clippy::needless_pass_by_value, reason = "made for the call")]
    pub(crate) fn on(&self, path: &str, body: Value) -> &Self {
        self.on_status(path, 200, body.to_string())
    }

    /// Answers with this status and body.
    pub(crate) fn on_status(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) -> &Self {
        let body = body.into();
        self.route(path, move |_| Some((status, body.clone())))
    }

    /// Answers with what `respond` makes of the request.
    pub(crate) fn on_fn(
        &self,
        path: &str,
        respond: impl Fn(&Asked) -> Value + Send + Sync + 'static,
    ) -> &Self {
        self.route(path, move |asked| {
            Some((200, respond(asked).to_string().into_bytes()))
        })
    }

    /// Never answers.
    pub(crate) fn hang(&self, path: &str) -> &Self {
        self.route(path, |_| None)
    }

    fn route(
        &self,
        path: &str,
        respond: impl Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static,
    ) -> &Self {
        self.memory().routes.push((path.to_owned(), Arc::new(respond)));
        self
    }

    /// What it was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.memory().asked.clone()
    }

    /// The last thing that it was asked.
    pub(crate) fn last(&self) -> Asked {
        self.asked().pop().expect("it was asked something")
    }

    /// Waits until it was asked anything.
    pub(crate) async fn is_asked(&self) {
        within(async {
            while self.memory().asked.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits until somebody who was waiting for an answer has closed his connection.
    pub(crate) async fn is_left(&self) {
        let mut left = self.left.subscribe();
        within(async {
            let _ = left.wait_for(|left| *left > 0).await;
        })
        .await;
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("within 20 s")
}

/// Counts an answer that nobody waits for any more: the server drops it with the connection.
struct Unfinished(Option<Arc<watch::Sender<usize>>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(left) = self.0.take() {
            left.send_modify(|left| *left += 1);
        }
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let asked = read(request).await;
    let respond = {
        let mut memory = fake.memory();
        memory.asked.push(asked.clone());
        let fits = |(path, _): &&(String, Respond)| match path.strip_suffix('*') {
            Some(start) => asked.path.starts_with(start),
            None => asked.path == *path,
        };
        let route = memory.routes.iter().rev().find(fits);
        route.map(|(_, respond)| Arc::clone(respond))
    };
    let mut unfinished = Unfinished(Some(Arc::clone(&fake.left)));
    let (status, body) = match respond {
        None => (404, b"404 page not found\n".to_vec()),
        Some(respond) => match respond(&asked) {
            Some(answer) => answer,
            None => pending().await,
        },
    };
    unfinished.0 = None;
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    response.body(Body::from(body)).unwrap()
}

async fn read(request: Request) -> Asked {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap_or_default();
    let decode = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect::<Vec<_>>();
    let mut params = decode(head.uri.query().unwrap_or_default().as_bytes());
    let is_form =
        |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded");
    if head.headers.get("content-type").is_some_and(is_form) {
        params.extend(decode(&body));
    }
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    Asked {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        params,
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// Sources by name, kind and address. The platform sees everything in them; the tenant `acme` what has
/// `tenant_id="acme"`. A request may take 2 s, an answer be 1 MiB.
pub(crate) fn sources<const N: usize>(sources: [(&str, Kind, &str); N]) -> Sources {
    Sources::new(&settings(sources), "tests").unwrap()
}

/// The settings behind [`sources`], for tests that change them.
pub(crate) fn settings<const N: usize>(sources: [(&str, Kind, &str); N]) -> Settings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = |(name, kind, url): (&str, Kind, &str)| {
        let source = json!({
            "kind": kind,
            "url": url,
            "timeout": "2s",
            "max_response_bytes": "1MiB",
            "grants": { "acme": { "matchers": { "tenant_id": "acme" } } },
        });
        (name.to_owned(), serde_json::from_value(source).unwrap())
    };
    sources.into_iter().map(source).collect()
}

/// When calls in tests begin: 2026-11-02T12:00:00Z.
pub(crate) fn now() -> Time {
    "2026-11-02T12:00:00Z".parse().unwrap()
}

/// Calls a tool as the platform's own key: checked by its schema's type, run at [`now`].
pub(crate) async fn call<B: BuiltIn>(sources: &Sources, arguments: Value) -> Result<Value, Failure> {
    call_as::<B>(sources, "platform", Scopes::all(), arguments, now()).await
}

/// Calls a tool as a tenant's key that may do all but see the platform.
pub(crate) async fn call_for<B: BuiltIn>(
    sources: &Sources,
    tenant: &str,
    arguments: Value,
) -> Result<Value, Failure> {
    call_as::<B>(sources, tenant, Scopes::of_a_tenant(), arguments, now()).await
}

/// Calls a tool as whoever it may be, at a time that real sources know.
pub(crate) async fn call_as<B: BuiltIn>(
    sources: &Sources,
    tenant: &str,
    scopes: Scopes,
    arguments: Value,
    now: Time,
) -> Result<Value, Failure> {
    let (_, entry) = Entry::of::<B>();
    run_at(&entry, sources, tenant, &scopes, arguments, now).await
}

/// Runs what stands in the registry.
pub(crate) async fn run(
    entry: &Entry,
    sources: &Sources,
    tenant: &str,
    scopes: &Scopes,
    arguments: Value,
) -> Result<Value, Failure> {
    run_at(entry, sources, tenant, scopes, arguments, now()).await
}

async fn run_at(
    entry: &Entry,
    sources: &Sources,
    tenant: &str,
    scopes: &Scopes,
    arguments: Value,
    now: Time,
) -> Result<Value, Failure> {
    debug_assert!(scopes.contains(Scope::ObserveRead));
    let (progress, _heard) = progress::channel();
    let desk = Desk {
        sources,
        who: Who {
            tenant,
            key_name: "test-key",
            scopes,
        },
        progress: &progress,
        now,
    };
    let Value::Object(arguments) = arguments else {
        panic!("arguments are an object")
    };
    entry.run(&desk, arguments).await
}
