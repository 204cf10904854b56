//! The product's own tools that the workers run, as the workers' manifest told of them last.

use chrono::DateTime;
use domain::{
    Invalid, Scope, Scopes, TenantId,
    tool::{Method, Tool, ToolOptions, ToolSpec, built_in},
};
use proto::{convert, v1};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A tool that is part of the product.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    /// As tools are run. It has no address: whoever runs it knows it by its name.
    pub tool: Tool,
    /// A person's name for it.
    pub title: String,
    /// The scope that it needs.
    pub scope: Scope,
    tenants: BTreeSet<String>,
    platform: bool,
}

impl BuiltIn {
    /// Whether it is there for keys of this tenant with these scopes. Whether they may call it is [`Self::scope`]'s.
    pub fn is_open_to(&self, tenant: &str, scopes: &Scopes) -> bool {
        self.tenants.contains(tenant) || (self.platform && scopes.contains(Scope::PlatformObserve))
    }
}

impl TryFrom<v1::BuiltInTool> for BuiltIn {
    type Error = Invalid;

    fn try_from(told: v1::BuiltInTool) -> Result<Self, Invalid> {
        if !built_in::is_built_in(&told.name) {
            return Err(Invalid::new("name", "the name of a tool of the product"));
        }
        let spec = ToolSpec {
            input_schema: convert::object("input_schema_json", &told.input_schema_json)?,
            name: told.name,
            description: told.description,
            method: Method::Get,
            url: String::new(),
            headers: BTreeMap::new(),
            timeout_ms: told.timeout_ms,
            read_only: told.read_only,
            idempotent: told.idempotent,
            destructive: told.destructive,
            options: ToolOptions::default(),
        };
        Ok(Self {
            title: told.title,
            scope: convert::parse("scope", &told.scope)?,
            tenants: told.tenants.into_iter().collect(),
            platform: told.platform,
            tool: Tool {
                id: built_in::id(&spec.name),
                tenant_id: TenantId(Uuid::nil()),
                has_credentials: false,
                version: version(&told.input_schema_json),
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
                spec,
            },
        })
    }
}

/// Another number for another schema: compiled schemas are kept by it.
fn version(schema: &str) -> i64 {
    let hash = ring::digest::digest(&ring::digest::SHA256, schema.as_bytes());
    let first = hash.as_ref().iter().take(7);
    first.fold(0, |version, byte| (version << 8) | i64::from(*byte))
}

/// What the workers told. They are believed until one tells otherwise.
#[derive(Debug, Default)]
pub struct Manifest {
    tools: BTreeMap<String, Arc<BuiltIn>>,
    /// The same, to be passed on.
    listed: Vec<v1::BuiltInTool>,
}

impl Manifest {
    /// All of them, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<BuiltIn>> {
        self.tools.values()
    }

    /// All of them, as they were told.
    pub fn listed(&self) -> &[v1::BuiltInTool] {
        &self.listed
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Arc<BuiltIn>> {
        self.tools.get(name)
    }
}

/// The manifest, as it changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BuiltIns(watch::Sender<Option<Arc<Manifest>>>);

impl Default for BuiltIns {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl BuiltIns {
    /// What is known; `None` before a worker has told.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.0.borrow().clone()
    }

    /// Wakes up whenever it changes.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Manifest>>> {
        self.0.subscribe()
    }

    /// A worker told. A tool that cannot be understood is left out, and logged.
    pub(crate) fn told(&self, tools: Vec<v1::BuiltInTool>) {
        let known = self.manifest();
        if known.is_some_and(|known| known.listed == tools) {
            return;
        }
        let mut manifest = Manifest {
            tools: BTreeMap::new(),
            listed: tools.clone(),
        };
        for tool in tools {
            let name = tool.name.clone();
            match BuiltIn::try_from(tool) {
                Ok(tool) => _ = manifest.tools.insert(name, Arc::new(tool)),
                Err(error) => {
                    tracing::warn!(tool = name, %error, "a worker told of a tool that is not understood");
                }
            }
        }
        tracing::info!(
            tools = manifest.tools.len(),
            "workers told which tools of the product they run"
        );
        self.0.send_replace(Some(Arc::new(manifest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str) -> v1::BuiltInTool {
        v1::BuiltInTool {
            name: name.into(),
            title: "t".into(),
            description: "d".into(),
            input_schema_json: r#"{"type":"object"}"#.into(),
            scope: "observe:read".into(),
            timeout_ms: 30_000,
            read_only: true,
            idempotent: true,
            destructive: false,
            tenants: vec!["acme".into()],
            platform: true,
        }
    }

    #[test]
    fn a_tool_is_there_for_whom_a_source_is_granted() {
        let tool = BuiltIn::try_from(told("query_metrics")).expect("a tool");
        assert!(tool.is_open_to("acme", &Scopes::default()));
        assert!(!tool.is_open_to("globex", &Scopes::of_a_tenant()));
        assert!(tool.is_open_to("globex", &Scopes::all()));
        let granted = v1::BuiltInTool {
            platform: false,
            ..told("query_metrics")
        };
        let tool = BuiltIn::try_from(granted).expect("a tool");
        assert!(!tool.is_open_to("globex", &Scopes::all()));
    }

    #[test]
    fn what_is_told_again_wakes_nobody_and_strangers_are_left_out() {
        let built_ins = BuiltIns::default();
        let mut changes = built_ins.changes();
        assert!(built_ins.manifest().is_none());
        built_ins.told(vec![told("query_logs"), told("drop_everything")]);
        assert!(changes.has_changed().expect("a sender"));
        changes.mark_unchanged();
        let manifest = built_ins.manifest().expect("told");
        assert!(manifest.get("query_logs").is_some() && manifest.get("drop_everything").is_none());
        built_ins.told(vec![told("query_logs"), told("drop_everything")]);
        assert!(!changes.has_changed().expect("a sender"));
        built_ins.told(Vec::new());
        assert!(changes.has_changed().expect("a sender"));
        assert_eq!(built_ins.manifest().expect("told").tools().count(), 0);
    }

    #[test]
    fn another_schema_is_another_version() {
        assert_ne!(version(r#"{"type":"object"}"#), version(r#"{"type": "object"}"#));
        assert!(version("x") > 0);
    }
}
