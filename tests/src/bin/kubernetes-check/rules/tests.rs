//! Each rule passes a small installation that is right, and is broken by a change to it.

use super::{RULES, references::SECRETS};
use crate::{
    objects::{Object, documents},
    schema::Schemas,
    sources::Sources,
    world::{Purpose, World},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
};

fn sources() -> Sources {
    Sources {
        files: [("a.rules.yml".to_owned(), "groups: []\n".to_owned())].into(),
        images: ["rest-api", "mcp-server", "worker"]
            .map(|name| format!("devops-mcp/{name}:0.1.0"))
            .into_iter()
            .chain(["prom/prometheus:v3.14.0".to_owned()])
            .collect(),
    }
}

fn sample(sources: &Sources) -> World<'_> {
    let objects = documents(include_str!("sample.yaml")).expect("YAML");
    World {
        name: "sample".to_owned(),
        purpose: Purpose::Whole,
        objects: objects.into_iter().map(Object).collect(),
        sources,
    }
}

/// A line of `breaks.yaml`.
#[derive(Deserialize)]
struct Break {
    /// Kind and name of an object.
    of: String,
    /// A pointer into it.
    at: String,
    /// What stands there then; null: nothing.
    #[serde(default)]
    to: Value,
}

fn breaks() -> BTreeMap<String, Vec<Break>> {
    yaml_serde::from_str(include_str!("breaks.yaml")).expect("YAML")
}

/// Puts `value` where `pointer` leads, or takes away what is there.
fn change(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let key = key.replace("~1", "/");
    let parent = object
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("no {parent}"));
    match parent {
        Value::Array(list) => {
            let index: usize = key.parse().expect("an index");
            if value.is_null() {
                list.remove(index);
            } else {
                list[index] = value;
            }
        }
        Value::Object(map) if value.is_null() => assert!(map.remove(&key).is_some(), "no {pointer}"),
        other => other[key] = value,
    }
}

#[test]
fn the_sample_is_valid_and_keeps_every_rule() {
    let sources = sources();
    let world = sample(&sources);
    let mut schemas = Schemas::read(&e2e::observability::root()).expect("schemas");
    let invalid = world
        .objects
        .iter()
        .flat_map(|object| schemas.check(object).expect("usable"));
    assert_eq!(invalid.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(super::check(&world), [""; 0]);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let sources = sources();
    let proven = breaks();
    let known: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert!(
        proven.keys().all(|rule| known.contains(&rule.as_str())),
        "a rule that is none"
    );
    for (rule, check) in RULES {
        let breaks = proven.get(*rule).unwrap_or_else(|| panic!("{rule} is unproven"));
        for Break { of, at, to } in breaks {
            let mut world = sample(&sources);
            let mut objects = world.objects.iter_mut();
            let object = objects.find(|object| format!("{} {}", object.kind(), object.name()) == *of);
            change(&mut object.expect("is in the sample").0, at, to.clone());
            assert_ne!(check(&world), [""; 0], "{rule}: {of} {at} {to}");
        }
    }
}

/// Of what `kubectl apply` would not take.
#[test]
fn objects_may_be_so_large() {
    let sources = sources();
    let mut world = sample(&sources);
    let map = world
        .objects
        .iter_mut()
        .find(|object| object.kind() == "ConfigMap");
    map.expect("is in the sample").0["data"]["LARGE"] = json!("x".repeat(300_000));
    assert_eq!(
        super::structure::objects_are_there_once_and_can_be_applied(&world).len(),
        1
    );
}

/// The script itself, with a kubectl that only remembers.
#[test]
fn the_script_makes_the_secrets_that_pods_read() {
    let folder = std::env::temp_dir().join(format!("kubernetes-check-secrets-{}", std::process::id()));
    fs::create_dir_all(folder.join("made")).expect("a folder");
    let kubectl = folder.join("kubectl");
    let program = r#"#!/bin/sh
made=$(dirname "$0")/made
case "$*" in
  *" create secret generic "*)
    file=$made/$2.$6
    for option; do case $option in --from-file=*) basename "${option#*=}" ;; esac; done >"$file" ;;
  *" get secret "*" -o name") [ -e "$made/$2.$5" ] && echo found ;;
  *" get secret redis "*) printf redis://redis:6379 ;;
  *) cat >/dev/null ;;
esac
exit 0
"#;
    fs::write(&kubectl, program).expect("a script");
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(e2e::observability::root().join("deploy/kubernetes/secrets.sh"))
        .args([
            "--database-url",
            "postgres://a@b:5432/c",
            "--redis-url",
            "redis://redis:6379",
        ])
        .env("PATH", format!("{}:{path}", folder.display()))
        .output()
        .expect("it starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (namespace, name, keys) in SECRETS {
        let made = fs::read_to_string(folder.join(format!("made/{namespace}.{name}"))).unwrap_or_default();
        let made: BTreeSet<&str> = made.lines().collect();
        assert_eq!(made, keys.iter().copied().collect(), "{namespace}/{name}");
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}
