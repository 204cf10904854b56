//! Whether objects are what the API server would take, unknown keys refused: by the schemas that it publishes itself, so
//! that no cluster is needed here.

pub(crate) mod vendor;

use crate::objects::Object;
use jsonschema::{ValidationError, Validator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// Where the schemas are, from the root of the clone; `kubernetes-check schemas` writes them.
pub(crate) const FILE: &str = "tests/src/bin/kubernetes-check/schema/kubernetes.json";

/// The kinds that may occur, and whether somebody else than Kubernetes defines it.
pub(crate) const KINDS: &[(&str, bool)] = &[
    ("v1/Namespace", false),
    ("v1/ConfigMap", false),
    ("v1/Secret", false),
    ("v1/Service", false),
    ("v1/ServiceAccount", false),
    ("v1/PersistentVolumeClaim", false),
    ("v1/Pod", false),
    ("v1/LimitRange", false),
    ("v1/ResourceQuota", false),
    ("apps/v1/Deployment", false),
    ("apps/v1/StatefulSet", false),
    ("apps/v1/DaemonSet", false),
    ("batch/v1/Job", false),
    ("batch/v1/CronJob", false),
    ("autoscaling/v2/HorizontalPodAutoscaler", false),
    ("policy/v1/PodDisruptionBudget", false),
    ("networking.k8s.io/v1/NetworkPolicy", false),
    ("networking.k8s.io/v1/Ingress", false),
    ("rbac.authorization.k8s.io/v1/Role", false),
    ("rbac.authorization.k8s.io/v1/RoleBinding", false),
    ("rbac.authorization.k8s.io/v1/ClusterRole", false),
    ("rbac.authorization.k8s.io/v1/ClusterRoleBinding", false),
    ("scheduling.k8s.io/v1/PriorityClass", false),
    ("monitoring.coreos.com/v1/ServiceMonitor", true),
    ("monitoring.coreos.com/v1/PodMonitor", true),
    ("monitoring.coreos.com/v1/PrometheusRule", true),
    ("cert-manager.io/v1/Certificate", true),
    ("cert-manager.io/v1/Issuer", true),
    ("cert-manager.io/v1/ClusterIssuer", true),
    ("gateway.networking.k8s.io/v1/Gateway", true),
    ("gateway.networking.k8s.io/v1/HTTPRoute", true),
];

/// `kubernetes.json`.
#[derive(Default, Deserialize)]
struct Definitions {
    /// `apps/v1/Deployment` → the name of its schema.
    kinds: BTreeMap<String, String>,
    schemas: Map<String, Value>,
}

/// Compiles each kind's schema when it is first met.
pub(crate) struct Schemas {
    definitions: Definitions,
    compiled: HashMap<String, Validator>,
}

impl Schemas {
    /// # Errors
    /// When the file cannot be read or is not what [`vendor::write`] makes.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            definitions: serde_json::from_slice(&fs::read(root.join(FILE))?)?,
            compiled: HashMap::new(),
        })
    }

    /// What is wrong with an object, a line each.
    ///
    /// # Errors
    /// When the schema itself cannot be used.
    pub(crate) fn check(&mut self, object: &Object) -> anyhow::Result<Vec<String>> {
        let kind = format!("{}/{}", object.text("/apiVersion"), object.kind());
        let Some(name) = self.definitions.kinds.get(&kind) else {
            return Ok(vec![format!("{object}: `{kind}` is no kind that is known here")]);
        };
        if !self.compiled.contains_key(&kind) {
            // A slash in a pointer is written so.
            let pointer = format!("#/$defs/{}", name.replace('/', "~1"));
            let schema = json!({"$ref": pointer, "$defs": self.definitions.schemas});
            self.compiled
                .insert(kind.clone(), jsonschema::validator_for(&schema)?);
        }
        let errors = self.compiled[&kind].iter_errors(&object.0);
        Ok(errors
            .map(|error| format!("{object}: {}", tell(&error)))
            .collect())
    }
}

/// Where, and what was expected, without the value itself, which may be long.
fn tell(error: &ValidationError<'_>) -> String {
    format!(
        "{}: {}",
        error.instance_path().as_str().trim_start_matches('/'),
        error.masked()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::documents;

    fn findings(yaml: &str) -> Vec<String> {
        let mut schemas = Schemas::read(&e2e::observability::root()).expect("schemas");
        let objects = documents(yaml).expect("YAML").into_iter().map(Object);
        objects
            .flat_map(|object| schemas.check(&object).expect("usable"))
            .collect()
    }

    const PDB: &str =
        "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a}, spec: {maxUnavailable: 1}}";

    #[test]
    fn every_kind_has_a_schema() {
        let schemas = Schemas::read(&e2e::observability::root()).expect("schemas");
        let known: Vec<&String> = schemas.definitions.kinds.keys().collect();
        let mut listed: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        listed.sort_unstable();
        assert_eq!(known, listed);
    }

    #[test]
    fn valid_objects_pass() {
        assert_eq!(findings(PDB), [""; 0]);
        assert_eq!(findings(&PDB.replace("1}", "30%}")), [""; 0]);
    }

    #[test]
    fn unknown_keys_wrong_types_missing_keys_and_unknown_kinds_are_told() {
        for (right, wrong, told) in [
            ("maxUnavailable", "maxUnavailabel", "maxUnavailabel"),
            ("maxUnavailable: 1", "maxUnavailable: []", "spec/maxUnavailable"),
            ("name: a", "name: 1", "metadata/name"),
            ("name: a", "nam: a", "nam"),
            ("Budget", "Budgets", "no kind that is known"),
            ("policy/v1", "policy/v1beta1", "no kind that is known"),
        ] {
            let found = findings(&PDB.replace(right, wrong));
            assert!(found.len() == 1 && found[0].contains(told), "{wrong}: {found:?}");
        }
        let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}, policyTypes: [Ingress, Eggress]}}";
        assert_eq!(findings(policy).len(), 1, "a value that is not of the enum");
        let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}, spec: {resources: {requests: {storage: 1 GiB}}}}";
        assert_eq!(findings(claim).len(), 1, "a quantity that is none");
    }
}
