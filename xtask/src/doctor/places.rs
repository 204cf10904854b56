//! Where the parts of the installation are, and how one is let in.

use super::{
    ask::{Ask, Client, Failed, without_secrets},
    report::{Found, Problem},
};
use crate::{dev::EnvFile, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

const REST_PORT: u16 = 8080;
const REST_URL: &str = "REST_URL";

/// What was named, by option or environment.
#[derive(Clone, Default, clap::Args)]
pub(super) struct Wanted {
    /// rest-api
    #[arg(long, env = REST_URL, value_name = "URL")]
    url: Option<String>,
    /// mcp-server's MCP endpoint, …/mcp
    #[arg(long, env = "MCP_URL", value_name = "URL")]
    mcp_url: Option<String>,
    /// worker
    #[arg(long, env = "WORKER_URL", value_name = "URL")]
    worker_url: Option<String>,
    /// Prometheus
    #[arg(long, env = "PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<String>,
    /// Alertmanager
    #[arg(long, env = "ALERTMANAGER_URL", value_name = "URL")]
    alertmanager_url: Option<String>,
    /// Loki
    #[arg(long, env = "LOKI_URL", value_name = "URL")]
    loki_url: Option<String>,
    /// Jaeger's query API
    #[arg(long, env = "JAEGER_URL", value_name = "URL")]
    jaeger_url: Option<String>,
    /// An API key; with the scope `debug` its request is traced whatever the sampling. The environment keeps it out of
    /// the list of processes
    #[arg(long, env = "API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// What opens /admin
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// The compose project that remedies are to name
    #[arg(long, env = "COMPOSE_PROJECT", value_name = "NAME")]
    compose_project: Option<String>,
}

/// A part of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    RestApi,
    McpServer,
    Worker,
    Prometheus,
    Alertmanager,
    Loki,
    Jaeger,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::RestApi,
        Self::McpServer,
        Self::Worker,
        Self::Prometheus,
        Self::Alertmanager,
        Self::Loki,
        Self::Jaeger,
    ];
    pub(super) const SERVICES: [Self; 3] = [Self::RestApi, Self::McpServer, Self::Worker];

    /// Its name, which for a service is also that of its job in Prometheus and in traces and logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RestApi => "rest-api",
            Self::McpServer => "mcp-server",
            Self::Worker => "worker",
            Self::Prometheus => "Prometheus",
            Self::Alertmanager => "Alertmanager",
            Self::Loki => "Loki",
            Self::Jaeger => "Jaeger",
        }
    }

    /// The variable that names it, its option, and its usual port.
    const fn usual(self) -> (&'static str, &'static str, u16) {
        match self {
            Self::RestApi => (REST_URL, "--url", REST_PORT),
            Self::McpServer => ("MCP_URL", "--mcp-url", 8090),
            Self::Worker => ("WORKER_URL", "--worker-url", 8091),
            Self::Prometheus => ("PROMETHEUS_URL", "--prometheus-url", 9090),
            Self::Alertmanager => ("ALERTMANAGER_URL", "--alertmanager-url", 9093),
            Self::Loki => ("LOKI_URL", "--loki-url", 3100),
            Self::Jaeger => ("JAEGER_URL", "--jaeger-url", 16686),
        }
    }
}

/// Where a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) part: Part,
    /// Without a path.
    pub(super) url: String,
    /// Somebody named it, or nothing works without it.
    is_expected: bool,
    /// Why it is not looked for.
    left_out: Option<String>,
}

impl Place {
    /// Why it cannot be there, when nobody said that it is.
    pub(super) fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// What it means that it failed so: `problem`, unless nobody said that the part is there.
    pub(super) fn missed(&self, failed: &Failed, problem: Problem) -> Found {
        self.excuse(failed)
            .map_or(Found::Failed(problem), Found::NotChecked)
    }

    /// Why nothing is wrong though it does not answer.
    fn excuse(&self, failed: &Failed) -> Option<String> {
        if self.is_expected || !failed.is_away {
            return None;
        }
        let (_, option, _) = self.part.usual();
        Some(format!(
            "no {} at {} ({option} names another place)",
            self.part.name(),
            without_secrets(&self.url)
        ))
    }
}

/// All of them.
pub(super) struct Places {
    places: Vec<Place>,
    pub(super) api_key: Option<String>,
    pub(super) admin_token: Option<String>,
    /// The compose project of what runs in containers.
    pub(super) project: Option<String>,
    /// For people: what is looked at, and who says so.
    pub(super) told: String,
}

/// A file of a running installation.
struct Known {
    /// As it is told.
    name: String,
    variables: Vec<(String, String)>,
}

impl Known {
    fn read(path: &Path, workspace: &Workspace) -> anyhow::Result<Self> {
        let variables = EnvFile::of(path).read();
        Ok(Self {
            name: workspace.shown(path),
            variables: variables.with_context(|| format!("reading {}", path.display()))?,
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.variables.iter();
        all.find_map(|(known, value)| (known == name && !value.is_empty()).then_some(value.as_str()))
    }

    fn answers(&self, client: &Client) -> bool {
        let ask = self.get(REST_URL).map(|url| Ask::of(url, "/healthz"));
        ask.is_some_and(|ask| client.get(&ask).is_ok())
    }
}

impl Places {
    /// Puts together what was named, what a file of a running installation says, and what is usual.
    ///
    /// # Errors
    /// When a file that was named cannot be read, or an address is not one.
    pub(super) fn find(
        workspace: &Workspace,
        wanted: &Wanted,
        env_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut others = Vec::new();
        let known = match env_file {
            Some(path) => Some(Known::read(path, workspace)?),
            None => {
                let files = files(workspace);
                let known = files.iter().filter_map(|path| Known::read(path, workspace).ok());
                let mut fitting = choose(known.collect(), wanted.of(Part::RestApi).as_deref()).into_iter();
                let first = fitting.next();
                others.extend(fitting.map(|known| known.name));
                first
            }
        };
        let mut places = resolve(wanted, known.as_ref())?;
        if !others.is_empty() {
            places.told += &format!("\nAlso running, for --env-file: {}", others.join(", "));
        }
        Ok(places)
    }

    /// Where a part is.
    pub(super) fn of(&self, part: Part) -> &Place {
        // There is one of each.
        &self.places[Part::ALL.iter().position(|one| *one == part).unwrap_or_default()]
    }
}

impl Wanted {
    fn of(&self, part: Part) -> Option<String> {
        let named = match part {
            Part::RestApi => &self.url,
            Part::McpServer => &self.mcp_url,
            Part::Worker => &self.worker_url,
            Part::Prometheus => &self.prometheus_url,
            Part::Alertmanager => &self.alertmanager_url,
            Part::Loki => &self.loki_url,
            Part::Jaeger => &self.jaeger_url,
        };
        named.clone().filter(|url| !url.is_empty())
    }
}

/// What `cargo xtask stack up` and `cargo xtask dev` leave, whether it still runs or not; the usual ones first.
fn files(workspace: &Workspace) -> Vec<PathBuf> {
    let stacks = workspace.root.join("target/stack");
    let usual = [
        stacks.join("stack.env"),
        workspace.target.join("dev/dev.env"),
        workspace.root.join("target/dev/dev.env"),
    ];
    let mut others: Vec<PathBuf> = fs::read_dir(stacks)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "env"))
        .collect();
    others.sort();
    let mut all: Vec<PathBuf> = Vec::new();
    for path in usual.into_iter().chain(others) {
        if path.is_file() && !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

/// Those of the named rest-api; of all that answer, when none was named. One installation may have two files.
fn choose(all: Vec<Known>, named: Option<&str>) -> Vec<Known> {
    let client = Client::new();
    let mut seen: Vec<String> = Vec::new();
    let fits = |known: &Known| match (named, known.get(REST_URL)) {
        (_, None) => false,
        (Some(named), Some(url)) => same(named) == same(url),
        (None, Some(_)) => known.answers(&client),
    };
    all.into_iter()
        .filter(fits)
        .filter(|known| {
            let url = same(known.get(REST_URL).unwrap_or_default());
            let is_new = !seen.contains(&url);
            seen.push(url);
            is_new
        })
        .collect()
}

/// An address such that two names of one place are equal.
fn same(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.replace("//localhost", "//127.0.0.1").to_ascii_lowercase()
}

fn resolve(wanted: &Wanted, known: Option<&Known>) -> anyhow::Result<Places> {
    let from_file = |name: &str| known.and_then(|known| known.get(name)).map(str::to_owned);
    let rest = wanted.of(Part::RestApi).or_else(|| from_file(REST_URL));
    let host = match &rest {
        Some(url) => host(url)?,
        None => "localhost".to_owned(),
    };
    let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let mut places = Vec::new();
    for part in Part::ALL {
        let (variable, option, port) = part.usual();
        let named = wanted.of(part).or_else(|| from_file(variable));
        let is_service = Part::SERVICES.contains(&part);
        // What is on this host is ours alone: a service that does not answer is a service that is down.
        let is_expected = named.is_some() || part == Part::RestApi || (is_service && is_here);
        let missing = known
            .filter(|_| named.is_none())
            .map(|known| format!("{} names no {} ({option} does)", known.name, part.name()));
        let url = named.unwrap_or_else(|| format!("http://{host}:{port}"));
        let url = url.trim_end_matches('/');
        let url = url.strip_suffix("/mcp").unwrap_or(url);
        self::host(url).with_context(|| format!("{option} (or {variable})"))?;
        places.push(Place {
            part,
            url: url.to_owned(),
            is_expected,
            left_out: missing,
        });
    }
    let whence = known.map_or_else(String::new, |known| format!(", as {} says", known.name));
    let told = format!("{}{whence}", without_secrets(&places[0].url));
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    Ok(Places {
        places,
        api_key: given(&wanted.api_key).or_else(|| from_file("API_KEY")),
        admin_token: given(&wanted.admin_token).or_else(|| from_file("ADMIN_TOKEN")),
        project: given(&wanted.compose_project).or_else(|| from_file("COMPOSE_PROJECT")),
        told,
    })
}

/// The host in an address.
fn host(url: &str) -> anyhow::Result<String> {
    let shown = without_secrets(url);
    ensure!(
        !url.starts_with("https://"),
        "{shown}: this program speaks no TLS. Ask from where plain HTTP is spoken, or bring the port here: \
         `kubectl port-forward svc/rest-api 8080`, `ssh -L 8080:localhost:8080 HOST`"
    );
    let rest = url.strip_prefix("http://");
    let rest = rest.with_context(|| format!("{shown} is no address: expected http://HOST:PORT"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    // An IPv6 address has colons of its own, within brackets.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    ensure!(
        !host.is_empty(),
        "{shown} is no address: expected http://HOST:PORT"
    );
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, pairs: &[(&str, &str)]) -> Known {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Known {
            name: name.to_owned(),
            variables: pairs.collect(),
        }
    }

    fn away(place: &Place) -> bool {
        let failed = Failed {
            asked: String::new(),
            came: String::new(),
            is_away: true,
            is_late: false,
        };
        place.excuse(&failed).is_some()
    }

    #[test]
    fn by_default_services_are_expected_on_this_host_and_the_rest_may_be_there() -> anyhow::Result<()> {
        let places = resolve(&Wanted::default(), None)?;
        assert_eq!(places.of(Part::McpServer).url, "http://localhost:8090");
        assert!(!away(places.of(Part::Worker)));
        assert!(away(places.of(Part::Loki)));
        Ok(())
    }

    #[test]
    fn what_is_named_wins_over_the_file_and_is_expected() -> anyhow::Result<()> {
        let file = known(
            "dev.env",
            &[
                ("REST_URL", "http://127.0.0.1:8580"),
                ("MCP_URL", "http://127.0.0.1:8590/mcp"),
                ("API_KEY", "from-file"),
            ],
        );
        let wanted = Wanted {
            loki_url: Some("http://logs:3100/".to_owned()),
            api_key: Some("given".to_owned()),
            ..Wanted::default()
        };
        let places = resolve(&wanted, Some(&file))?;
        assert_eq!(places.of(Part::McpServer).url, "http://127.0.0.1:8590");
        assert_eq!(places.of(Part::Loki).url, "http://logs:3100");
        assert!(!away(places.of(Part::Loki)));
        assert_eq!(places.api_key.as_deref(), Some("given"));
        let missing = places.of(Part::Jaeger).left_out().unwrap_or_default();
        assert!(missing.contains("dev.env names no Jaeger"), "{missing}");
        Ok(())
    }

    #[test]
    fn another_host_s_parts_are_looked_for_there() -> anyhow::Result<()> {
        let wanted = Wanted {
            url: Some("http://prod:80".to_owned()),
            ..Wanted::default()
        };
        let places = resolve(&wanted, None)?;
        assert_eq!(places.of(Part::Worker).url, "http://prod:8091");
        assert!(away(places.of(Part::Worker)) && !away(places.of(Part::RestApi)));
        Ok(())
    }

    #[test]
    fn a_file_is_used_for_the_rest_api_that_it_names() {
        let all = || {
            vec![
                known("a", &[("REST_URL", "http://127.0.0.1:1")]),
                known("b", &[("REST_URL", "http://127.0.0.1:2")]),
                known("copy of b", &[("REST_URL", "http://127.0.0.1:2")]),
            ]
        };
        let chosen = choose(all(), Some("http://localhost:2/"));
        assert_eq!(chosen.iter().map(|known| &known.name).collect::<Vec<_>>(), ["b"]);
        assert!(choose(all(), Some("http://prod:2")).is_empty());
    }

    #[test]
    fn an_address_is_understood_or_refused() -> anyhow::Result<()> {
        assert_eq!(host("http://a:80/x")?, "a");
        assert_eq!(host("http://[::1]:80")?, "[::1]");
        assert_eq!(host("http://[::1]")?, "[::1]");
        for wrong in ["https://a", "a:80", "http://", "http://:80"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
