//! `slow_queries`

mod statement;

use super::answer::{self, Answer};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind, postgres::Session},
    tools::built_in::{BuiltIn, Desk},
};
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

const MOST: u32 = 50;
/// How much of a statement is shown, characters.
const LONGEST: usize = 400;

/// Asks PostgreSQL which statements take its time.
pub(super) struct Tool;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    #[serde(default)]
    order: Order,
    /// 1-50, default 10
    limit: Option<u32>,
    source: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Total,
    Mean,
    Max,
    Calls,
    Rows,
    Reads,
}

impl Order {
    fn column(self) -> &'static str {
        match self {
            Self::Total => "total_exec_time",
            Self::Mean => "mean_exec_time",
            Self::Max => "max_exec_time",
            Self::Calls => "calls",
            Self::Rows => "rows",
            Self::Reads => "shared_blks_read",
        }
    }
}

impl BuiltIn for Tool {
    const NAME: &'static str = "slow_queries";
    const TITLE: &'static str = "PostgreSQL: slow queries";
    const DESCRIPTION: &'static str = "Says which statements of a PostgreSQL database take its time \
        (pg_stat_statements, normalised SQL): calls, total, mean and max time, rows, cache hits; and what waits or \
        idles in transactions now.";
    const NEEDS: &'static [Kind] = &[Kind::Postgresql];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Postgresql, arguments.source.as_deref(), &desk.who)?;
        let limit = arguments.limit.unwrap_or(10);
        if !(1..=MOST).contains(&limit) {
            return Err(Failure::new(Code::InvalidArguments, "limit is 1 to 50"));
        }
        let order = arguments.order.column();
        let seen = Session::with(&access, |session| look(session, order, limit).boxed()).await?;
        seen.answer(&access, order)
    }
}

/// What was seen in the database.
struct Seen {
    place: Row,
    statements: Vec<Row>,
    all: Row,
    activity: Row,
}

async fn look(session: &mut Session, order: &str, limit: u32) -> Result<Seen, Failure> {
    let place = session.rows(PLACE).await?.into_iter().next().ok_or_else(|| {
        let message = "the database has no pg_stat_statements: it needs `shared_preload_libraries = \
            'pg_stat_statements'` and, in this database, CREATE EXTENSION pg_stat_statements";
        Failure::new(Code::SourceError, message)
    })?;
    let (schema, version): (String, String) = (get(&place, "schema")?, get(&place, "version")?);
    if !is_known(&version) {
        let message =
            format!("pg_stat_statements {version} is too old: 1.8 (PostgreSQL 13) is the first that is read");
        return Err(Failure::new(Code::SourceError, message));
    }
    let from = format!("FROM {schema}.pg_stat_statements s WHERE {OF_THIS_DATABASE}");
    let statements = format!(
        "SELECT s.queryid, left(s.query, 8000) AS query, pg_get_userbyid(s.userid)::text AS user, s.calls,
                s.total_exec_time, s.mean_exec_time, s.max_exec_time, s.rows, s.shared_blks_hit, s.shared_blks_read,
                s.temp_blks_written
         {from} AND s.query <> '{HIDDEN}' ORDER BY s.{order} DESC, s.queryid LIMIT {limit}"
    );
    let all = format!(
        "SELECT count(*) FILTER (WHERE s.query <> '{HIDDEN}') AS statements,
                count(*) FILTER (WHERE s.query = '{HIDDEN}') AS hidden,
                coalesce(sum(s.total_exec_time), 0)::float8 AS total {from}"
    );
    Ok(Seen {
        statements: session.rows(&statements).await?,
        all: session.row(&all).await?,
        activity: session.row(ACTIVITY).await?,
        place,
    })
}

/// What stands in a statement's place for whom it is not.
const HIDDEN: &str = "<insufficient privilege>";

const OF_THIS_DATABASE: &str = "s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

const PLACE: &str = "SELECT quote_ident(n.nspname) AS schema, e.extversion AS version,
        current_database()::text AS database, current_setting('server_version') AS server
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'";

/// Statements that run are not shown: they are not normalised.
const ACTIVITY: &str = "SELECT count(*) AS connections,
        count(*) FILTER (WHERE state = 'active') AS active,
        count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
        count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting_for_lock,
        max(extract(epoch FROM clock_timestamp() - query_start)) FILTER (WHERE state = 'active')::float8
            AS longest_statement,
        max(extract(epoch FROM clock_timestamp() - xact_start))::float8 AS longest_transaction
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";

/// Since 1.8 it tells times of planning and of execution apart.
fn is_known(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(1), Some(8))
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| {
        let message = format!("pg_stat_statements or pg_stat_activity has another form than known: {error}");
        Failure::new(Code::SourceError, message)
    })
}

impl Seen {
    fn answer(&self, access: &Access, order: &str) -> Result<Value, Failure> {
        let mut answer = Answer::from(access);
        let (database, server): (String, String) =
            (get(&self.place, "database")?, get(&self.place, "server")?);
        answer
            .set("database", database)
            .set("version", server)
            .set("order", order);
        let all: f64 = get(&self.all, "total")?;
        let queries: Vec<Value> = self
            .statements
            .iter()
            .map(|row| shown(row, all))
            .collect::<Result<_, _>>()?;
        let (of, hidden): (i64, i64) = (get(&self.all, "statements")?, get(&self.all, "hidden")?);
        answer.truncated(queries.len(), usize::try_from(of).unwrap_or_default());
        answer.set("queries", queries);
        if hidden > 0 {
            answer.note(format!(
                "{hidden} statements of other users are not shown: pg_read_all_stats would show them"
            ));
        }
        let (idle, locks): (i64, i64) = (
            get(&self.activity, "idle_in_transaction")?,
            get(&self.activity, "waiting_for_lock")?,
        );
        let seconds = |column| get::<Option<f64>>(&self.activity, column).map(|s| s.map(answer::number));
        answer.set(
            "now",
            json!({
                "connections": get::<i64>(&self.activity, "connections")?,
                "active": get::<i64>(&self.activity, "active")?,
                "idle_in_transaction": idle,
                "waiting_for_lock": locks,
                "longest_statement_s": seconds("longest_statement")?,
                "longest_transaction_s": seconds("longest_transaction")?,
            }),
        );
        if locks > 0 {
            answer.note(format!("{locks} connections wait for a lock right now"));
        }
        answer.note("times are since the statistics were last reset; text values in statements are left out");
        Ok(answer.finish("queries"))
    }
}

fn shown(row: &Row, all: f64) -> Result<Value, Failure> {
    let (calls, rows): (i64, i64) = (get(row, "calls")?, get(row, "rows")?);
    let (hits, reads): (i64, i64) = (get(row, "shared_blks_hit")?, get(row, "shared_blks_read")?);
    let (total, query): (f64, String) = (get(row, "total_exec_time")?, get(row, "query")?);
    let ratio = |part: f64, whole: f64| answer::number(if whole > 0.0 { part / whole } else { 0.0 });
    let mut shown = json!({
        "query": answer::cut(&statement::shown(&query), LONGEST),
        "user": get::<Option<String>>(row, "user")?,
        "calls": calls,
        "total_ms": answer::number(total),
        "share": ratio(total, all),
        "mean_ms": answer::number(get(row, "mean_exec_time")?),
        "max_ms": answer::number(get(row, "max_exec_time")?),
        "rows_per_call": ratio(whole(rows), whole(calls)),
    });
    if hits + reads > 0 {
        shown["cache_hits"] = ratio(whole(hits), whole(hits + reads));
        shown["blocks_read"] = reads.into();
    }
    if let Some(written) = Some(get::<i64>(row, "temp_blks_written")?).filter(|written| *written > 0) {
        shown["temp_blocks_written"] = written.into();
    }
    // As text: JSON's readers round such numbers.
    shown["queryid"] = get::<Option<i64>>(row, "queryid")?
        .map(|id| id.to_string())
        .into();
    Ok(shown)
}

#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
fn whole(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
