//! Kubernetes objects as JSON, and what the rules ask of them.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object(pub(crate) Value);

/// Kinds that belong to no namespace.
const CLUSTER_WIDE: [&str; 5] = [
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterIssuer",
    "PriorityClass",
];

impl Object {
    /// The text that `pointer` leads to; empty where there is none.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The list that `pointer` leads to.
    pub(crate) fn list(&self, pointer: &str) -> &[Value] {
        list(&self.0, pointer)
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub(crate) fn is_cluster_wide(&self) -> bool {
        CLUSTER_WIDE.contains(&self.kind())
    }

    /// The pod that it makes, where it makes any.
    pub(crate) fn pod(&self) -> Option<Pod<'_>> {
        let template = match self.kind() {
            "Pod" => "",
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => return None,
        };
        Some(Pod {
            owner: self,
            template: self.0.pointer(template)?,
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.namespace().is_empty() { "" } else { "/" };
        write!(
            f,
            "{} {}{separator}{}",
            self.kind(),
            self.namespace(),
            self.name()
        )
    }
}

/// A pod, or the template of some.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    /// What makes it.
    pub(crate) owner: &'a Object,
    template: &'a Value,
}

impl<'a> Pod<'a> {
    pub(crate) fn namespace(&self) -> &'a str {
        self.owner.namespace()
    }

    pub(crate) fn labels(&self) -> &'a Value {
        self.template.pointer("/metadata/labels").unwrap_or(&Value::Null)
    }

    pub(crate) fn annotations(&self) -> &'a Value {
        self.template
            .pointer("/metadata/annotations")
            .unwrap_or(&Value::Null)
    }

    /// `app.kubernetes.io/name`.
    pub(crate) fn app(&self) -> &'a str {
        self.labels()["app.kubernetes.io/name"]
            .as_str()
            .unwrap_or_default()
    }

    pub(crate) fn spec(&self) -> &'a Value {
        &self.template["spec"]
    }

    /// Those that serve, and those that run before them.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec();
        list(spec, "/initContainers")
            .iter()
            .chain(list(spec, "/containers"))
    }

    pub(crate) fn containers(&self) -> &'a [Value] {
        list(self.spec(), "/containers")
    }

    /// Whether it serves until it is told to stop.
    pub(crate) fn is_long_lived(&self) -> bool {
        !matches!(self.owner.kind(), "Job" | "CronJob" | "Pod")
    }

    /// The number of the port that is meant by its name or number.
    pub(crate) fn port(&self, port: &Value) -> Option<u64> {
        self.containers()
            .iter()
            .find_map(|container| port_of(container, port))
    }
}

/// The number of a container's port that is meant by its name or number.
pub(crate) fn port_of(container: &Value, port: &Value) -> Option<u64> {
    let mut ports = list(container, "/ports").iter();
    ports
        .find(|declared| match port {
            Value::String(name) => declared["name"] == name.as_str(),
            number => declared["containerPort"] == *number,
        })?
        .get("containerPort")?
        .as_u64()
}

/// The list that `pointer` leads to; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The map that `pointer` leads to, key by key.
pub(crate) fn entries<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}

/// The text under a key; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a LabelSelector picks these labels. An empty one picks all.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    entries(selector, "/matchLabels").all(|(name, value)| labels[name] == *value)
        && list(selector, "/matchExpressions").iter().all(|expression| {
            let label = &labels[text(expression, "key")];
            let listed = list(expression, "/values").contains(label);
            match text(expression, "operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !label.is_null(),
                "DoesNotExist" => label.is_null(),
                _ => false,
            }
        })
}

/// The objects of a text in YAML, its empty documents left out and its lists taken apart.
///
/// # Errors
/// When it is no YAML.
pub(crate) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        match Value::deserialize(document)? {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                let items = list.remove("items");
                found.extend(
                    items
                        .as_ref()
                        .and_then(Value::as_array)
                        .cloned()
                        .unwrap_or_default(),
                );
            }
            object => found.push(object),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_pick_by_labels_and_expressions() {
        let labels = json!({"app": "a", "tier": "x"});
        for (selector, picks) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "a"}}), true),
            (json!({"matchLabels": {"app": "b"}}), false),
            (json!({"matchLabels": {"app": "a", "zone": "c"}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}),
                true,
            ),
        ] {
            assert_eq!(selects(&selector, &labels), picks, "{selector}");
        }
    }

    #[test]
    fn documents_are_split_and_lists_taken_apart() {
        let found =
            documents("---\nkind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n").expect("YAML");
        let kinds: Vec<&str> = found.iter().map(|object| text(object, "kind")).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }
}
