//! Tools from OpenAPI documents: read, planned, and registered once everything is known to fit.

mod credentials;
mod places;

pub use credentials::{Given, Wanted};
pub use places::{Imports, Permit};

use super::Api;
use crate::{
    error::{Error, Found, Result},
    store::{CredentialsChange, SealedCredentials, StoreError},
};
use axum::body::Bytes;
use domain::{
    Invalid, Principal, Scope, TenantId,
    tool::{Credentials, Method, RetryPolicy, Tool, ToolOptions, ToolSpec},
};
use openapi::{Document, LeftOut, Options, Plan, PlannedTool, Selection};
use std::{collections::BTreeMap, time::Duration};
use url::Url;

/// How long fetching a document may take.
const FETCH_TIME: Duration = Duration::from_secs(60);

/// What is to be imported, and how.
#[derive(Debug)]
pub struct ImportAsk {
    /// Where the document is.
    pub source: Source,
    /// Which operations.
    pub selection: Selection,
    /// Stands before every tool's name.
    pub prefix: String,
    /// Is called instead of the servers that the document names.
    pub server: Option<String>,
    /// What the endpoints are shown.
    pub credentials: Given,
    /// What is done about tools whose names are taken.
    pub on_conflict: OnConflict,
    /// How long a call may take, milliseconds.
    pub timeout_ms: u32,
    /// Given to every tool.
    pub retry: Option<RetryPolicy>,
    /// Nothing is registered.
    pub preview: bool,
}

/// Where a document is.
#[derive(Debug)]
pub enum Source {
    /// A worker fetches it.
    Url(String),
    /// Here.
    Document(Bytes),
}

/// What is done about tools whose names are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is registered at all.
    #[default]
    Fail,
    /// They stay as they are.
    Skip,
    /// They become what the document says.
    Replace,
}

/// What became of a document.
#[derive(Debug)]
pub struct Imported {
    /// The document's own.
    pub title: Option<String>,
    /// One for each chosen operation that can be a tool.
    pub tools: Vec<ImportedTool>,
    /// The other chosen operations.
    pub left_out: Vec<LeftOut>,
    /// What the tools' endpoints want to be shown.
    pub wanted: Vec<Wanted>,
}

/// One tool of an import.
#[derive(Debug)]
pub struct ImportedTool {
    /// What was planned.
    pub planned: PlannedTool,
    /// What was done, or would be.
    pub action: Action,
    /// The tool's version now; none in a preview, where it would be new.
    pub version: Option<i64>,
    /// Whether it was given credentials.
    pub has_credentials: bool,
}

/// What an import does with a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Create,
    /// One of its name is replaced.
    Replace,
    /// One of its name is the same already.
    Keep,
    /// One of its name stays as it is.
    Skip,
    /// One of its name is there, and that was not wanted: only in a preview, since nothing is registered then.
    Conflict,
}

/// One step of a registration.
struct Step {
    tool: ImportedTool,
    sealed: Option<SealedCredentials>,
    /// The version that is replaced.
    known: Option<i64>,
    /// It calls another server than the one it replaces: the credentials of that one stay behind.
    moved: bool,
}

impl Api {
    /// Takes a place for an import. Needs `tools:manage`. Taken before a body is read, so that few are ever held.
    pub fn begin_import(&self, caller: &Principal) -> Result<Permit> {
        caller.require(Scope::ToolsManage)?;
        self.0.imports.begin(caller.tenant_id)
    }

    /// Makes tools of a document. Nothing is registered before all of it is known to fit; once it begins, leaving does
    /// not stop it.
    pub async fn import_tools(&self, caller: &Principal, ask: ImportAsk, permit: Permit) -> Result<Imported> {
        caller.require(Scope::ToolsManage)?;
        check_common(&ask)?;
        let (bytes, document_url) = self.document(caller, &ask).await?;
        let options = Options {
            selection: ask.selection.clone(),
            prefix: ask.prefix.clone(),
            server: ask.server.clone(),
            document_url,
            timeout_ms: ask.timeout_ms,
            retry: ask.retry,
            ..Options::default()
        };
        let api = self.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let planned = api.plan(&bytes, &options);
            (planned, permit)
        });
        let (planned, permit) = planned.await.map_err(|e| Error::Internal(e.into()))?;
        let (title, plan) = planned?;
        if let Some(beyond) = plan
            .tools
            .iter()
            .find(|tool| !caller.tools.allow_all(&tool.spec.name))
        {
            tracing::debug!(tool = beyond.spec.name, "an import goes beyond the key's rules");
            return Err(Error::ToolRulesExceeded);
        }
        let (steps, wanted) = self
            .steps(caller.tenant_id, plan.tools, plan.origin.as_deref(), &ask)
            .await?;
        let tools = if ask.preview {
            steps.into_iter().map(|step| step.tool).collect()
        } else {
            self.register(caller, steps, permit).await?
        };
        Ok(Imported {
            title,
            tools,
            left_out: plan.left_out,
            wanted,
        })
    }

    async fn document(&self, caller: &Principal, ask: &ImportAsk) -> Result<(Bytes, Option<Url>)> {
        let url = match &ask.source {
            Source::Document(bytes) => return Ok((bytes.clone(), None)),
            Source::Url(url) => url,
        };
        let parsed = Url::parse(url).ok().filter(|url| {
            let bare = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && bare
        });
        let url = parsed
            .ok_or_else(|| Invalid::new("url", "an http or https address without user and password"))?;
        let most = self.0.limits.import_bytes;
        let fetched = self.0.runner.fetch(&caller.tenant, url.as_str(), most as u64);
        let bytes = tokio::time::timeout(FETCH_TIME, fetched)
            .await
            .map_err(|_| Error::NotFetched {
                code: "timeout",
                message: format!("it took longer than {} s", FETCH_TIME.as_secs()),
            })??;
        Ok((bytes, Some(url)))
    }

    /// Reads the document and plans its tools. Takes seconds of a thread for large documents.
    fn plan(&self, bytes: &[u8], options: &Options) -> Result<(Option<String>, Plan)> {
        let document = Document::parse(bytes)?;
        let title = document.title().map(|title| title.chars().take(200).collect());
        let plan = document.plan(options, &|schema| self.0.schemas.check(schema))?;
        Ok((title, plan))
    }

    /// What is to be done for each tool; nothing has been done yet.
    async fn steps(
        &self,
        tenant: TenantId,
        tools: Vec<PlannedTool>,
        origin: Option<&str>,
        ask: &ImportAsk,
    ) -> Result<(Vec<Step>, Vec<Wanted>)> {
        let shown = credentials::assign(&tools, origin, &ask.credentials)?;
        let mut steps = Vec::with_capacity(tools.len());
        let mut taken = Vec::new();
        for (mut planned, shown) in tools.into_iter().zip(shown.of_tools) {
            if let Some(note) = shown.withheld {
                planned.notes.push(note);
            }
            let known = match self.0.store.get_tool(tenant, &planned.spec.name).await {
                Ok(tool) => Some(tool),
                Err(StoreError::NotFound) => None,
                Err(error) => return Err(error.into()),
            };
            let action = action(
                known.as_ref(),
                &planned.spec,
                shown.credentials.is_some(),
                ask.on_conflict,
            );
            if action == Action::Conflict {
                taken.push(planned.spec.name.clone());
            }
            let writes = matches!(action, Action::Create | Action::Replace);
            let sealed = shown.credentials.filter(|_| writes && !ask.preview);
            let sealed = sealed.map(|c: &Credentials| self.seal(c)).transpose()?;
            let had = known.as_ref().is_some_and(|tool| tool.has_credentials);
            let moved = known
                .as_ref()
                .is_some_and(|tool| origin_of(tool) != planned.origin);
            let kept = had && !(moved && action == Action::Replace);
            if had && !kept && shown.credentials.is_none() {
                planned.notes.push(credentials::left_behind(&planned.origin));
            }
            steps.push(Step {
                tool: ImportedTool {
                    action,
                    version: known.as_ref().map(|tool| tool.version),
                    has_credentials: if writes {
                        shown.credentials.is_some() || kept
                    } else {
                        kept
                    },
                    planned,
                },
                sealed,
                known: known.map(|tool| tool.version),
                moved,
            });
        }
        if !taken.is_empty() && !ask.preview {
            return Err(Error::ToolsExist(taken));
        }
        Ok((steps, shown.wanted))
    }

    /// Registers what was prepared, in a task of its own: half an import is nobody's wish.
    async fn register(
        &self,
        caller: &Principal,
        steps: Vec<Step>,
        permit: Permit,
    ) -> Result<Vec<ImportedTool>> {
        let (api, caller) = (self.clone(), caller.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        let context = telemetry::context::current();
        self.0.tasks.spawn_graceful("import", |_| {
            telemetry::span::in_context(
                async move {
                    let registered = api.register_all(&caller, steps).await;
                    drop(permit);
                    let _left = tell.send(registered);
                },
                context,
            )
        });
        told.await.map_err(|e| Error::Internal(e.into()))?
    }

    async fn register_all(&self, caller: &Principal, steps: Vec<Step>) -> Result<Vec<ImportedTool>> {
        let mut tools = Vec::with_capacity(steps.len());
        let mut written = Vec::new();
        let mut broken = None;
        for step in steps {
            match self.register_one(caller.tenant_id, step).await {
                Ok(tool) => {
                    if matches!(tool.action, Action::Create | Action::Replace) {
                        written.push(tool.planned.spec.name.clone());
                    }
                    tools.push(tool);
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if !written.is_empty() {
            self.0.catalogue.changed();
        }
        tracing::info!(tools = written.len(), by = %caller.key_id, whole = broken.is_none(), "tools imported");
        match broken {
            None => Ok(tools),
            Some(cause) if written.is_empty() => Err(cause),
            Some(cause) => Err(Error::ImportBroken {
                written,
                cause: Box::new(cause),
            }),
        }
    }

    async fn register_one(&self, tenant: TenantId, step: Step) -> Result<ImportedTool> {
        let Step {
            mut tool,
            sealed,
            known,
            moved,
        } = step;
        let spec = &tool.planned.spec;
        let store = &self.0.store;
        let made = match tool.action {
            Action::Keep | Action::Skip | Action::Conflict => return Ok(tool),
            Action::Create => store.create_tool(tenant, spec, sealed.as_ref()).await,
            Action::Replace => {
                let credentials = match sealed {
                    Some(sealed) => CredentialsChange::Set(sealed),
                    None if moved => CredentialsChange::Remove,
                    None => CredentialsChange::Keep,
                };
                store.update_tool(tenant, spec, &credentials, known).await
            }
        };
        let made = made.or_missing("tool")?;
        tool.version = Some(made.version);
        Ok(tool)
    }
}

/// Scheme, host and port that a tool calls.
fn origin_of(tool: &Tool) -> String {
    Url::parse(&tool.spec.url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

fn action(known: Option<&Tool>, spec: &ToolSpec, credentials: bool, on_conflict: OnConflict) -> Action {
    match (known, on_conflict) {
        (None, _) => Action::Create,
        (Some(tool), _) if tool.spec == *spec && !credentials => Action::Keep,
        // It changes with its upstream only.
        (Some(tool), OnConflict::Replace) if tool.spec.options.upstream.is_some() => Action::Conflict,
        (Some(_), OnConflict::Skip) => Action::Skip,
        (Some(_), OnConflict::Replace) => Action::Replace,
        (Some(_), OnConflict::Fail) => Action::Conflict,
    }
}

/// Holds what all tools share to its rules before each of them is found to break one.
fn check_common(ask: &ImportAsk) -> Result<()> {
    let any = ToolSpec {
        name: "any".into(),
        description: "any".into(),
        method: Method::Get,
        url: "http://any/".into(),
        headers: BTreeMap::new(),
        input_schema: [("type".to_owned(), "object".into())].into_iter().collect(),
        timeout_ms: ask.timeout_ms,
        read_only: true,
        idempotent: true,
        destructive: false,
        options: ToolOptions {
            retry: ask.retry,
            ..ToolOptions::default()
        },
    };
    Ok(any.check()?)
}

#[cfg(test)]
mod tests {
    use crate::schema::Schemas;
    use openapi::{Document, Options};

    /// Plans all of a document as an import does, and holds what comes out to what a registration asks.
    fn check(document: &[u8]) -> usize {
        let schemas = Schemas::default();
        let options = Options {
            document_url: Some(
                "https://api.example.com/openapi.json"
                    .parse()
                    .expect("an address"),
            ),
            max_tools: usize::MAX,
            ..Options::default()
        };
        let document = Document::parse(document).expect("OpenAPI");
        let began = std::time::Instant::now();
        let plan = document
            .plan(&options, &|schema| schemas.check(schema))
            .expect("a plan");
        println!("{} tools in {:?}", plan.tools.len(), began.elapsed());
        for left in &plan.left_out {
            println!("left out: {} {} {}", left.operation, left.code, left.text);
        }
        for tool in &plan.tools {
            tool.spec.check().expect("a tool's rules");
            schemas
                .check(&tool.spec.input_schema)
                .expect("a schema that compiles");
        }
        plan.tools.len()
    }

    #[test]
    fn every_planned_tool_can_be_registered() {
        for document in [
            &include_bytes!("../../../openapi/tests/documents/shop.yaml")[..],
            include_bytes!("../../../openapi/tests/documents/trees.json"),
            crate::http::description().as_bytes(),
        ] {
            assert!(check(document) > 0);
        }
        let patterns = |pattern: &str| {
            let names = (0..80).map(|i| {
                (
                    format!("p{i}"),
                    serde_json::json!({"type": "string", "pattern": pattern}),
                )
            });
            let schema =
                serde_json::json!({"type": "object", "properties": names.collect::<serde_json::Map<_, _>>()});
            let body = serde_json::json!({"content": {"application/json": {"schema": schema}}});
            let post = serde_json::json!({"post": {"requestBody": body}});
            serde_json::json!({"openapi": "3.1.0", "paths": {"/x": post}}).to_string()
        };
        for pattern in ["^a+$", "(", "\\p{L}{1000}", "(?<=a)b(?!c)"] {
            assert_eq!(check(patterns(pattern).as_bytes()), 1, "{pattern}");
        }
    }

    /// `OPENAPI_DOCUMENT=/path cargo test -p rest-api --lib -- --ignored --nocapture a_document_of_your_own`
    #[test]
    #[ignore = "needs a document, named by OPENAPI_DOCUMENT"]
    fn a_document_of_your_own() {
        let path = std::env::var("OPENAPI_DOCUMENT").expect("OPENAPI_DOCUMENT");
        assert!(check(&std::fs::read(path).expect("a document")) > 0);
    }
}
