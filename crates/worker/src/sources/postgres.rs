//! PostgreSQL as a source: one read-only transaction a call, on a connection of its own, bounded in time and size.

use super::{
    Access,
    settings::Source,
    stream::{self, Encryption, Exceeded, Stream},
    time,
};
use crate::outcome::{Code, Failure};
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use std::time::Duration;
use tokio_postgres::{Client, Config, Error, NoTls, Row, config::SslMode, error::SqlState};
use url::Url;

const PORT: u16 = 5432;
/// How long a connection may take to be closed in order.
const FAREWELL: Duration = Duration::from_millis(500);

/// A transaction that can only read.
pub(crate) struct Session {
    access: Access,
    client: Client,
    /// Ends when the connection does. Driven by whoever waits for an answer, so that it goes when the call goes.
    connection: BoxFuture<'static, Result<(), Error>>,
    exceeded: Exceeded,
}

impl Session {
    /// Runs `work` in a transaction, all of it within the source's time.
    ///
    /// # Errors
    /// [`Failure`], of the connection or of `work`.
    pub(crate) async fn with<T>(
        access: &Access,
        work: impl for<'a> FnOnce(&'a mut Self) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let asked = async {
            let mut session = Self::open(access).await?;
            let result = work(&mut session).await?;
            session.close().await;
            Ok(result)
        };
        stream::ask(access, "postgresql", asked).await
    }

    async fn open(access: &Access) -> Result<Self, Failure> {
        let (name, source) = (access.name(), access.settings());
        let encryption = encryption(source).map_err(|wrong| unusable(name, wrong))?;
        let config = config(name, source).await?;
        let (stream, exceeded) = stream::connect(name, source, PORT, encryption).await?;
        // What needed TLS has it already.
        let connected = config.connect_raw(stream, NoTls).await;
        let (client, connection) =
            connected.map_err(|error| exceeded.or(name, source, failure(access, &error)))?;
        let mut session = Self {
            access: access.clone(),
            client,
            connection: Box::pin(driven(connection)),
            exceeded,
        };
        // The server gives up by itself what nobody waits for any more.
        let limit = source.timeout.as_millis();
        let begin =
            format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = 1000");
        session
            .wait(async |client| client.batch_execute(&begin).await)
            .await?;
        Ok(session)
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// [`Failure`]
    pub(crate) async fn rows(&mut self, statement: &str) -> Result<Vec<Row>, Failure> {
        self.wait(async |client| client.query_typed(statement, &[]).await)
            .await
    }

    /// A statement's one row.
    ///
    /// # Errors
    /// [`Failure`], also where there is none.
    pub(crate) async fn row(&mut self, statement: &str) -> Result<Row, Failure> {
        let first = self.rows(statement).await?.into_iter().next();
        first.ok_or_else(|| Failure::new(Code::SourceError, "the database answered with nothing"))
    }

    async fn wait<T>(&mut self, asked: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failure> {
        let Self {
            access,
            client,
            connection,
            exceeded,
        } = self;
        let asked = asked(client);
        let result = tokio::select! {
            biased;
            result = asked => result.map_err(|error| failure(access, &error)),
            ended = connection => Err(match ended {
                Err(error) => failure(access, &error),
                Ok(()) => lost(access, "it closed the connection"),
            }),
        };
        result.map_err(|failure| exceeded.or(access.name(), access.settings(), failure))
    }

    /// Says goodbye, without which the server logs that a client was lost.
    async fn close(mut self) {
        let _ = self
            .wait(async |client| client.batch_execute("COMMIT").await)
            .await;
        let Self {
            client, connection, ..
        } = self;
        drop(client);
        let _ = tokio::time::timeout(FAREWELL, connection).await;
    }
}

async fn driven(
    connection: tokio_postgres::Connection<Stream, tokio_postgres::tls::NoTlsStream>,
) -> Result<(), Error> {
    connection.await
}

/// How the address wants the connection encrypted. `require` and `verify-ca` are as strict as `verify-full`, and what
/// would fall back to no encryption by itself is not known here.
///
/// # Errors
/// What is expected instead.
pub(super) fn encryption(source: &Source) -> Result<Encryption, &'static str> {
    const MODES: &str = "sslmode in its url is disable, require, verify-ca or verify-full";
    let url = Url::parse(&source.url).map_err(|_| "its url is none")?;
    let mut mode = None;
    for (name, value) in url.query_pairs() {
        if name != "sslmode" || mode.is_some() {
            return Err(
                "its url may have an sslmode as its query and nothing else; certificates are named in tls",
            );
        }
        mode = Some(value.into_owned());
    }
    match mode.as_deref() {
        None if source.tls.is_empty() => Ok(Encryption::None),
        Some("disable") if source.tls.is_empty() => Ok(Encryption::None),
        Some("disable") => Err("its url says sslmode=disable, and its tls says otherwise"),
        None | Some("require" | "verify-ca" | "verify-full") => Ok(Encryption::AfterRequest),
        Some(_) => Err(MODES),
    }
}

/// Who it is that asks, of which database. Credentials of its own leave nothing of those in the address.
async fn config(name: &str, source: &Source) -> Result<Config, Failure> {
    let url = Url::parse(&source.url).map_err(|_| unusable(name, "its url is none"))?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut config = Config::new();
    config.ssl_mode(SslMode::Disable).application_name("devops-mcp");
    let credentials = &source.credentials;
    let user = if credentials.is_empty() {
        url.password().map(|password| config.password(decoded(password)));
        decoded(url.username())
    } else {
        let password = credentials.password().await?;
        password.map(|password| config.password(password.expose_secret()));
        credentials.username.clone().unwrap_or_default()
    };
    if user.is_empty() {
        return Err(unusable(name, "no user's name is set for it"));
    }
    config.user(user);
    let database = decoded(url.path().trim_matches('/'));
    if !database.is_empty() {
        config.dbname(database);
    }
    Ok(config)
}

fn unusable(name: &str, wrong: &str) -> Failure {
    Failure::new(
        Code::SourceError,
        format!("the source `{name}` is set up wrongly: {wrong}; its operator must act"),
    )
}

fn lost(access: &Access, cause: &str) -> Failure {
    let message = format!("the source `{}` is away: {cause}", access.name());
    Failure::new(Code::SourceUnavailable, message)
}

/// What an error means. PostgreSQL's own messages name neither values nor passwords.
fn failure(access: &Access, error: &Error) -> Failure {
    let Some(told) = error.as_db_error() else {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let cause = cause.map(|cause| cause.kind().to_string());
        return match cause {
            Some(cause) => lost(access, &format!("the connection was lost: {cause}")),
            None if error.is_closed() => lost(access, "it closed the connection"),
            None => {
                let message = format!("the source `{}` cannot be understood: {error}", access.name());
                Failure::new(Code::SourceError, message)
            }
        };
    };
    let code = told.code();
    let is_away = [
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
    ];
    let code = match code {
        code if *code == SqlState::QUERY_CANCELED => Code::Timeout,
        code if is_away.contains(code) => Code::SourceUnavailable,
        _ => Code::SourceError,
    };
    let waited = time::short(access.settings().timeout);
    let message = match code {
        Code::Timeout => format!("the source `{}` did not answer within {waited}", access.name()),
        _ => format!(
            "the source `{}` answers: {}",
            access.name(),
            crate::tools::observe::answer::cut(told.message(), 500)
        ),
    };
    Failure::new(code, message)
}
