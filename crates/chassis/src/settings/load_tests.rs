use super::*;
use crate::settings::{Common, print};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    database: Database,
    limits: Limits,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Database {
    url: String,
    #[serde(serialize_with = "crate::settings::mask")]
    replica: SecretString,
    #[serde(with = "crate::settings::duration")]
    timeout: Duration,
    #[serde(with = "crate::settings::duration_option")]
    idle: Option<Duration>,
    #[serde(serialize_with = "crate::settings::mask")]
    credentials_key: Option<SecretString>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite://app.db".into(),
            replica: SecretString::from("postgres://app:hunter2@replica"),
            timeout: Duration::from_secs(5),
            idle: None,
            credentials_key: None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    #[serde(with = "crate::settings::size")]
    item_bytes: usize,
    allow: Vec<String>,
    strict: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            item_bytes: 1 << 20,
            allow: Vec::new(),
            strict: true,
        }
    }
}

impl Settings for Sample {
    fn common() -> Common {
        Common::listening(8099, Some(50099))
    }

    fn validate(&self, common: &Common) -> Result<(), Invalid> {
        if self.limits.item_bytes > common.http.max_body_bytes {
            return Err(Invalid::new("limits.item_bytes", "at most http.max_body_bytes"));
        }
        Ok(())
    }
}

fn load_from(yaml: &str, variables: &[(&str, &str)]) -> Result<Configuration<Sample>, SettingsError> {
    let file = Source::file(Path::new("config.yaml"), yaml)?;
    combine(
        Some(file),
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn refusal(yaml: &str, variables: &[(&str, &str)]) -> String {
    load_from(yaml, variables).expect_err("refused").to_string()
}

#[test]
fn later_sources_win_and_the_rest_stays_as_it_was() {
    // The guide's own file.
    let yaml = "
monitoring:
  logging:
    level: info
    format: json
    output: stdout
    fields:
      - service
      - version
http:
database:
  timeout: 1m 30s
limits: { item_bytes: 64KiB, allow: [a], strict: false }
";
    let variables = [
        ("DEVOPS_MCP__HTTP__ADDRESS", "0.0.0.0:8080"),
        ("DEVOPS_MCP__MONITORING__LOGGING__LEVEL", "debug"),
        ("DEVOPS_MCP__LIMITS__ALLOW", "10.0.0.0/8, ::1/128"),
        ("DEVOPS_MCP__LIMITS__STRICT", "true"),
        ("DEVOPS_MCP__DATABASE__IDLE", "10m"),
        ("ADMIN_TOKEN", "12345"),
        ("SERVICE_TOKEN", ""),
        ("PATH", "/bin"),
    ];
    let Configuration { common, service } = load_from(yaml, &variables).expect("good settings");
    assert_eq!(common.http.address.to_string(), "0.0.0.0:8080");
    assert_eq!(common.grpc.address.expect("a default").port(), 50099);
    assert_eq!(common.monitoring.logging.level, "debug");
    assert_eq!(common.monitoring.logging.fields.len(), 2);
    assert_eq!(common.admin_token.expect("set").expose_secret(), "12345");
    assert!(common.service_token.is_none());
    assert_eq!(service.database.url, "sqlite://app.db");
    assert_eq!(
        service.database.replica.expose_secret(),
        "postgres://app:hunter2@replica"
    );
    assert_eq!(service.database.timeout, Duration::from_secs(90));
    assert_eq!(service.database.idle, Some(Duration::from_secs(600)));
    assert_eq!(service.limits.item_bytes, 65_536);
    assert_eq!(service.limits.allow, ["10.0.0.0/8", "::1/128"]);
    assert!(service.limits.strict);
}

#[test]
fn unknown_keys_are_refused_with_their_place() {
    let refused = refusal("htpp: { address: 'x' }", &[]);
    assert!(
        refused.starts_with("unknown setting htpp.address (from config.yaml); expected one of admin_token, "),
        "{refused}"
    );
    let refused = refusal("", &[("DEVOPS_MCP__HTPP__ADDRESS", "127.0.0.1:1")]);
    assert!(
        refused.starts_with("unknown setting htpp.address (from DEVOPS_MCP__HTPP__ADDRESS)"),
        "{refused}"
    );
    let refused = refusal("monitoring: { logging: { levle: info } }", &[]);
    assert_eq!(
        refused,
        "unknown setting monitoring.logging.levle (from config.yaml); expected one of level, format, output, fields"
    );
    let refused = refusal("", &[("DEVOPS_MCP__LIMITS__ITEMS", "3")]);
    assert!(
        refused.starts_with("unknown setting limits.items (from DEVOPS_MCP__LIMITS__ITEMS)"),
        "{refused}"
    );
}

#[test]
fn wrong_values_name_key_place_and_expectation() {
    let cases = [
        (
            "http: { address: here }",
            None,
            "setting http.address (from config.yaml): expected an address such as 127.0.0.1:8080",
        ),
        (
            "limits: { strict: 3.5 }",
            None,
            "setting limits.strict (from config.yaml): expected a boolean, found float `3.5`",
        ),
        (
            "database: { timeout: 5 }",
            None,
            "setting database.timeout (from config.yaml): expected a duration such as 250ms, 5s or 10m, found unsigned int `5`",
        ),
        (
            "database: { timeout: 5s }",
            Some(("DEVOPS_MCP__DATABASE__TIMEOUT", "soon")),
            "setting database.timeout (from DEVOPS_MCP__DATABASE__TIMEOUT): \
             expected a duration such as 250ms, 5s or 10m, found string \"soon\"",
        ),
        (
            "",
            Some(("DEVOPS_MCP__LIMITS__ITEM_BYTES", "1MB")),
            "setting limits.item_bytes (from DEVOPS_MCP__LIMITS__ITEM_BYTES): \
             expected a number of bytes, or a size such as 64KiB or 1MiB, found string \"1MB\"",
        ),
        (
            "limits: { item_bytes: 1GiB }",
            None,
            "setting limits.item_bytes (from config.yaml): expected at most http.max_body_bytes",
        ),
        (
            "http: { request_timeout: 0s }",
            None,
            "setting http.request_timeout (from config.yaml): expected a duration above zero",
        ),
        (
            "monitoring: { logging: { format: xml } }",
            None,
            "setting monitoring.logging.format (from config.yaml): expected one of json, pretty, auto, found `xml`",
        ),
        // What was found may be a secret.
        (
            "admin_token: 12345",
            None,
            "setting admin_token (from config.yaml): expected a string",
        ),
        (
            "http: fast",
            None,
            "setting http (from config.yaml): expected struct Http, found string \"fast\"",
        ),
    ];
    for (yaml, variable, expected) in cases {
        assert_eq!(refusal(yaml, variable.as_slice()), expected);
    }
    assert!(refusal("http: [", &[]).starts_with("config.yaml is not valid YAML: "));
}

#[test]
fn printed_settings_are_masked_and_can_be_read_again() {
    let yaml = "
admin_token: opensesame
database: { url: 'postgres://app:hunter2@db/app', credentials_key: 'k1:AAAA' }
";
    let printed = print(&load_from(yaml, &[]).expect("good settings")).expect("YAML");
    assert!(printed.contains("admin_token: '***'"), "{printed}");
    assert!(printed.contains("url: postgres://app:***@db/app"), "{printed}");
    assert!(
        !["opensesame", "hunter2", "AAAA"]
            .iter()
            .any(|secret| printed.contains(secret)),
        "{printed}"
    );
    let again = load_from(&printed, &[]).expect("what was printed is a settings file");
    assert_eq!(again.service.limits.item_bytes, 1 << 20);
}

#[test]
fn secrets_may_stand_in_files_of_their_own() {
    let directory = std::env::temp_dir().join(format!("chassis-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (admin, replica) = (file("admin", "opensesame\r\n"), file("replica", "postgres://r\n"));
    let empty = file("empty", "\n");
    let variables = [
        ("ADMIN_TOKEN_FILE", admin.as_str()),
        ("SERVICE_TOKEN_FILE", ""),
        ("DEVOPS_MCP__DATABASE__REPLICA_FILE", &replica),
        // A setting whose own name ends so.
        ("DEVOPS_MCP__READY_FILE", "/run/ready"),
        ("HISTORY_FILE", "/nowhere"),
    ];
    let Configuration { common, service } = load_from("", &variables).expect("good settings");
    assert_eq!(common.admin_token.expect("set").expose_secret(), "opensesame");
    assert_eq!(service.database.replica.expose_secret(), "postgres://r");
    assert!(common.service_token.is_none());
    assert_eq!(common.ready_file.expect("set"), Path::new("/run/ready"));

    let refused = refusal("", &[("ADMIN_TOKEN", "x"), ("ADMIN_TOKEN_FILE", &admin)]);
    assert_eq!(
        refused,
        "setting admin_token (from ADMIN_TOKEN_FILE): ADMIN_TOKEN is set, too; expected only one of them"
    );
    let refused = refusal("", &[("SERVICE_TOKEN_FILE", &empty)]);
    assert_eq!(
        refused,
        format!("setting service_token (from SERVICE_TOKEN_FILE): {empty} is empty")
    );
    let refused = refusal("", &[("DEVOPS_MCP__DATABASE__URL_FILE", "/nowhere/url")]);
    assert!(
        refused.starts_with(
            "setting database.url (from DEVOPS_MCP__DATABASE__URL_FILE): cannot read /nowhere/url: "
        ),
        "{refused}"
    );
    let refused = refusal("", &[("DEVOPS_MCP__DATABASE__NAME_FILE", &admin)]);
    assert!(
        refused.starts_with("unknown setting database.name_file"),
        "{refused}"
    );
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn faults_are_planted_by_name_and_never_in_production() {
    use crate::faults::Fault;
    let planted = [("DEVOPS_MCP__TEST_FAULTS", "leak, slow_query")];
    let common = load_from("", &planted).expect("good settings").common;
    assert_eq!(common.test_faults, [Fault::Leak, Fault::SlowQuery]);
    for production in ["Production", "PROD", "prod-eu", "' production '", "eu_live"] {
        let refused = refusal(&format!("environment: {production}"), &planted);
        assert!(
            refused.starts_with("setting test_faults"),
            "{production}: {refused}"
        );
    }
    for other in ["development", "pre_staging", "products"] {
        assert!(
            load_from(&format!("environment: {other}"), &planted).is_ok(),
            "{other}"
        );
    }
    assert_eq!(
        refusal("environment: production", &planted),
        "setting test_faults (from DEVOPS_MCP__TEST_FAULTS): expected nothing where the environment is production: \
         these faults are for tests"
    );
    let refused = refusal("test_faults: [lek]", &[]);
    assert!(
        refused.contains("expected one of leak, blocking_call, busy_call, slow_query, next_migration, failing_migration, found `lek`"),
        "{refused}"
    );
}
