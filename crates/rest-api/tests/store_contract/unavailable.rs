use crate::harness::{Fixture, assert_error, on_postgres};
use rest_api::store::{StoreError, connect, settings::DatabaseSettings};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::{Duration, Instant};

pub(crate) async fn a_closed_store_says_so(f: Fixture) {
    f.store.close().await;
    assert_error!(f.store.ping().await, StoreError::Unavailable(_));
    assert_error!(f.store.create_tenant("late").await, StoreError::Unavailable(_));
}

#[tokio::test]
async fn a_server_that_is_away_fails_requests_and_not_the_start() {
    let settings = DatabaseSettings {
        // Nothing listens on port 1.
        url: "postgres://nobody@127.0.0.1:1/nothing".into(),
        acquire_timeout: Duration::from_millis(300),
        outage_patience: Duration::ZERO,
        ..Default::default()
    };
    let started = Instant::now();
    let store = connect(&settings).await.unwrap();
    assert_error!(store.ping().await, StoreError::Unavailable(_));
    assert_error!(store.migrate().await, StoreError::Unavailable(_));
    // Not for as long as a connection may take on the way: twice 0.3 s, on a busy machine.
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused_without_being_shown() {
    for url in ["mysql://u:hunter2@localhost/db", "hunter2", ""] {
        let settings = DatabaseSettings {
            url: url.into(),
            ..Default::default()
        };
        let error = connect(&settings).await.err().expect("an error").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn sqlite_works_in_memory() {
    let settings = DatabaseSettings {
        url: "sqlite::memory:".into(),
        ..Default::default()
    };
    let store = connect(&settings).await.unwrap();
    store.migrate().await.unwrap();
    let tenant = store.create_tenant("acme").await.unwrap();
    assert_eq!(store.list_tenants().await.unwrap(), [tenant]);
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    on_postgres(async |f: Fixture| {
        let mut admin = PgConnection::connect(f.settings.url.expose_secret())
            .await
            .unwrap();
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        admin.execute(cut).await.unwrap();
        // Dead connections that were in use a moment ago are met by statements, by changes, and by transactions.
        f.store.list_tenants().await.expect("a statement is made again");
        admin.execute(cut).await.unwrap();
        f.store
            .create_tenant("late")
            .await
            .expect("told so by the server, a change is, too");
        admin.execute(cut).await.unwrap();
        f.context("after a cut", &["one"]).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        admin.execute(cut).await.unwrap();
        f.store
            .list_tenants()
            .await
            .expect("an idle connection is tried before it is used");
    })
    .await;
}
