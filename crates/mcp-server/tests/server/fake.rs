//! rest-api's gRPC, from memory: two tenants' keys, their contexts, a catalogue that changes, and three tools.

mod contexts;
mod executions;

use domain::{ApiKeyId, Principal, Scopes, TenantId, api_key::Secret};
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use proto::v1::{
    self, catalogue_event::Event, catalogue_server, contexts_server, executions_server, identity_server,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream};
use tonic::{Request, Response, Status, metadata::MetadataMap, metadata::MetadataValue};

pub(crate) const SERVICE_TOKEN: &str = "between-services";

#[derive(Clone)]
pub(crate) struct Fake(Arc<State>);

pub(crate) struct State {
    keys: Mutex<BTreeMap<String, Principal>>,
    contexts: Mutex<BTreeMap<String, (v1::Context, Vec<v1::ContextItem>)>>,
    tools: Mutex<Vec<v1::Tool>>,
    executions: Mutex<executions::Executions>,
    /// Some execution changed.
    moved: watch::Sender<()>,
    events: broadcast::Sender<v1::CatalogueEvent>,
    down: watch::Sender<bool>,
    /// Some context changed.
    changed: watch::Sender<()>,
    /// Open watches of contexts.
    pub(crate) watches: AtomicUsize,
    pub(crate) asked_who: AtomicUsize,
    /// How many runs of the tool that never ends have begun.
    pub(crate) run_begun: AtomicUsize,
    pub(crate) run_dropped: AtomicBool,
    pub(crate) traceparent: Mutex<Option<String>>,
}

impl std::ops::Deref for Fake {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn refused(code: tonic::Code, stable: &'static str, message: &str) -> Status {
    let mut status = Status::new(code, message);
    status
        .metadata_mut()
        .insert(proto::CODE_KEY, MetadataValue::from_static(stable));
    status
}

fn not_found() -> Status {
    refused(tonic::Code::NotFound, "not_found", "no such context")
}

impl Fake {
    /// Serves on a free port, from below the range that connections and other tests are given: none of those takes it
    /// while this one is stopped.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let fake = Self(Arc::new(State {
            keys: Mutex::default(),
            contexts: Mutex::default(),
            tools: Mutex::default(),
            executions: Mutex::default(),
            moved: watch::Sender::new(()),
            events: broadcast::Sender::new(64),
            down: watch::Sender::new(false),
            changed: watch::Sender::new(()),
            watches: AtomicUsize::new(0),
            asked_who: AtomicUsize::new(0),
            run_begun: AtomicUsize::new(0),
            run_dropped: AtomicBool::new(false),
            traceparent: Mutex::default(),
        }));
        let first = std::process::id() as usize * 50;
        loop {
            let next = first + TAKEN.fetch_add(1, Ordering::SeqCst);
            let port = u16::try_from(10_000 + next % 10_000).unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if let Ok(listener) = tokio::net::TcpListener::bind(address).await {
                fake.serve_on(listener);
                return (fake, address);
            }
        }
    }

    /// Serves again, where it did before.
    pub(crate) async fn serve(&self, address: SocketAddr) {
        self.serve_on(tokio::net::TcpListener::bind(address).await.unwrap());
    }

    fn serve_on(&self, listener: tokio::net::TcpListener) {
        self.down.send_replace(false);
        let mut down = self.down.subscribe();
        let server = tonic::transport::Server::builder()
            .add_service(identity_server::IdentityServer::new(self.clone()))
            .add_service(contexts_server::ContextsServer::new(self.clone()))
            .add_service(catalogue_server::CatalogueServer::new(self.clone()))
            .add_service(executions_server::ExecutionsServer::new(self.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                let _ = down.wait_for(|down| *down).await;
            });
        tokio::spawn(server);
    }

    /// Ends every stream and stops listening.
    pub(crate) async fn stop(&self, address: SocketAddr) {
        self.down.send_replace(true);
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn key(&self, tenant: TenantId, scopes: &str) -> String {
        self.limited_key(tenant, scopes, domain::ToolRules::unlimited())
    }

    pub(crate) fn limited_key(&self, tenant: TenantId, scopes: &str, tools: domain::ToolRules) -> String {
        let secret = Secret::generate().expose().to_owned();
        let scopes: Scopes = scopes.parse().unwrap();
        let name = format!("tenant-{}", &tenant.to_string()[24..]);
        let principal = Principal {
            tenant_id: tenant,
            tenant: name,
            key_id: ApiKeyId::new(),
            key_name: "k".into(),
            scopes,
            tools,
        };
        self.keys.lock().insert(secret.clone(), principal);
        secret
    }

    pub(crate) fn revoke(&self, key: &str) {
        self.keys.lock().remove(key);
    }

    pub(crate) fn register(&self, tenant: TenantId, name: &str) {
        self.register_with(tenant, name, |tool| tool.read_only = true);
    }

    pub(crate) fn register_with(&self, tenant: TenantId, name: &str, change: impl FnOnce(&mut v1::Tool)) {
        let mut tool = v1::Tool {
            id: domain::ToolId::new().to_string(),
            tenant_id: tenant.to_string(),
            name: name.into(),
            description: format!("the tool {name}"),
            input_schema_json: r#"{"type":"object"}"#.into(),
            version: 1,
            ..Default::default()
        };
        change(&mut tool);
        self.tools.lock().push(tool.clone());
        let _ = self.events.send(v1::CatalogueEvent {
            event: Some(Event::Upserted(tool)),
        });
    }

    fn caller(&self, metadata: &MetadataMap) -> Result<Principal, Status> {
        let secret = chassis::grpc::bearer(metadata).unwrap_or_default();
        let known = self.keys.lock().get(secret).cloned();
        known.ok_or_else(|| {
            refused(
                tonic::Code::Unauthenticated,
                "invalid_key",
                "the API key is not valid",
            )
        })
    }

    fn context(
        &self,
        metadata: &MetadataMap,
        id: &str,
    ) -> Result<(v1::Context, Vec<v1::ContextItem>), Status> {
        let tenant = self.caller(metadata)?.tenant_id.to_string();
        let contexts = self.contexts.lock();
        contexts
            .get(id)
            .filter(|(context, _)| context.tenant_id == tenant)
            .cloned()
            .ok_or_else(not_found)
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Fake {
    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        self.asked_who.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let principal = self.caller(request.metadata())?;
        Ok(Response::new(v1::WhoAmIResponse {
            principal: Some((&principal).into()),
            valid_for_ms: 60_000,
        }))
    }
}

#[tonic::async_trait]
impl contexts_server::Contexts for Fake {
    type WatchStream = Events<v1::Context>;

    async fn watch(&self, request: Request<v1::GetContextRequest>) -> Answer<Self::WatchStream> {
        self.watch_context(&request)
    }

    async fn create(&self, request: Request<v1::CreateContextRequest>) -> Answer<v1::Context> {
        let traceparent = request
            .metadata()
            .get("traceparent")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        *self.traceparent.lock() = traceparent;
        let tenant = self.caller(request.metadata())?.tenant_id.to_string();
        let new = request.into_inner();
        let now = Some(prost_types::Timestamp {
            seconds: 1_800_000_000,
            nanos: 0,
        });
        let context = v1::Context {
            id: domain::ContextId::new().to_string(),
            tenant_id: tenant,
            name: new.name,
            r#type: "manual".into(),
            metadata_json: new.metadata_json,
            status: "active".into(),
            version: 1,
            item_count: new.items.len() as i64,
            created_at: now,
            updated_at: now,
            ..Default::default()
        };
        let item = |(i, item): (usize, v1::NewItem)| v1::ContextItem {
            sequence: i as i64 + 1,
            role: item.role,
            content: item.content,
            created_at: now,
            ..Default::default()
        };
        let items = new.items.into_iter().enumerate().map(item).collect();
        self.contexts
            .lock()
            .insert(context.id.clone(), (context.clone(), items));
        Ok(Response::new(context))
    }

    async fn get(&self, request: Request<v1::GetContextRequest>) -> Answer<v1::Context> {
        Ok(Response::new(
            self.context(request.metadata(), &request.get_ref().id)?.0,
        ))
    }

    async fn list(&self, request: Request<v1::ListContextsRequest>) -> Answer<v1::ListContextsResponse> {
        let tenant = self.caller(request.metadata())?.tenant_id.to_string();
        let contexts = self.contexts.lock();
        let contexts = contexts
            .values()
            .map(|(c, _)| c.clone())
            .filter(|c| c.tenant_id == tenant)
            .collect();
        Ok(Response::new(v1::ListContextsResponse {
            contexts,
            next_cursor: String::new(),
        }))
    }

    async fn update(&self, _: Request<v1::UpdateContextRequest>) -> Answer<v1::Context> {
        Err(Status::internal("a secret of the database"))
    }

    async fn delete(&self, request: Request<v1::DeleteContextRequest>) -> Answer<v1::DeleteContextResponse> {
        let (context, _) = self.context(request.metadata(), &request.get_ref().id)?;
        self.contexts.lock().remove(&context.id);
        Ok(Response::new(v1::DeleteContextResponse {}))
    }

    async fn append(&self, _: Request<v1::AppendItemsRequest>) -> Answer<v1::AppendItemsResponse> {
        Err(refused(
            tonic::Code::OutOfRange,
            "too_large",
            "an item is larger than 1048576 bytes",
        ))
    }

    async fn list_items(&self, request: Request<v1::ListItemsRequest>) -> Answer<v1::ListItemsResponse> {
        let (context, items) = self.context(request.metadata(), &request.get_ref().id)?;
        // As an older rest-api, it knows nothing of the wish when the context is named so.
        let context = Some(context).filter(|c| request.get_ref().with_context && c.name != "legacy");
        Ok(Response::new(v1::ListItemsResponse {
            context,
            items,
            next_cursor: String::new(),
        }))
    }

    async fn search(
        &self,
        request: Request<v1::SearchContextsRequest>,
    ) -> Answer<v1::SearchContextsResponse> {
        let tenant = self.caller(request.metadata())?.tenant_id.to_string();
        let query = request.into_inner().query;
        let contexts = self.contexts.lock();
        let hits = contexts
            .values()
            .filter(|(context, _)| context.tenant_id == tenant)
            .filter_map(|(context, items)| {
                let item = items.iter().find(|item| item.content.contains(&query))?;
                let snippet = format!("<mark>{query}</mark>");
                Some(v1::SearchHit {
                    context: Some(context.clone()),
                    sequence: item.sequence,
                    snippet,
                    score: 1.0,
                })
            });
        Ok(Response::new(v1::SearchContextsResponse {
            hits: hits.collect(),
            truncated: false,
        }))
    }
}

#[tonic::async_trait]
impl catalogue_server::Catalogue for Fake {
    type WatchStream = Events<v1::CatalogueEvent>;

    async fn watch(&self, request: Request<v1::WatchCatalogueRequest>) -> Answer<Self::WatchStream> {
        let token = secrecy::SecretString::from(SERVICE_TOKEN);
        chassis::grpc::require_service_token(request.metadata(), Some(&token))?;
        let tools = self.tools.lock();
        let changes = BroadcastStream::new(self.events.subscribe()).filter_map(async |event| event.ok());
        let mut first: Vec<_> = tools.iter().cloned().map(Event::Upserted).collect();
        first.push(Event::Synced(v1::Synced {}));
        let first = first
            .into_iter()
            .map(|event| v1::CatalogueEvent { event: Some(event) });
        let mut down = self.down.subscribe();
        let until = async move {
            let _ = down.wait_for(|down| *down).await;
        };
        let events = futures_util::stream::iter(first).chain(changes).map(Ok);
        Ok(Response::new(Box::pin(events.take_until(Box::pin(until)))))
    }
}
