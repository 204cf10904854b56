//! How much room is left where the service writes.

use crate::metrics::Registry;
use crate::settings::{Output, Settings};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};

crate::metrics! {
    /// Bytes that may still be written to the file system that a directory of the service lies on.
    pub(crate) static FREE: Gauge["directory"] = "data_directory_free_bytes";
    /// Size of the file system that a directory of the service lies on.
    pub(crate) static SIZE: Gauge["directory"] = "data_directory_size_bytes";
}

/// Measures the directory of the log file, if there is one, and those that the settings name.
pub(crate) fn observe_all(registry: &Registry, settings: &Settings) {
    if let Output::File(file) = &settings.logging.output {
        observe(registry, "logs", directory_of(file));
    }
    for (name, path) in &settings.data_directories {
        observe(registry, name, path.clone());
    }
}

/// Measures one directory at each scrape. While it is not there, its series are neither.
pub(crate) fn observe(registry: &Registry, name: &str, path: PathBuf) {
    let name = name.to_owned();
    registry.on_scrape_samples(move |samples| {
        if let Ok(there) = statvfs(&path) {
            let block = there.fragment_size() as f64;
            samples.push(
                FREE.declaration(),
                &[&name],
                there.blocks_available() as f64 * block,
            );
            samples.push(SIZE.declaration(), &[&name], there.blocks() as f64 * block);
        }
    });
}

/// Where a file lies; one without a directory lies in the current one.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    #[test]
    fn the_log_files_and_the_named_directories_are_measured() {
        let registry = Registry::new("test", &[DECLARATIONS], &settings::Metrics::default()).unwrap();
        let mut settings = Settings::default();
        settings.logging.output = Output::File("service.log".into());
        settings
            .data_directories
            .insert("spool".into(), std::env::temp_dir());
        settings
            .data_directories
            .insert("gone".into(), "/nowhere/at/all".into());
        observe_all(&registry, &settings);
        let (_, page) = registry.render(None);
        let value = |metric: &str, directory: &str| {
            let series = format!("{metric}{{service=\"test\",directory=\"{directory}\"}} ");
            let found = page.lines().find_map(|line| line.strip_prefix(&series));
            found.map(|value| value.parse::<f64>().unwrap())
        };
        for directory in ["logs", "spool"] {
            let free = value("data_directory_free_bytes", directory).unwrap();
            let size = value("data_directory_size_bytes", directory).unwrap();
            assert!(0.0 < size && (0.0..=size).contains(&free), "{page}");
        }
        assert_eq!(value("data_directory_size_bytes", "gone"), None);
    }
}
