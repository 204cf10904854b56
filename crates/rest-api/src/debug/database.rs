//! `/debug/database`: which statements are slow, and how the way to the database is.

use crate::store::{
    self, DatabaseSettings, SharedStore, StoreError,
    inspect::{DatabaseView, OwnView, PoolReport, ServerReport, SlowStatement, StatementAsk, StatementCost},
};
use axum::extract::State;
use chassis::{Problem, extract::Query, ops::Pretty};
use domain::Time;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// For how long the database is asked, in all. What the process knows itself is shown without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The greatest parameters: a day, and as many statements as PostgreSQL keeps count of as a rule.
const MAX_MEAN_MS: f64 = 86_400_000.0;
const MAX_LIMIT: u32 = 5000;
/// How PostgreSQL is brought to keep count.
const REMEDY: &str = "start the server with shared_preload_libraries=pg_stat_statements and, as a superuser in this \
    database, run CREATE EXTENSION pg_stat_statements";

/// What the pages show.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) store: SharedStore,
    pub(super) settings: DatabaseSettings,
}

/// Durations are milliseconds.
#[derive(Serialize)]
pub(super) struct SlowQueries {
    system: &'static str,
    /// Who counted: `pg_stat_statements`, or `rest-api` where the database keeps no count.
    source: &'static str,
    /// Since when.
    since: Option<Time>,
    asked: StatementAsk,
    queries: Vec<StatementCost>,
    #[serde(flatten)]
    own: Own,
}

/// What this process knows itself.
#[derive(Serialize)]
struct Own {
    /// The same as this process timed it, with the wait for a connection; where that is not what `queries` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    services_view: Option<OwnView>,
    /// From which duration on one run of a statement is shown, milliseconds.
    slow_from_ms: f64,
    /// The last of them, newest first.
    slow_statements: Vec<SlowStatement>,
}

impl Own {
    fn beside(view: Option<OwnView>) -> Self {
        Self {
            services_view: view,
            slow_from_ms: store::inspect::slow_from().as_secs_f64() * 1e3,
            slow_statements: store::inspect::slow_statements(),
        }
    }

    /// Behind a problem: what can be told nevertheless.
    fn told_with(self, problem: Problem) -> Problem {
        problem
            .with("services_view", json!(self.services_view))
            .with("slow_from_ms", self.slow_from_ms)
            .with("slow_statements", json!(self.slow_statements))
    }
}

/// `GET /debug/database/slow-queries?min_mean_ms=100&limit=20&order=mean`
pub(super) async fn slow_queries(
    State(pages): State<Pages>,
    ask: Result<Query<StatementAsk>, Problem>,
) -> Result<Pretty<SlowQueries>, Problem> {
    let ask = checked(ask)?;
    let own = store::inspect::own_view(&ask);
    let view = answered(pages.store.database_view(&ask)).await;
    let (source, since, queries, services_view) = match view {
        Ok(DatabaseView::NotKept) => ("rest-api", own.since, own.queries, None),
        Ok(DatabaseView::Read { reset_at, queries }) => ("pg_stat_statements", reset_at, queries, Some(own)),
        Ok(DatabaseView::NotReadable) => {
            let detail = "PostgreSQL keeps no count of its statements: its extension pg_stat_statements is not there; \
                          services_view shows what this process has timed itself";
            let problem = Problem::conflict("statistics_not_kept", detail).with("remedy", REMEDY);
            return Err(Own::beside(Some(own)).told_with(problem));
        }
        Err(reason) => return Err(Own::beside(Some(own)).told_with(away(&reason))),
    };
    Ok(Pretty(SlowQueries {
        system: pages.store.system(),
        source,
        since,
        asked: ask,
        queries,
        own: Own::beside(services_view),
    }))
}

fn checked(ask: Result<Query<StatementAsk>, Problem>) -> Result<StatementAsk, Problem> {
    let allowed = |problem: Problem| {
        problem.with(
            "allowed",
            json!({
                "min_mean_ms": "milliseconds, 0 to 86400000; the default is 100",
                "limit": "1 to 5000; the default is 20",
                "order": ["mean", "total", "max", "calls"],
            }),
        )
    };
    let Query(ask) = ask.map_err(allowed)?;
    let wrong = if !(0.0..=MAX_MEAN_MS).contains(&ask.min_mean_ms) {
        "min_mean_ms: expected 0 to 86400000"
    } else if !(1..=MAX_LIMIT).contains(&ask.limit) {
        "limit: expected 1 to 5000"
    } else {
        return Ok(ask);
    };
    Err(allowed(Problem::bad_request("invalid_query", wrong)))
}

/// How the way to the database is.
#[derive(Serialize)]
pub(super) struct Way {
    system: &'static str,
    pools: Vec<PoolReport>,
    server: ServerReport,
    /// The `database:` section of the configuration, without passwords.
    settings: DatabaseSettings,
}

/// `GET /debug/database/pool`
pub(super) async fn pool(State(pages): State<Pages>) -> Result<Pretty<Way>, Problem> {
    let server = answered(pages.store.server()).await;
    // Now, not when the answer was begun to be waited for.
    let pools = pages.store.pools();
    let server = server.map_err(|reason| {
        away(&reason)
            .with("pools", json!(pools))
            .with("settings", json!(pages.settings))
    })?;
    Ok(Pretty(Way {
        system: pages.store.system(),
        pools,
        server,
        settings: pages.settings,
    }))
}

/// The database's answer, or why there is none.
async fn answered<T>(asking: impl Future<Output = store::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| match error {
            StoreError::Unavailable(cause) | StoreError::InDoubt(cause) => cause.to_string(),
            other => other.to_string(),
        }),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

fn away(reason: &str) -> Problem {
    Problem::unavailable("unavailable", format!("the database does not answer: {reason}"))
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let ask = |min_mean_ms, limit| {
            let order = Default::default();
            checked(Ok(Query(StatementAsk {
                min_mean_ms,
                limit,
                order,
            })))
        };
        assert!(ask(0.0, 1).is_ok() && ask(MAX_MEAN_MS, MAX_LIMIT).is_ok());
        for (min, limit) in [
            (-1.0, 20),
            (f64::NAN, 20),
            (f64::INFINITY, 20),
            (100.0, 0),
            (100.0, 5001),
        ] {
            let problem = ask(min, limit).expect_err("out of bounds");
            assert_eq!(
                (problem.status().as_u16(), problem.code()),
                (400, "invalid_query")
            );
        }
    }

    #[test]
    fn the_settings_that_are_shown_hold_no_password() {
        let settings = DatabaseSettings {
            url: SecretString::from("postgres://u:hunter2@db/x"),
            password: Some(SecretString::from("hunter2")),
            ..Default::default()
        };
        let shown = json!(settings).to_string();
        assert!(shown.contains("db/x") && !shown.contains("hunter2"), "{shown}");
    }
}
