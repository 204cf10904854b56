//! The files that a container finds: a folder with samples of what its Secrets hold.

use crate::{
    objects::{Pod, list, text},
    world::World,
};
use anyhow::Context;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A folder that goes with this.
pub(super) struct Files {
    root: PathBuf,
    /// Where Secrets are mounted.
    mounted: Vec<String>,
}

impl Drop for Files {
    fn drop(&mut self) {
        // What stays behind is a few small files in a folder for such.
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Files {
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn of(world: &World<'_>, pod: &Pod<'_>, container: &Value) -> anyhow::Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubernetes-check-{}-{number}", process::id());
        let mut files = Self {
            root: env::temp_dir().join(name),
            mounted: Vec::new(),
        };
        for mount in list(container, "/volumeMounts") {
            let volumes = list(pod.spec(), "/volumes").iter();
            let volume = volumes.filter(|volume| volume["name"] == mount["name"]);
            for (secret, key, path) in volume.flat_map(|volume| keys(world, pod, volume)) {
                let path = format!("{}/{path}", text(mount, "mountPath"));
                let file = files.root.join(path.trim_start_matches('/'));
                let folder = file.parent().context("a file is in a folder")?;
                fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                fs::write(&file, sample(&secret, &key)).with_context(|| file.display().to_string())?;
                files.mounted.push(path);
            }
        }
        Ok(files)
    }

    /// The variables, with the paths of files as they are here.
    ///
    /// # Errors
    /// Names the variable whose file nobody brings.
    pub(super) fn in_place(
        &self,
        variables: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut found = BTreeMap::new();
        for (name, value) in variables {
            let here = self.mounted.contains(&value);
            if value.starts_with("/run/") && !here {
                return Err(format!("{name}: no Secret brings {value}"));
            }
            let value = if here {
                self.root
                    .join(value.trim_start_matches('/'))
                    .display()
                    .to_string()
            } else {
                value
            };
            found.insert(name, value);
        }
        Ok(found)
    }
}

/// Secret, key and path of all that a volume brings and that is not optional.
fn keys(world: &World<'_>, pod: &Pod<'_>, volume: &Value) -> Vec<(String, String, String)> {
    let single = [&volume["secret"]]
        .into_iter()
        .map(|secret| (secret, "secretName"));
    let projected = list(volume, "/projected/sources")
        .iter()
        .map(|source| (&source["secret"], "name"));
    let mut found = Vec::new();
    for (secret, name_key) in single.chain(projected) {
        let name = text(secret, name_key).to_owned();
        if secret.is_null() || secret["optional"] == true {
            continue;
        }
        let items = list(secret, "/items");
        let own = items
            .iter()
            .map(|item| (text(item, "key").to_owned(), text(item, "path").to_owned()));
        found.extend(own.map(|(key, path)| (name.clone(), key, path)));
        if items.is_empty() {
            let all = super::references::keys(world, "Secret", pod.namespace(), &name).unwrap_or_default();
            found.extend(
                all.into_iter()
                    .map(|key| (name.clone(), key.to_owned(), key.to_owned())),
            );
        }
    }
    found
}

/// What may stand there.
fn sample(secret: &str, key: &str) -> &'static str {
    match (secret, key) {
        ("database", "url") => "postgres://devops_mcp@database:5432/devops_mcp",
        ("redis", "url") => "redis://redis:6379",
        ("credentials-keys", _) => "v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        _ => "0123456789abcdef0123456789abcdef0123456789abcdef",
    }
}
