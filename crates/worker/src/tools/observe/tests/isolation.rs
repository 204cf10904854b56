//! No tenant reads another's telemetry: every tool of the registry is run as a restricted tenant against sources that
//! hold what is another's, and that show it wherever they are not kept from it.

pub(super) mod attempts;
mod fakes;
mod scope;

use super::testing::{Asked, Fake, run, settings};
use crate::{
    outcome::Code,
    sources::{Kind, Settings, Sources},
    tools::{built_in::Entry, observe::entries},
};
use domain::Scopes;
pub(super) use fakes::SECRET;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc};

const KINDS: [(&str, Kind); 5] = [
    ("metrics", Kind::Prometheus),
    ("logs", Kind::Loki),
    ("traces", Kind::Jaeger),
    ("tempo", Kind::Tempo),
    ("alerts", Kind::Alertmanager),
];

/// A fake of each kind that is asked over HTTP, and what names them. `without`: the kind that is not there.
async fn stand(without: Option<Kind>) -> (Vec<(Kind, Fake)>, Settings) {
    let (mut fakes, mut all) = (Vec::new(), Settings::new());
    for (name, kind) in KINDS.into_iter().filter(|(_, kind)| Some(*kind) != without) {
        let fake = fakes::start(kind).await;
        all.extend(settings([(name, kind, &fake.url)]));
        fakes.push((kind, fake));
    }
    (fakes, all)
}

/// Runs all attempts with a tool, and tells what came of them.
async fn attempt(
    name: &str,
    entry: &Entry,
    sources: &Sources,
    tenant: &str,
) -> Vec<(Value, Result<Value, String>)> {
    let mut answers = Vec::new();
    for arguments in attempts::of(name) {
        let scopes = Scopes::of_a_tenant();
        let answer = run(entry, sources, tenant, &scopes, arguments.clone()).await;
        answers.push((
            arguments,
            answer.map_err(|failure| format!("{failure} {:?}", failure.result)),
        ));
    }
    answers
}

/// Whether a tool looks into what is asked over HTTP.
fn is_http(name: &str) -> bool {
    !matches!(name, "slow_queries" | "redis_status")
}

#[tokio::test]
async fn no_tenant_reads_anothers_telemetry() {
    // Tools over traces take one source of them: Jaeger where it is there, else Tempo.
    for without in [Some(Kind::Tempo), Some(Kind::Jaeger)] {
        let (fakes, settings) = stand(without).await;
        let sources = Sources::new(&settings, "tests").unwrap();
        for (name, entry) in &entries() {
            let before: usize = fakes.iter().map(|(_, fake)| fake.asked().len()).sum();
            let answers = attempt(name, entry, &sources, "acme").await;
            for (arguments, answer) in &answers {
                let text = match answer {
                    Ok(answer) => answer.to_string(),
                    Err(failure) => failure.clone(),
                };
                // What it wrote itself it may read again.
                assert!(
                    !text.contains(SECRET),
                    "{name} {arguments} shows what is another's: {text}"
                );
            }
            let after: usize = fakes.iter().map(|(_, fake)| fake.asked().len()).sum();
            if is_http(name) {
                assert!(
                    after > before,
                    "{name} asked nothing, so this proves nothing: {answers:?}"
                );
                assert!(
                    answers.iter().any(|(_, answer)| answer.is_ok()),
                    "{name} never succeeds: {answers:?}"
                );
            }
        }
        for (kind, fake) in &fakes {
            for asked in fake.asked() {
                assert!(
                    scope::holds(*kind, &asked),
                    "{kind:?} was asked without the tenant's label: {asked:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn grants_with_names_of_their_own_show_them_with_every_request() {
    let (fakes, mut settings) = stand(None).await;
    for source in settings.values_mut() {
        source.org_id = Some("platform-org".into());
        source.credentials.bearer = Some("platform-token".into());
        let grants = json!({ "acme": { "org_id": "acme-org", "credentials": { "bearer": "acme-token" } } });
        source.grants = serde_json::from_value(grants).unwrap();
    }
    let sources = Sources::new(&settings, "tests").unwrap();
    for (name, entry) in &entries() {
        attempt(name, entry, &sources, "acme").await;
    }
    let all: Vec<Asked> = fakes.iter().flat_map(|(_, fake)| fake.asked()).collect();
    assert!(all.len() > 20);
    for asked in all {
        assert_eq!(asked.headers["x-scope-orgid"], "acme-org", "{asked:?}");
        assert_eq!(asked.headers["authorization"], "Bearer acme-token", "{asked:?}");
        let text = format!("{asked:?}");
        assert!(!text.contains("platform-"), "{text}");
    }
}

#[tokio::test]
async fn without_a_grant_there_is_nothing() {
    let (fakes, mut settings) = stand(None).await;
    for (name, kind) in [("database", Kind::Postgresql), ("cache", Kind::Redis)] {
        let url = if kind == Kind::Redis {
            "redis://127.0.0.1:1"
        } else {
            "postgres://127.0.0.1:1/db"
        };
        settings.extend(self::settings([(name, kind, url)]));
    }
    let sources = Sources::new(&settings, "tests").unwrap();
    for (name, entry) in &entries() {
        for (arguments, answer) in attempt(name, entry, &sources, "rival").await {
            let failure = answer.expect_err(name);
            let is_refused = [Code::UnknownSource, Code::InvalidArguments]
                .iter()
                .any(|code| failure.starts_with(code.as_str()));
            assert!(is_refused, "{name} {arguments}: {failure}");
            // It does not even learn their names.
            assert!(
                !KINDS
                    .iter()
                    .any(|(source, _)| failure.contains(&format!("`{source}`"))),
                "{failure}"
            );
        }
        let listed = entry.listed(&sources).expect("acme has all kinds");
        assert_eq!(
            (listed.tenants.as_slice(), listed.platform),
            (&["acme".to_owned()][..], true),
            "{name}"
        );
    }
    for (kind, fake) in &fakes {
        assert!(fake.asked().is_empty(), "{kind:?}");
    }
}

/// Accepts connections and tells the first bytes of each.
async fn listen() -> (u16, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let read = client.read(&mut bytes).await.unwrap_or_default();
            bytes.truncate(read);
            let _ = tell.send(bytes);
        }
    });
    (port, told)
}

#[tokio::test]
async fn databases_are_entered_with_the_grants_own_credentials() {
    for (tool, kind, scheme, shown) in [
        (
            "redis_status",
            Kind::Redis,
            "redis://127.0.0.1:PORT",
            "acme-password",
        ),
        (
            "slow_queries",
            Kind::Postgresql,
            "postgres://127.0.0.1:PORT/db?sslmode=disable",
            "acme-reader",
        ),
    ] {
        let (port, mut told) = listen().await;
        let mut settings = settings([("main", kind, &scheme.replace("PORT", &port.to_string()))]);
        let source = settings.get_mut("main").unwrap();
        source.credentials.username = Some("platform-reader".into());
        source.credentials.password = Some("platform-password".into());
        let own =
            json!({ "acme": { "credentials": { "username": "acme-reader", "password": "acme-password" } } });
        source.grants = serde_json::from_value(own).unwrap();
        let sources = Sources::new(&settings, "tests").unwrap();
        let answers = attempt(tool, &entries()[tool], &sources, "acme").await;
        assert!(answers.iter().all(|(_, answer)| answer.is_err()), "{answers:?}");
        let bytes = String::from_utf8_lossy(&told.recv().await.unwrap()).into_owned();
        assert!(
            bytes.contains(shown) && !bytes.contains("platform"),
            "{tool}: {bytes:?}"
        );
        let failures = format!("{answers:?}");
        assert!(
            !failures.contains("password") && !failures.contains("platform"),
            "{failures}"
        );
    }
}

#[test]
fn every_tool_is_attempted() {
    let known: BTreeSet<&str> = entries().into_keys().collect();
    for name in &known {
        assert!(!attempts::of(name).is_empty(), "{name}");
        assert!(domain::tool::built_in::is_built_in(name), "{name}");
    }
}
