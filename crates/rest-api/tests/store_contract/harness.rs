//! A fresh database for each test, with two tenants in it.

use domain::{
    ApiKeyId, ExecutionId, JsonObject, TenantId, Time, ToolRules,
    api_key::{ApiKey, Secret, SecretHash},
    context::{Context, NewContext, NewItem},
    execution::{Execution, ExecutionError, ExecutionStatus, Outcome},
    page::{Page, PageRequest},
    tenant::Tenant,
    tool::{Method, Tool, ToolOptions, ToolSpec},
};
use futures_util::FutureExt as _;
use rest_api::store::{
    self, Append, Appended, End, LeaseAsk, Leased, Made, NewExecution, SharedStore, Start, StoreError,
    settings::DatabaseSettings,
};
use secrecy::ExposeSecret as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, FromRow, PgConnection, SqliteConnection, postgres::PgRow,
    sqlite::SqliteRow,
};
use std::{
    collections::BTreeMap, io::Write as _, panic, panic::AssertUnwindSafe, sync::Once, time::Duration,
};
use uuid::Uuid;

/// What a test works with.
#[derive(Clone)]
pub(crate) struct Fixture {
    /// The store, migrated.
    pub(crate) store: SharedStore,
    /// Where the same database is found.
    pub(crate) settings: DatabaseSettings,
    /// The tenant that the test acts for.
    pub(crate) tenant: Tenant,
    /// The tenant that must not see anything of it.
    pub(crate) stranger: Tenant,
}

/// Runs a test on a new SQLite file.
pub(crate) async fn on_sqlite(test: impl AsyncFnOnce(Fixture)) {
    let directory = std::env::temp_dir().join(format!("store-contract-{}", Uuid::now_v7()));
    let url = format!("sqlite://{}/store.db", directory.display());
    let done = run(&url, test).await;
    std::fs::remove_dir_all(&directory).expect("the directory can be removed");
    done.unwrap_or_else(|panic| panic::resume_unwind(panic));
}

/// Runs a test on a new PostgreSQL database, or says that it does not.
pub(crate) async fn on_postgres(test: impl AsyncFnOnce(Fixture)) {
    static SAID: Once = Once::new();
    let Ok(server) = std::env::var("TEST_POSTGRES_URL") else {
        // Not `eprintln`, which the test harness swallows.
        SAID.call_once(|| {
            let _ = std::io::stderr().write_all(b"SKIPPED on PostgreSQL: TEST_POSTGRES_URL is not set\n");
        });
        return;
    };
    let name = format!("contract_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect(&server)
        .await
        .expect("TEST_POSTGRES_URL answers");
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("databases may be created");
    let mut url = url::Url::parse(&server).expect("TEST_POSTGRES_URL is a URL");
    url.set_path(&name);
    let done = run(url.as_str(), test).await;
    let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    admin.execute(drop).await.expect("the database can be dropped");
    done.unwrap_or_else(|panic| panic::resume_unwind(panic));
}

async fn run(url: &str, test: impl AsyncFnOnce(Fixture)) -> std::thread::Result<()> {
    let settings = DatabaseSettings {
        url: url.into(),
        acquire_timeout: Duration::from_secs(25),
        ..Default::default()
    };
    let store = store::connect(&settings).await.expect("the store opens");
    store.migrate().await.expect("the schema can be made");
    let tenant = store.create_tenant("acme").await.expect("a tenant can be made");
    let stranger = store
        .create_tenant("stranger")
        .await
        .expect("a tenant can be made");
    let fixture = Fixture {
        store: store.clone(),
        settings,
        tenant,
        stranger,
    };
    let done = AssertUnwindSafe(test(fixture)).catch_unwind().await;
    store.close().await;
    done
}

impl Fixture {
    /// The tenant's identifier.
    pub(crate) fn id(&self) -> TenantId {
        self.tenant.id
    }

    /// What SQL answers that is run beside the store, as another version of the product would run it.
    pub(crate) async fn sql<R>(&self, text: &'static str) -> Vec<R>
    where
        R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let url = self.settings.url.expose_secret();
        let rows = if url.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(url).await.expect("the file opens");
            sqlx::query_as(text).fetch_all(&mut connection).await
        } else {
            let mut connection = PgConnection::connect(url).await.expect("the server answers");
            sqlx::query_as(text).fetch_all(&mut connection).await
        };
        rows.expect("the statement runs")
    }

    /// Makes a context of one item for each text.
    pub(crate) async fn context(&self, name: &str, texts: &[&str]) -> Context {
        let made = self
            .store
            .create_context(self.id(), &new_context(name), &items(texts), None)
            .await;
        made.expect("a context can be made").into_inner()
    }

    /// Appends an item for each text.
    pub(crate) async fn append(&self, context: &Context, texts: &[&str]) -> Result<Appended, StoreError> {
        let append = Append {
            items: &items(texts),
            max_bytes: u64::MAX,
            if_version: None,
            idempotency: None,
        };
        self.store
            .append_items(self.id(), context.id, append)
            .await
            .map(Made::into_inner)
    }

    /// Registers a tool.
    pub(crate) async fn tool(&self, name: &str) -> Tool {
        self.store
            .create_tool(self.id(), &spec(name), None)
            .await
            .expect("a tool can be registered")
    }

    /// Makes an execution.
    pub(crate) async fn execution(&self, new: &NewExecution) -> Execution {
        match self.store.create_execution(self.id(), new).await {
            Ok(Made::New(execution)) => execution,
            other => panic!("expected a new execution, got {other:?}"),
        }
    }

    /// An execution as it stands.
    pub(crate) async fn get(&self, id: ExecutionId) -> Execution {
        self.store
            .get_execution(self.id(), id)
            .await
            .expect("the execution exists")
    }

    /// Leases as much as `limit` at this time, for a minute.
    pub(crate) async fn lease_at(&self, now: Time, limit: u32) -> Vec<Leased> {
        let ask = LeaseAsk {
            owner: "worker-1",
            limit,
            per_tenant: 1000,
            now,
            expires_at: now + Duration::from_secs(60),
        };
        self.store
            .lease_executions(&ask)
            .await
            .expect("the queue can be leased from")
    }

    /// Leases the one execution that is due.
    pub(crate) async fn lease_one(&self) -> Leased {
        let mut leased = self.lease_at(now(), 10).await;
        assert_eq!(leased.len(), 1, "one is due");
        leased.remove(0)
    }

    /// Ends what was leased well.
    pub(crate) async fn succeed(&self, leased: &Leased) -> Execution {
        self.store
            .end_attempt(leased.execution.id, leased.token, End::Final(&succeeded()))
            .await
            .expect("the lease is held")
    }

    /// Makes a key.
    pub(crate) async fn key(&self, tenant: TenantId, made: Time) -> (ApiKey, SecretHash) {
        let secret = Secret::generate();
        let key = ApiKey {
            id: ApiKeyId::new(),
            tenant_id: tenant,
            name: "a key".into(),
            prefix: secret.shown().into(),
            scopes: "contexts:read,tools:execute".parse().expect("scopes"),
            tools: ToolRules::unlimited(),
            created_at: made,
            last_used_at: None,
            expires_at: None,
            revoked_at: None,
        };
        self.store
            .create_key(&key, &secret.hash())
            .await
            .expect("a key can be made");
        (key, secret.hash())
    }
}

/// Now, as precisely as it is stored.
pub(crate) fn now() -> Time {
    after(0)
}

/// So many seconds from now on.
pub(crate) fn after(seconds: i64) -> Time {
    let micros = chrono::Utc::now().timestamp_micros() + seconds * 1_000_000;
    Time::from_timestamp_micros(micros).expect("a time")
}

pub(crate) fn new_context(name: &str) -> NewContext {
    NewContext {
        name: name.into(),
        kind: "manual".into(),
        ..Default::default()
    }
}

pub(crate) fn items(texts: &[&str]) -> Vec<NewItem> {
    let item = |text: &&str| NewItem {
        role: "user".into(),
        content: (*text).into(),
        ..Default::default()
    };
    texts.iter().map(item).collect()
}

pub(crate) fn object(value: serde_json::Value) -> JsonObject {
    match value {
        serde_json::Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

pub(crate) fn spec(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        description: "Restarts a service".into(),
        method: Method::Post,
        url: "https://ops.example.com/services/{service}/restart".into(),
        headers: BTreeMap::from([("Accept".into(), "application/json".into())]),
        input_schema: object(
            serde_json::json!({"type": "object", "properties": {"service": {"type": "string"}}}),
        ),
        timeout_ms: 1500,
        read_only: false,
        idempotent: true,
        destructive: true,
        options: ToolOptions::default(),
    }
}

/// An execution that is queued, and due.
pub(crate) fn queued(tool: &Tool) -> NewExecution {
    NewExecution {
        id: ExecutionId::new(),
        tool_id: tool.id,
        tool: tool.spec.name.clone(),
        key_id: ApiKeyId::new(),
        arguments: object(serde_json::json!({"service": "api", "nul": "\u{0}"})),
        idempotent: true,
        digest: "d1".into(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        priority: 0,
        max_attempts: 1,
        deadline: None,
        schedule_id: None,
        idempotency: None,
        start: Start::Queued { run_at: now() },
    }
}

/// An execution that a caller of `replica-1` waits for.
pub(crate) fn waited_for(tool: &Tool) -> NewExecution {
    let start = Start::Leased {
        owner: "replica-1".into(),
        expires_at: after(30),
    };
    NewExecution {
        idempotent: false,
        start,
        ..queued(tool)
    }
}

pub(crate) fn succeeded() -> Outcome {
    Outcome {
        status: ExecutionStatus::Succeeded,
        result: Some(serde_json::json!({"ok": [true, "\u{0}"]})),
        error: None,
    }
}

pub(crate) fn failed(status: ExecutionStatus) -> Outcome {
    Outcome {
        status,
        result: None,
        error: Some(error("http_status")),
    }
}

pub(crate) fn error(code: &str) -> ExecutionError {
    ExecutionError {
        code: code.into(),
        message: "it\u{0} answered 503".into(),
    }
}

/// The page of `limit` after `page`.
pub(crate) fn next<T>(page: &Page<T>, limit: u32) -> PageRequest {
    PageRequest {
        limit,
        cursor: page.next_cursor.clone(),
    }
}

/// The first page of `limit`.
pub(crate) fn first(limit: u32) -> PageRequest {
    PageRequest { limit, cursor: None }
}

macro_rules! assert_error {
    ($call:expr, $pattern:pat) => {
        match $call {
            Err($pattern) => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}
pub(crate) use assert_error;
