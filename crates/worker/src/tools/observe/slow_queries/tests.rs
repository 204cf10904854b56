use super::super::{
    databases::{self, bears_its_source, hung_up_on},
    testing::{call, call_for},
};
use super::*;
use crate::sources::Sources;
use tokio_postgres::NoTls;

const URL: &str = "postgres://postgres:secret@127.0.0.1:PORT/postgres";

#[tokio::test]
async fn bears_whatever_happens_to_its_source() {
    // Logged in, and then parameters that never end.
    let endless: (&[u8], &[u8]) = (b"R\0\0\0\x08\0\0\0\0", b"S\0\0\0\x08a\0b\0");
    bears_its_source::<Tool>(Kind::Postgresql, URL, endless).await;
}

#[tokio::test]
async fn wrong_input_is_told_before_anything_is_asked() {
    let sources = databases::source(Kind::Postgresql, URL, 1, json!({})).unwrap();
    for wrong in [
        json!({ "limit": 0 }),
        json!({ "limit": 51 }),
        json!({ "order": "1; DROP TABLE x" }),
    ] {
        let failure = call::<Tool>(&sources, wrong.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments, "{wrong}");
    }
}

#[tokio::test]
async fn what_asks_for_encryption_gets_no_connection_without() {
    // The server answers that it has none.
    for mode in ["require", "verify-ca", "verify-full"] {
        let failure = hung_up_on::<Tool>(Kind::Postgresql, &format!("{URL}?sslmode={mode}"), b"N").await;
        assert_eq!(failure.code, Code::SourceUnavailable);
        assert!(failure.message.contains("does not offer TLS"), "{failure}");
    }
    let refused =
        |query: &str, more| databases::source(Kind::Postgresql, &format!("{URL}{query}"), 1, more).is_err();
    assert!(
        refused("?sslmode=prefer", json!({})),
        "it would fall back by itself"
    );
    assert!(refused(
        "?sslmode=disable",
        json!({ "tls": { "ca": "/etc/hostname" } })
    ));
    assert!(refused("?sslrootcert=x", json!({})));
    assert!(
        refused("?sslmode=require", json!({ "tls": { "ca": "/etc/hostname" } })),
        "that is no CA"
    );
    assert!(refused("", json!({ "credentials": { "bearer": "x" } })));
    assert!(!refused("?sslmode=disable", json!({})));
}

async fn prepared(port: u16) {
    let config = URL.replace("PORT", &port.to_string());
    // The port is open a little before logins are taken.
    let connected = async {
        loop {
            match tokio_postgres::connect(&config, NoTls).await {
                Ok(connected) => return connected,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    let limit = std::time::Duration::from_secs(60);
    let (client, connection) = tokio::time::timeout(limit, connected)
        .await
        .expect("it takes logins");
    tokio::spawn(connection);
    let script = "CREATE EXTENSION pg_stat_statements;
        CREATE ROLE reader LOGIN PASSWORD 'reads';
        CREATE TABLE orders AS SELECT n, 'customer ' || n AS name FROM generate_series(1, 20000) n;
        SELECT pg_sleep(0.05)";
    client.batch_execute(script).await.unwrap();
    for n in 0..3 {
        let sql = format!("SELECT count(*) FROM orders WHERE name LIKE '%a secret {n}%'");
        client.batch_execute(&sql).await.unwrap();
    }
}

fn queries(answer: &Value) -> Vec<&str> {
    let queries = answer["queries"].as_array().unwrap().iter();
    queries.map(|query| query["query"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_real_postgresql_tells_its_slow_statements() {
    let Some(server) = databases::postgres().await else {
        return;
    };
    prepared(server.port).await;
    let grants = json!({ "acme": { "credentials": { "username": "reader", "password": "reads" } } });
    let sources = databases::source(Kind::Postgresql, URL, server.port, json!({ "grants": grants })).unwrap();

    let answer = call::<Tool>(&sources, json!({ "order": "calls", "limit": 3 }))
        .await
        .unwrap();
    assert_eq!(
        queries(&answer)[0],
        "SELECT count(*) FROM orders WHERE name LIKE $1",
        "{answer}"
    );
    let first = &answer["queries"][0];
    assert_eq!(
        (&first["calls"], &first["rows_per_call"], &first["user"]),
        (&json!(3), &json!(1), &json!("postgres"))
    );
    assert!(first["mean_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(answer["truncated"]["shown"], 3);
    assert_eq!(answer["database"], "postgres");
    assert_eq!(answer["now"]["waiting_for_lock"], 0);

    let all = call::<Tool>(&sources, json!({ "limit": 50 })).await.unwrap();
    assert!(queries(&all).contains(&"SELECT pg_sleep($1)"), "{all}");
    assert!(
        queries(&all).contains(&"CREATE ROLE reader LOGIN PASSWORD ?"),
        "{all}"
    );
    assert!(
        !all.to_string().contains("secret") && !all.to_string().contains("'reads'"),
        "{all}"
    );
    let share: f64 = all["queries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|query| query["share"].as_f64())
        .sum();
    assert!((0.9..=1.01).contains(&share), "{share}");

    tenants_see_their_own(&sources).await;
    no_writing(&sources).await;
    encrypted(&server).await;
}

/// A tenant logs in as whom his grant names, and sees what that one may.
async fn tenants_see_their_own(sources: &Sources) {
    let _own = call_for::<Tool>(sources, "acme", json!({})).await.unwrap();
    let own = call_for::<Tool>(sources, "acme", json!({ "limit": 50 }))
        .await
        .unwrap();
    let users = own["queries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|query| &query["user"]);
    assert!(
        users.clone().count() > 0 && users.clone().all(|user| user == "reader"),
        "{own}"
    );
    assert!(
        own["notes"].to_string().contains("of other users are not shown"),
        "{own}"
    );
    let nobody = call_for::<Tool>(sources, "globex", json!({})).await.unwrap_err();
    assert_eq!(nobody.code, Code::UnknownSource);
}

async fn no_writing(sources: &Sources) {
    use crate::sources::Who;
    let scopes = domain::Scopes::all();
    let who = Who {
        tenant: "platform",
        key_name: "test",
        scopes: &scopes,
    };
    let access = sources.pick(Kind::Postgresql, None, &who).unwrap();
    let written = Session::with(&access, |session| session.rows("DELETE FROM orders").boxed()).await;
    let failure = written.unwrap_err();
    assert!(failure.message.contains("read-only transaction"), "{failure}");
}

async fn encrypted(server: &databases::Server) {
    let ca = server.directory.as_ref().unwrap().join("cert.pem");
    let ask = async |url: &str, tls: Value| {
        let sources = databases::source(Kind::Postgresql, url, server.port, json!({ "tls": tls })).unwrap();
        call::<Tool>(&sources, json!({})).await
    };
    let strict = format!("{URL}?sslmode=verify-full");
    ask(&strict, json!({ "ca": ca })).await.unwrap();
    ask(URL, json!({ "ca": ca })).await.unwrap();
    for (url, tls) in [
        (format!("{URL}?sslmode=require"), json!({})), // nobody whom the system believes signed it
        (strict.replace("127.0.0.1", "localhost"), json!({ "ca": ca })), // it is another's
    ] {
        let failure = ask(&url, tls).await.unwrap_err();
        assert_eq!(failure.code, Code::SourceUnavailable);
        assert!(failure.message.contains("TLS"), "{failure}");
    }
    let wrong = ask(&URL.replace("secret", "wrong"), json!({})).await.unwrap_err();
    assert_eq!(wrong.code, Code::SourceError);
    assert!(!wrong.message.contains("wrong\""), "{wrong}");
}
