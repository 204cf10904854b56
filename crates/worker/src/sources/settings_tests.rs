use super::*;
use crate::settings::Settings as Worker;
use chassis::settings::{Configuration, SettingsError, from_variables};
use serde_json::{Value, json};

fn from_environment(variables: &[(&str, &str)]) -> Result<Configuration<Worker>, SettingsError> {
    let token = (
        "SERVICE_TOKEN".to_owned(),
        "a service token of some length".to_owned(),
    );
    let own = variables
        .iter()
        .map(|(name, value)| (format!("DEVOPS_MCP__{name}"), (*value).to_owned()));
    from_variables(own.chain([token]))
}

#[test]
fn variables_name_sources_in_capitals() {
    let settings = from_environment(&[
        ("SOURCES__MAIN__KIND", "prometheus"),
        ("SOURCES__MAIN__URL", "http://prometheus:9090/base"),
        ("SOURCES__MAIN__TIMEOUT", "5s"),
        ("SOURCES__MAIN__PLATFORM", "false"),
        ("SOURCES__MAIN__CREDENTIALS__BEARER_FILE", "/run/secrets/token"),
        ("SOURCES__MAIN__GRANTS__ACME__MATCHERS__TENANT_ID", "acme"),
        ("SOURCES__MAIN__GRANTS__ACME__ORG_ID", "17"),
        ("SOURCES__EU-LOGS__KIND", "loki"),
        ("SOURCES__EU-LOGS__URL", "http://loki:3100"),
    ]);
    let sources = settings.unwrap().service.sources;
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["eu-logs", "main"]);
    let main = &sources["main"];
    assert_eq!(
        (main.kind, main.timeout, main.platform),
        (Kind::Prometheus, Duration::from_secs(5), false)
    );
    assert_eq!(
        main.credentials.bearer_file.as_deref(),
        Some(Path::new("/run/secrets/token"))
    );
    assert_eq!(main.grants["acme"].matchers["tenant_id"], "acme");
    assert_eq!(main.grants["acme"].org_id.as_deref(), Some("17"));
    assert!(sources["eu-logs"].platform);
}

#[test]
fn one_variable_takes_what_has_capitals() {
    let all = r#"{"main": {"kind": "prometheus", "url": "http://p", "grants": {"Acme": {"matchers": {"Team": "A"}}}}}"#;
    let sources = from_environment(&[("SOURCES", all)]).unwrap().service.sources;
    assert_eq!(sources["main"].grants["Acme"].matchers["Team"], "A");
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (variables, key) in [
        (vec![("SOURCES__MAIN__URL", "http://p")], "sources.main"),
        (
            vec![
                ("SOURCES__MAIN__KIND", "graphite"),
                ("SOURCES__MAIN__URL", "http://p"),
            ],
            "sources.main.kind",
        ),
        (
            vec![
                ("SOURCES__MAIN__KIND", "loki"),
                ("SOURCES__MAIN__URL", "http://p"),
                ("SOURCES__MAIN__ULR", "x"),
            ],
            "sources.main.ulr",
        ),
        (
            vec![
                ("SOURCES__MAIN__KIND", "loki"),
                ("SOURCES__MAIN__URL", "loki:3100"),
            ],
            "sources.main.url",
        ),
    ] {
        let told = from_environment(&variables).unwrap_err().to_string();
        assert!(told.contains(key), "{told}");
    }
}

fn check(name: &str, changes: &Value) -> Result<(), String> {
    let mut source = json!({ "kind": "prometheus", "url": "http://p:9090" });
    source
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    let source: Source = serde_json::from_value(source).map_err(|error| error.to_string())?;
    validate(&Settings::from([(name.to_owned(), source)])).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_grant_that_would_show_everything_is_refused() {
    for grant in [
        json!({ "matchers": { "tenant_id": "acme" } }),
        json!({ "credentials": { "bearer": "t" } }),
        json!({ "tls": { "certificate": "c.pem", "key": "k.pem" } }),
    ] {
        assert_eq!(
            check("main", &json!({ "grants": { "acme": grant } })),
            Ok(()),
            "{grant}"
        );
    }
    for (grant, key) in [
        (json!({}), "sources.main.grants.acme"),
        (json!({ "org_id": "acme" }), "sources.main.grants.acme"),
        (json!({ "tls": { "ca": "ca.pem" } }), "sources.main.grants.acme"),
        (
            json!({ "matchers": { "tenant_id": "" } }),
            "sources.main.grants.acme.matchers.tenant_id",
        ),
        (
            json!({ "matchers": { "tenant.id": "a" } }),
            "sources.main.grants.acme.matchers.tenant.id",
        ),
        (
            json!({ "matchers": { "tenant_id\"": "a" } }),
            "sources.main.grants.acme.matchers.tenant_id\"",
        ),
        (json!({ "org_id": "" }), "sources.main.grants.acme.org_id"),
        (json!({ "org_id": "a\r\nb" }), "sources.main.grants.acme.org_id"),
    ] {
        let told = check("main", &json!({ "grants": { "acme": grant } })).unwrap_err();
        assert!(told.starts_with(&format!("{key}: expected")), "{told}");
    }
    let redis = |grant: Value| json!({ "kind": "redis", "url": "redis://c", "grants": { "acme": grant } });
    assert!(check("cache", &redis(json!({ "matchers": { "tenant_id": "acme" } }))).is_err());
    assert!(check("cache", &redis(json!({ "org_id": "acme" }))).is_err());
    assert_eq!(
        check("cache", &redis(json!({ "credentials": { "password": "p" } }))),
        Ok(())
    );
    let traces = json!({ "kind": "jaeger", "grants": { "acme": { "matchers": { "tenant.id": "acme" } } } });
    assert_eq!(check("traces", &traces), Ok(()));
}

#[test]
fn a_header_keeps_tenants_apart_only_where_the_source_is_said_to_heed_it() {
    let grants = json!({ "acme": { "org_id": "acme" } });
    for kind in ["prometheus", "alertmanager", "jaeger", "loki", "tempo"] {
        let told = check("main", &json!({ "kind": kind, "grants": grants })).unwrap_err();
        assert!(told.starts_with("sources.main.grants.acme: expected"), "{told}");
        let changes = json!({ "kind": kind, "multi_tenant": true, "grants": grants });
        assert_eq!(check("main", &changes), Ok(()), "{kind}");
    }
    let nothing = json!({ "multi_tenant": true, "org_id": "ops", "grants": { "acme": {} } });
    assert!(check("main", &nothing).is_err());
}

#[test]
fn a_grant_that_its_own_identity_keeps_apart_shows_nothing_of_the_installations() {
    let source = |multi_tenant: bool, grant: Value| -> Source {
        let source = json!({
            "kind": "prometheus", "url": "https://p", "multi_tenant": multi_tenant, "org_id": "ops",
            "credentials": { "bearer": "platform" }, "tls": { "ca": "ca.pem", "certificate": "p.pem", "key": "p.key" },
            "grants": { "acme": grant },
        });
        let source: Source = serde_json::from_value(source).unwrap();
        source.granted(source.grants.get("acme"))
    };
    let certificate = |source: &Source| {
        source
            .tls
            .certificate
            .clone()
            .map(|path| path.display().to_string())
    };
    let ca = |source: &Source| source.tls.ca.clone().map(|path| path.display().to_string());

    let own = json!({ "certificate": "a.pem", "key": "a.key" });
    let by_certificate = source(false, json!({ "tls": own }));
    assert!(by_certificate.credentials.is_empty() && by_certificate.org_id.is_none());
    assert_eq!(certificate(&by_certificate).as_deref(), Some("a.pem"));
    assert_eq!(
        ca(&by_certificate).as_deref(),
        Some("ca.pem"),
        "who is believed is the same"
    );

    let by_token = source(false, json!({ "credentials": { "bearer": "acme" } }));
    assert_eq!((certificate(&by_token), by_token.org_id), (None, None));
    assert_eq!(by_token.tls.key, None);

    for apart in [
        source(false, json!({ "matchers": { "tenant_id": "acme" } })),
        source(true, json!({ "org_id": "acme" })),
    ] {
        assert!(!apart.credentials.is_empty());
        assert_eq!(certificate(&apart).as_deref(), Some("p.pem"));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (changes, key) in [
        (json!({ "url": "postgres://p" }), "url"),
        (json!({ "url": "http://user:password@p" }), "url"),
        (json!({ "kind": "redis", "url": "redis://:hunter2@cache" }), "url"),
        (json!({ "url": "http://p?token=1" }), "url"),
        (json!({ "public_url": "javascript:alert(1)" }), "public_url"),
        (json!({ "timeout": "0s" }), "timeout"),
        (json!({ "max_response_bytes": 1 }), "max_response_bytes"),
        (json!({ "max_response_bytes": "9MiB" }), "max_response_bytes"),
        (json!({ "platform": false }), "grants"),
        (
            json!({ "credentials": { "bearer": "t", "username": "u" } }),
            "credentials",
        ),
        (
            json!({ "credentials": { "bearer": "t", "bearer_file": "f" } }),
            "credentials",
        ),
        (json!({ "tls": { "key": "k.pem" } }), "tls"),
    ] {
        let told = check("main", &changes).unwrap_err();
        assert!(
            told.starts_with(&format!("sources.main.{key}: expected")),
            "{told}"
        );
    }
    for name in ["", "Main", "a__b", "a.b", &"x".repeat(41)] {
        assert!(check(name, &json!({})).is_err(), "{name}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let source = json!({
        "kind": "redis",
        "url": "redis://cache",
        "credentials": { "username": "u", "password": "hunter2" },
        "grants": { "acme": { "credentials": { "bearer": "hunter2" } } },
    });
    let source: Source = serde_json::from_value(source).unwrap();
    let printed = serde_json::to_string(&source).unwrap();
    assert!(
        !printed.contains("hunter2") && printed.contains("***"),
        "{printed}"
    );
    assert!(!format!("{:?}", source.credentials).contains("hunter2"));
}
