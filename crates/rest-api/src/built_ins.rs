//! The product's own tools that the workers run, as the workers tell of them.
//!
//! Whoever is asked, any of the workers answers, and while they are being replaced they differ: what one does not tell of
//! another may run. So what was told stays until it has been missing from the answers for a while.

use chrono::DateTime;
use domain::{
    Invalid, Scope, Scopes, TenantId,
    tool::{Method, Tool, ToolOptions, ToolSpec, built_in},
};
use proto::{convert, v1};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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

/// What the workers told, taken together.
#[derive(Debug, Default)]
pub struct Manifest {
    tools: BTreeMap<String, Arc<BuiltIn>>,
    /// The same, to be passed on.
    listed: Vec<v1::BuiltInTool>,
}

impl Manifest {
    fn of(listed: Vec<v1::BuiltInTool>) -> Self {
        let mut tools = BTreeMap::new();
        for told in &listed {
            match BuiltIn::try_from(told.clone()) {
                Ok(tool) => _ = tools.insert(told.name.clone(), Arc::new(tool)),
                Err(error) => {
                    tracing::warn!(tool = told.name, %error, "a worker told of a tool that is not understood");
                }
            }
        }
        Self { tools, listed }
    }

    /// All of them, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<BuiltIn>> {
        self.tools.values()
    }

    /// All of them, as workers tell of them.
    pub fn listed(&self) -> &[v1::BuiltInTool] {
        &self.listed
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Arc<BuiltIn>> {
        self.tools.get(name)
    }
}

/// What a worker answered, and since when it has not been answered any more.
#[derive(Debug)]
struct Heard {
    tools: Vec<v1::BuiltInTool>,
    missed_since: Option<Instant>,
}

#[derive(Debug)]
struct Inner {
    manifest: watch::Sender<Option<Arc<Manifest>>>,
    /// The answers that are believed, that which was heard of first at the beginning.
    heard: Mutex<Vec<Heard>>,
    kept: Duration,
}

/// The manifest, as it changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BuiltIns(Arc<Inner>);

impl BuiltIns {
    /// Nothing is known yet. An answer is believed until it has been missing for `kept`.
    pub fn new(kept: Duration) -> Self {
        Self(Arc::new(Inner {
            manifest: watch::Sender::new(None),
            heard: Mutex::default(),
            kept,
        }))
    }

    /// What is known; `None` before a worker has told.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.0.manifest.borrow().clone()
    }

    /// Wakes up whenever it changes.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Manifest>>> {
        self.0.manifest.subscribe()
    }

    /// A worker told. A tool that cannot be understood is left out, and logged.
    pub(crate) fn told(&self, tools: Vec<v1::BuiltInTool>, now: Instant) {
        let mut heard = self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut heard, tools, now, self.0.kept);
        let listed = taken_together(&heard);
        if self.manifest().is_some_and(|known| known.listed == listed) {
            return;
        }
        let manifest = Manifest::of(listed);
        tracing::info!(
            tools = manifest.tools.len(),
            "workers told which tools of the product they run"
        );
        self.0.manifest.send_replace(Some(Arc::new(manifest)));
    }
}

/// Adds an answer, and forgets those that were missing for longer than they are kept.
fn note(heard: &mut Vec<Heard>, tools: Vec<v1::BuiltInTool>, now: Instant, kept: Duration) {
    for other in heard.iter_mut().filter(|known| known.tools != tools) {
        other.missed_since.get_or_insert(now);
    }
    match heard.iter_mut().find(|known| known.tools == tools) {
        Some(again) => again.missed_since = None,
        None => heard.push(Heard {
            tools,
            missed_since: None,
        }),
    }
    heard.retain(|known| {
        known
            .missed_since
            .is_none_or(|since| now.duration_since(since) < kept)
    });
}

/// Every tool that some answer tells of, for everybody for whom it is there by some answer, and otherwise by that which was
/// heard of last: the workers that come, not those that go. Whether a source is granted is the worker's to say in the end.
fn taken_together(heard: &[Heard]) -> Vec<v1::BuiltInTool> {
    let mut tools = BTreeMap::<&str, v1::BuiltInTool>::new();
    for told in heard.iter().flat_map(|known| &known.tools) {
        let (mut tenants, mut platform) = (told.tenants.clone(), told.platform);
        if let Some(before) = tools.get(told.name.as_str()) {
            tenants.extend_from_slice(&before.tenants);
            platform |= before.platform;
        }
        tenants.sort_unstable();
        tenants.dedup();
        let tool = v1::BuiltInTool {
            tenants,
            platform,
            ..told.clone()
        };
        tools.insert(&told.name, tool);
    }
    tools.into_values().collect()
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

    const KEPT: Duration = Duration::from_secs(60);

    fn names(built_ins: &BuiltIns) -> Vec<String> {
        let manifest = built_ins.manifest().expect("told");
        manifest.tools().map(|tool| tool.tool.spec.name.clone()).collect()
    }

    #[test]
    fn what_is_told_again_wakes_nobody_and_strangers_are_left_out() {
        let (built_ins, now) = (BuiltIns::new(KEPT), Instant::now());
        let mut changes = built_ins.changes();
        assert!(built_ins.manifest().is_none());
        built_ins.told(vec![told("query_logs"), told("drop_everything")], now);
        assert!(changes.has_changed().expect("a sender"));
        changes.mark_unchanged();
        assert_eq!(names(&built_ins), ["query_logs"]);
        built_ins.told(vec![told("query_logs"), told("drop_everything")], now);
        assert!(!changes.has_changed().expect("a sender"));
    }

    #[test]
    fn while_workers_differ_nothing_comes_and_goes() {
        let (built_ins, start) = (BuiltIns::new(KEPT), Instant::now());
        let full = vec![told("query_logs"), told("query_metrics")];
        let newer = vec![v1::BuiltInTool {
            tenants: vec!["globex".into()],
            platform: false,
            description: "newer".into(),
            ..told("query_metrics")
        }];
        built_ins.told(full.clone(), start);
        built_ins.told(newer.clone(), start);
        let changes = built_ins.changes();
        for turn in 0..100 {
            let now = start + turn * Duration::from_secs(5);
            // Of five in a row, one answer comes from another worker.
            let answer = if turn % 5 == 0 { &full } else { &newer };
            built_ins.told(answer.clone(), now);
            assert!(!changes.has_changed().expect("a sender"), "turn {turn}");
        }
        assert_eq!(names(&built_ins), ["query_logs", "query_metrics"]);
        let metrics = built_ins.manifest().expect("told").listed()[1].clone();
        assert_eq!(metrics.tenants, ["acme", "globex"]);
        assert_eq!((metrics.description.as_str(), metrics.platform), ("newer", true));

        // Counted from the first answer without it, however long no worker answered at all.
        let later = start + Duration::from_secs(10_000);
        built_ins.told(full.clone(), later);
        built_ins.told(Vec::new(), later);
        built_ins.told(Vec::new(), later + KEPT - Duration::from_secs(1));
        assert_eq!(names(&built_ins), ["query_logs", "query_metrics"]);
        built_ins.told(Vec::new(), later + KEPT);
        assert!(changes.has_changed().expect("a sender") && names(&built_ins).is_empty());
    }

    #[test]
    fn another_schema_is_another_version() {
        assert_ne!(version(r#"{"type":"object"}"#), version(r#"{"type": "object"}"#));
        assert!(version("x") > 0);
    }
}
