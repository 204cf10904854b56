//! This replica's copy of the catalogue: every tenant's registered tools, and the product's own that run in workers, ready
//! to be listed.
//!
//! Readers take a snapshot and never wait. One task writes ([`crate::watch`]); while it cannot, the last snapshot
//! stands.

use crate::caller::Caller;
use arc_swap::ArcSwap;
use domain::{Scope, TenantId};
use proto::v1;
use rmcp::model::{Tool, ToolAnnotations};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A tool that a tenant registered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registered {
    /// How it is listed.
    pub(crate) definition: Tool,
    /// Identifier.
    pub(crate) id: String,
    /// Grows with every change.
    pub(crate) version: i64,
}

impl Registered {
    /// Whether what it does cannot be taken back, so that a person has to agree.
    pub(crate) fn is_destructive(&self) -> bool {
        let hints = self.definition.annotations.as_ref();
        hints.is_some_and(|hints| hints.destructive_hint == Some(true))
    }
}

/// One of the product's own tools that a worker runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BuiltIn {
    /// How it is listed.
    pub(crate) definition: Tool,
    /// The scope that it needs.
    pub(crate) scope: Scope,
    tenants: BTreeSet<String>,
    platform: bool,
}

impl BuiltIn {
    /// Whether the caller may call it, by its scope; his rules may forbid it yet. Then it comes before a tool that the tenant
    /// registered under its name before the product had it.
    pub(crate) fn is_for(&self, caller: &Caller) -> bool {
        caller.principal.scopes.contains(self.scope) && self.is_open_to(caller)
    }

    /// Whether it is there for the caller; whether he may call it is its scope's to say, and his rules'.
    pub(crate) fn is_open_to(&self, caller: &Caller) -> bool {
        let platform = || self.platform && caller.principal.scopes.contains(Scope::PlatformObserve);
        self.tenants.contains(&caller.principal.tenant) || platform()
    }
}

/// The product's own tools that workers run, by name.
pub(crate) type BuiltIns = BTreeMap<String, BuiltIn>;

/// What there is for a tenant's callers.
#[derive(Clone)]
pub(crate) struct Shown {
    /// What the tenant registered.
    pub(crate) registered: Arc<Tools>,
    /// What workers run for those who were granted its sources.
    pub(crate) built_in: Arc<BuiltIns>,
}

impl Shown {
    /// Whether nothing has changed since.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.registered, &other.registered) && Arc::ptr_eq(&self.built_in, &other.built_in)
    }
}

/// A tenant's registered tools, by name.
pub(crate) type Tools = BTreeMap<String, Registered>;
type Tenants = HashMap<TenantId, Arc<Tools>>;

/// The catalogue, to be read. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Catalogue {
    tenants: Arc<ArcSwap<Tenants>>,
    built_ins: Arc<ArcSwap<BuiltIns>>,
    changed: watch::Sender<()>,
    /// Since when it has not been known to be true; `None` while it is being followed.
    stale_since: watch::Sender<Option<Instant>>,
    none: Arc<Tools>,
}

impl Catalogue {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            tenants: Arc::default(),
            built_ins: Arc::default(),
            changed: watch::Sender::new(()),
            stale_since: watch::Sender::new(Some(Instant::now())),
            none: Arc::default(),
        }
    }

    /// A tenant's tools. The same pointer as before says that nothing has changed.
    pub(crate) fn tools(&self, tenant: TenantId) -> Arc<Tools> {
        self.tenants.load().get(&tenant).unwrap_or(&self.none).clone()
    }

    /// The product's own tools that workers run.
    pub(crate) fn built_ins(&self) -> Arc<BuiltIns> {
        self.built_ins.load_full()
    }

    /// What there is for a tenant's callers.
    pub(crate) fn shown(&self, tenant: TenantId) -> Shown {
        Shown {
            registered: self.tools(tenant),
            built_in: self.built_ins(),
        }
    }

    /// Workers run these of the product's own tools, and no others.
    pub(crate) fn set_built_ins(&self, told: Vec<v1::BuiltInTool>) {
        let tools = told.into_iter().filter_map(|tool| {
            let name = tool.name.clone();
            match offered(tool) {
                Ok(tool) => Some((name, tool)),
                Err(error) => {
                    tracing::warn!(tool = name, %error, "a tool of the product cannot be listed");
                    None
                }
            }
        });
        let tools = tools.collect();
        if *self.built_ins.load_full() != tools {
            self.built_ins.store(Arc::new(tools));
            self.changed.send_replace(());
        }
    }

    /// Wakes up whenever some tenant's tools change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many tools there are, of all tenants.
    pub(crate) fn len(&self) -> usize {
        self.tenants.load().values().map(|tools| tools.len()).sum()
    }

    /// For how long nobody could say whether this is still the truth.
    pub(crate) fn age(&self) -> Duration {
        let since = *self.stale_since.borrow();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until it is being followed.
    pub(crate) async fn followed(&self) {
        // Its sender is in `self`, so it cannot be gone.
        let _ = self.stale_since.subscribe().wait_for(Option::is_none).await;
    }

    /// It is being followed, or not any more.
    pub(crate) fn set_followed(&self, followed: bool) {
        self.stale_since.send_modify(|since| {
            *since = if followed {
                None
            } else {
                since.or_else(|| Some(Instant::now()))
            };
        });
    }

    /// Puts new lists in place. A tenant whose list is the same keeps its pointer, and nobody is woken for nothing.
    fn publish(&self, change: impl FnOnce(&mut Tenants) -> bool) {
        let mut tenants = Tenants::clone(&self.tenants.load());
        if change(&mut tenants) {
            self.tenants.store(Arc::new(tenants));
            self.changed.send_replace(());
        }
    }
}

/// The writer's side: tools by tenant and id, from which the lists are made.
#[derive(Default)]
pub(crate) struct Ledger(HashMap<TenantId, HashMap<String, Registered>>);

impl Ledger {
    /// Notes a tool and says whose it is. One that cannot be understood is left out, and logged.
    pub(crate) fn upsert(&mut self, tool: v1::Tool) -> Option<TenantId> {
        let Ok(tenant) = tool.tenant_id.parse::<TenantId>() else {
            tracing::warn!(tool = tool.id, "a tool in the catalogue has no proper tenant");
            return None;
        };
        let id = tool.id.clone();
        match listed(tool) {
            Ok(tool) => self.0.entry(tenant).or_default().insert(id, tool),
            Err(error) => {
                tracing::warn!(tool = id, %error, "a tool in the catalogue cannot be listed");
                self.0.entry(tenant).or_default().remove(&id)
            }
        };
        Some(tenant)
    }

    /// Forgets a tool and says whose it was.
    pub(crate) fn remove(&mut self, tool: &v1::ToolRemoved) -> Option<TenantId> {
        let tenant = tool.tenant_id.parse().ok()?;
        self.0.get_mut(&tenant)?.remove(&tool.id)?;
        Some(tenant)
    }

    /// Shows everything: what is not in the ledger is gone.
    pub(crate) fn publish_all(&self, catalogue: &Catalogue) {
        catalogue.publish(|tenants| {
            let gone = |tenant: &TenantId| self.0.get(tenant).is_none_or(HashMap::is_empty);
            let before = tenants.len();
            tenants.retain(|tenant, _| !gone(tenant));
            let removed = tenants.len() != before;
            self.0.keys().fold(removed, |changed, tenant| {
                self.update(tenants, *tenant) || changed
            })
        });
    }

    /// Shows one tenant's tools as they are now.
    pub(crate) fn publish(&self, tenant: TenantId, catalogue: &Catalogue) {
        catalogue.publish(|tenants| self.update(tenants, tenant));
    }

    fn update(&self, tenants: &mut Tenants, tenant: TenantId) -> bool {
        let tools = self.0.get(&tenant).into_iter().flat_map(HashMap::values);
        let tools: Tools = tools
            .map(|tool| (tool.definition.name.to_string(), tool.clone()))
            .collect();
        if tools.is_empty() {
            return tenants.remove(&tenant).is_some();
        }
        if tenants.get(&tenant).is_some_and(|shown| **shown == tools) {
            return false;
        }
        tenants.insert(tenant, Arc::new(tools));
        true
    }
}

/// A tool as clients see it: nothing of where it calls.
fn listed(tool: v1::Tool) -> Result<Registered, domain::Invalid> {
    let schema = proto::convert::object("input_schema_json", &tool.input_schema_json)?;
    let annotations = ToolAnnotations::new()
        .read_only(tool.read_only)
        .destructive(tool.destructive)
        .idempotent(tool.idempotent || tool.read_only)
        .open_world(true);
    let mut definition = Tool::new(tool.name, tool.description, Arc::new(schema));
    definition.annotations = Some(annotations);
    Ok(Registered {
        definition,
        id: tool.id,
        version: tool.version,
    })
}

/// One of the product's own as clients see it.
fn offered(tool: v1::BuiltInTool) -> Result<BuiltIn, domain::Invalid> {
    let schema = proto::convert::object("input_schema_json", &tool.input_schema_json)?;
    let annotations = ToolAnnotations::new()
        .read_only(tool.read_only)
        .destructive(tool.destructive)
        .idempotent(tool.idempotent || tool.read_only)
        .open_world(false);
    let mut definition = Tool::new(tool.name, tool.description, Arc::new(schema));
    definition.title = Some(tool.title);
    definition.annotations = Some(annotations);
    Ok(BuiltIn {
        definition,
        scope: proto::convert::parse("scope", &tool.scope)?,
        tenants: tool.tenants.into_iter().collect(),
        platform: tool.platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(id: &str, tenant: TenantId, name: &str) -> v1::Tool {
        v1::Tool {
            id: id.into(),
            tenant_id: tenant.to_string(),
            name: name.into(),
            description: "d".into(),
            input_schema_json: r#"{"type":"object"}"#.into(),
            ..Default::default()
        }
    }

    #[test]
    fn lists_follow_the_ledger_and_keep_their_pointer_when_equal() {
        let (catalogue, ours, theirs) = (Catalogue::new(), TenantId::new(), TenantId::new());
        let mut changes = catalogue.changes();
        let mut ledger = Ledger::default();
        ledger.upsert(tool("1", ours, "b"));
        ledger.upsert(tool("2", ours, "a"));
        ledger.upsert(tool("3", theirs, "c"));
        ledger.publish_all(&catalogue);
        let names = |tenant| catalogue.tools(tenant).keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (names(ours), names(theirs), catalogue.len()),
            (vec!["a".into(), "b".into()], vec!["c".into()], 3)
        );
        assert!(changes.has_changed().expect("a sender"));
        changes.mark_unchanged();

        let before = catalogue.tools(ours);
        ledger.publish_all(&catalogue);
        assert!(Arc::ptr_eq(&before, &catalogue.tools(ours)) && !changes.has_changed().expect("a sender"));

        ledger.upsert(tool("1", ours, "renamed"));
        ledger.publish(ours, &catalogue);
        assert_eq!(names(ours), ["a", "renamed"]);
        let removed = v1::ToolRemoved {
            id: "3".into(),
            tenant_id: theirs.to_string(),
        };
        assert_eq!(ledger.remove(&removed), Some(theirs));
        ledger.publish(theirs, &catalogue);
        assert_eq!((names(theirs).len(), catalogue.len()), (0, 2));

        Ledger::default().publish_all(&catalogue);
        assert_eq!(catalogue.len(), 0);
    }

    #[test]
    fn a_tool_of_the_product_is_there_for_whom_a_source_is_granted() {
        let (catalogue, tenant) = (Catalogue::new(), TenantId::new());
        let told = v1::BuiltInTool {
            name: "query_logs".into(),
            input_schema_json: r#"{"type":"object"}"#.into(),
            scope: "observe:read".into(),
            tenants: vec!["acme".into()],
            platform: true,
            ..Default::default()
        };
        let before = catalogue.shown(tenant);
        catalogue.set_built_ins(vec![told.clone()]);
        let now = catalogue.shown(tenant);
        assert!(!now.is(&before));
        catalogue.set_built_ins(vec![told]);
        assert!(
            catalogue.shown(tenant).is(&now),
            "told again, nothing has changed"
        );

        let tool = &now.built_in["query_logs"];
        let caller = |tenant: &str, scopes: domain::Scopes| {
            let principal = domain::Principal {
                tenant_id: TenantId::new(),
                tenant: tenant.into(),
                key_id: domain::ApiKeyId::new(),
                key_name: "k".into(),
                scopes,
                tools: domain::ToolRules::unlimited(),
            };
            Caller::new(principal, &domain::api_key::Secret::generate()).expect("a caller")
        };
        assert!(tool.is_open_to(&caller("acme", domain::Scopes::default())));
        assert!(!tool.is_open_to(&caller("globex", domain::Scopes::of_a_tenant())));
        assert!(tool.is_open_to(&caller("globex", domain::Scopes::all())));
        assert!(
            !tool.is_for(&caller("acme", domain::Scopes::default())),
            "what he may not call hides no tool of the tenant's"
        );
        assert!(tool.is_for(&caller("acme", domain::Scopes::of_a_tenant())));
    }

    #[test]
    fn its_age_counts_from_when_it_was_lost() {
        let catalogue = Catalogue::new();
        catalogue.set_followed(true);
        assert_eq!(catalogue.age(), Duration::ZERO);
        catalogue.set_followed(false);
        std::thread::sleep(Duration::from_millis(2));
        catalogue.set_followed(false);
        assert!(catalogue.age() >= Duration::from_millis(2));
    }
}
