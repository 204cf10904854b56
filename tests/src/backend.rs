//! What the services keep their data in: SQLite, or PostgreSQL and Redis.

use crate::Proxy;
use anyhow::Context;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::{env, path::Path};
use uuid::Uuid;

/// What a stack runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file of its own, everything shared in process.
    Sqlite,
    /// A fresh database in `TEST_POSTGRES_URL`, and `TEST_REDIS_URL`.
    Postgres,
}

impl Backend {
    /// Those that can be tested here. What cannot is said.
    pub fn available() -> Vec<Self> {
        if env::var_os("E2E_INSTALLATION").is_some() {
            // It is on what it is on: once is enough.
            return vec![Self::Postgres];
        }
        let mut all = vec![Self::Sqlite];
        if env::var_os("TEST_POSTGRES_URL").is_some() && env::var_os("TEST_REDIS_URL").is_some() {
            all.push(Self::Postgres);
        } else {
            eprintln!(
                "LEFT OUT: PostgreSQL and Redis (TEST_POSTGRES_URL and TEST_REDIS_URL are not both set)"
            );
        }
        all
    }

    /// rest-api's database, made afresh.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn database_url(self, directory: &Path) -> anyhow::Result<String> {
        match self {
            Self::Sqlite => Ok(format!("sqlite://{}", directory.join("devops-mcp.db").display())),
            Self::Postgres => fresh_database().await,
        }
    }

    /// The same, to be reached through a proxy. SQLite has no server to lose.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn database_behind_proxy() -> anyhow::Result<(String, Proxy)> {
        let url = fresh_database().await?;
        let (scheme, rest) = url.split_once("://").context("TEST_POSTGRES_URL is no URL")?;
        let (server, path) = rest
            .split_once('/')
            .context("TEST_POSTGRES_URL names no database")?;
        let (user, upstream) = server
            .rsplit_once('@')
            .map_or(("", server), |(user, host)| (user, host));
        let upstream = if upstream.contains(':') {
            upstream.to_owned()
        } else {
            format!("{upstream}:5432")
        };
        let proxy = Proxy::start(&upstream).await?;
        let at = if user.is_empty() { "" } else { "@" };
        Ok((format!("{scheme}://{user}{at}{}/{path}", proxy.address()), proxy))
    }

    /// The Redis to share, where there is one.
    pub fn redis_url(self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => env::var("TEST_REDIS_URL").ok(),
        }
    }
}

async fn fresh_database() -> anyhow::Result<String> {
    let server = env::var("TEST_POSTGRES_URL").context("TEST_POSTGRES_URL")?;
    let name = format!("e2e_{}", Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&server)
        .await
        .context("connecting to TEST_POSTGRES_URL")?;
    connection
        .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await?;
    let (base, query) = server
        .split_once('?')
        .map_or((server.as_str(), None), |(b, q)| (b, Some(q)));
    let (base, _) = base
        .rsplit_once('/')
        .context("TEST_POSTGRES_URL names no database")?;
    Ok(query.map_or_else(
        || format!("{base}/{name}"),
        |query| format!("{base}/{name}?{query}"),
    ))
}
