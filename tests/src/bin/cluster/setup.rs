//! What is put into the cluster.

use anyhow::Context as _;
use std::{path::PathBuf, str::FromStr};

/// What a run works with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Setup {
    /// The repository.
    #[arg(long)]
    pub(crate) root: PathBuf,
    /// A folder for what is generated.
    #[arg(long)]
    pub(crate) work: PathBuf,
    /// The image of the tests' own programs.
    #[arg(long, default_value = "devops-mcp/tests:0.1.0")]
    pub(crate) tests_image: String,
    /// `NAME=IMAGE`: an image to take instead of the manifests' one of that name.
    #[arg(long = "image")]
    pub(crate) images: Vec<Replacement>,
    /// The end-to-end tests that services as they are can pass.
    #[arg(long, value_delimiter = ',')]
    pub(crate) tests: Vec<String>,
    /// Grafana's image cannot be had.
    #[arg(long)]
    pub(crate) without_grafana: bool,
}

/// An image that stands for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// The manifests' name, without a tag.
    pub(crate) name: String,
    /// What is taken instead, and its tag.
    pub(crate) with: (String, String),
}

impl FromStr for Replacement {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, image) = text.split_once('=').context("NAME=IMAGE")?;
        // A registry's port is no tag.
        let (repository, tag) = image
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .unwrap_or((image, "latest"));
        Ok(Self {
            name: name.to_owned(),
            with: (repository.to_owned(), tag.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_s_port_is_no_tag() -> anyhow::Result<()> {
        let parsed: Replacement = "prom/prometheus=mirror:5000/prometheus:3.15".parse()?;
        assert_eq!(parsed.name, "prom/prometheus");
        assert_eq!(
            parsed.with,
            ("mirror:5000/prometheus".to_owned(), "3.15".to_owned())
        );
        let parsed: Replacement = "a=mirror:5000/b".parse()?;
        assert_eq!(parsed.with, ("mirror:5000/b".to_owned(), "latest".to_owned()));
        Ok(())
    }
}
