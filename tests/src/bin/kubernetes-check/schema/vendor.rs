//! Makes `kubernetes.json`: the schemas of the kinds that we use, from a cluster's own API and from the files that others
//! publish their kinds in, without prose and with unknown keys refused.

use super::{Definitions, FILE, KINDS};
use crate::objects::documents;
use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Where the API server keeps the definitions that a schema refers to.
const POINTER: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// As the documentation of the type writes it.
const QUANTITY: &str = "^[+-]?([0-9]+|[0-9]+\\.[0-9]*|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";
/// Ways to issue certificates that we do not use, each larger than everything else together.
const LEFT_OUT: [&str; 3] = ["acme", "vault", "venafi"];

/// Asks the cluster that kubectl is set up for, reads the definitions of other kinds from `crds`, and writes the file.
///
/// # Errors
/// When kubectl fails, a file is no definition of kinds, or one of our kinds was found nowhere.
pub(crate) fn write(root: &Path, crds: &[String]) -> anyhow::Result<()> {
    let mut all = Definitions::default();
    for (kind, _) in KINDS.iter().filter(|(_, published)| !published) {
        let api = kind.rsplit_once('/').map_or("", |(api, _)| api);
        let path = if api.contains('/') { "apis" } else { "api" };
        let output = Command::new("kubectl")
            .args(["get", "--raw", &format!("/openapi/v3/{path}/{api}")])
            .output()
            .context("starting kubectl")?;
        anyhow::ensure!(
            output.status.success(),
            "{api}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        of_cluster(&mut all, serde_json::from_slice(&output.stdout)?);
    }
    for file in crds {
        let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        for definition in documents(&text).with_context(|| file.clone())? {
            of_others(&mut all, definition);
        }
    }
    let mut needed = BTreeSet::new();
    for (kind, _) in KINDS {
        let Some(name) = all.kinds.get(*kind) else {
            bail!("{kind} was found nowhere");
        };
        reach(&all, name, &mut needed);
    }
    all.kinds
        .retain(|kind, _| KINDS.iter().any(|(ours, _)| ours == kind));
    all.schemas.retain(|name, _| needed.contains(name));
    let path = root.join(FILE);
    fs::write(&path, lines(&all)?).with_context(|| format!("writing {}", path.display()))
}

/// A definition a line, so that a change can be read.
fn lines(all: &Definitions) -> anyhow::Result<String> {
    let section = |name: &str, entries: Vec<(&String, String)>| {
        let entries: Vec<String> = entries
            .iter()
            .map(|(name, value)| format!("  {}: {value}", json!(name)))
            .collect();
        format!("{}: {{\n{}\n}}", json!(name), entries.join(",\n"))
    };
    let kinds = all
        .kinds
        .iter()
        .map(|(name, value)| (name, json!(value).to_string()));
    let schemas = all.schemas.iter().map(|(name, value)| (name, value.to_string()));
    Ok(format!(
        "{{\n{},\n{}\n}}\n",
        section("kinds", kinds.collect()),
        section("schemas", schemas.collect())
    ))
}

/// What one group of the API server's documents defines.
fn of_cluster(all: &mut Definitions, mut document: Value) {
    let schemas = document.pointer_mut("/components/schemas").map(Value::take);
    let Some(Value::Object(schemas)) = schemas else {
        return;
    };
    for (name, mut schema) in schemas {
        let kinds = schema["x-kubernetes-group-version-kind"].take();
        for kind in kinds.as_array().into_iter().flatten() {
            let part = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            let (group, version, kind) = (part("group"), part("version"), part("kind"));
            let separator = if group.is_empty() { "" } else { "/" };
            all.kinds
                .insert(format!("{group}{separator}{version}/{kind}"), name.clone());
        }
        let schema = match name.as_str() {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => {
                json!({"oneOf": [{"type": "string", "pattern": QUANTITY}, {"type": "number"}]})
            }
            _ => strict(schema, true),
        };
        all.schemas.insert(name, schema);
    }
}

/// What a CustomResourceDefinition defines; nothing where it is something else.
fn of_others(all: &mut Definitions, mut definition: Value) {
    let part = |pointer: &str| {
        let value = definition.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let (group, kind) = (part("/spec/group"), part("/spec/names/kind"));
    let versions = definition.pointer_mut("/spec/versions").map(Value::take);
    for mut version in versions
        .as_ref()
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
    {
        let name = format!("{group}/{}/{kind}", version["name"].as_str().unwrap_or_default());
        let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema").map(Value::take) else {
            continue;
        };
        let mut schema = strict(schema, true);
        schema["properties"]["metadata"] = json!({"$ref": format!("#/$defs/{OBJECT_META}")});
        all.kinds.insert(name.clone(), name.clone());
        all.schemas.insert(name, schema);
    }
}

/// The schema without prose; `closed` where it says which keys there are, not where it only adds conditions.
fn strict(schema: Value, closed: bool) -> Value {
    let Value::Object(schema) = schema else {
        return schema;
    };
    let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    let mut kept = Map::new();
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("description" | "default" | "format" | "example" | "title", _) => continue,
            (key, _) if key.starts_with("x-") => continue,
            ("properties", Value::Object(properties)) => {
                let ours = properties
                    .into_iter()
                    .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
                ours.map(|(name, value)| (name, strict(value, closed)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            ("items" | "additionalProperties", value) => strict(value, closed),
            ("anyOf" | "oneOf" | "allOf", Value::Array(parts)) => {
                parts.into_iter().map(|part| strict(part, false)).collect()
            }
            ("not", value) => strict(value, false),
            ("$ref", Value::String(pointer)) => pointer.replace(POINTER, "#/$defs/").into(),
            (_, value) => value,
        };
        kept.insert(key, value);
    }
    if closed && !open && kept.contains_key("properties") && !kept.contains_key("additionalProperties") {
        kept.insert("additionalProperties".to_owned(), json!(false));
    }
    kept.into()
}

/// The definitions that `name` needs, and itself.
fn reach(all: &Definitions, name: &str, found: &mut BTreeSet<String>) {
    if !found.insert(name.to_owned()) {
        return;
    }
    let mut waiting: Vec<&Value> = all.schemas.get(name).into_iter().collect();
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(object) => {
                let pointer = object.get("$ref").and_then(Value::as_str);
                if let Some(name) = pointer.and_then(|pointer| pointer.strip_prefix("#/$defs/")) {
                    reach(all, name, found);
                }
                waiting.extend(object.values());
            }
            Value::Array(list) => waiting.extend(list),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_goes_unknown_keys_are_refused_and_conditions_stay_open() {
        let schema = json!({
            "description": "a thing", "type": "object", "x-kubernetes-validations": [],
            "properties": {"description": {"type": "string"}, "free": {
                "type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true}},
            "oneOf": [{"properties": {"description": {"type": "string"}}}],
            "allOf": [{"$ref": "#/components/schemas/a"}],
        });
        assert_eq!(
            strict(schema, true),
            json!({
                "type": "object",
                "properties": {"description": {"type": "string"}, "free": {"type": "object", "properties": {}}},
                "oneOf": [{"properties": {"description": {"type": "string"}}}],
                "allOf": [{"$ref": "#/$defs/a"}],
                "additionalProperties": false,
            })
        );
    }
}
