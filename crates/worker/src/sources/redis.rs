//! Redis as a source: what it tells of itself, on a connection of its own, bounded in time and size.

use super::{
    Access,
    settings::Source,
    stream::{self, Encryption},
};
use crate::outcome::{Code, Failure};
use deadpool_redis::redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, aio::MultiplexedConnection, cmd,
};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use url::Url;

const PORT: u16 = 6379;

/// What it tells of itself.
pub(crate) struct Told {
    /// How long it took to answer a `PING`.
    pub(crate) ping: Duration,
    /// `INFO`, by its own names.
    pub(crate) info: BTreeMap<String, String>,
    /// `SLOWLOG`, newest first; or why that is not to be had.
    pub(crate) slow: Result<Vec<Slow>, String>,
}

/// A command in its log of slow ones.
pub(crate) struct Slow {
    /// Seconds since 1970.
    pub(crate) at: i64,
    pub(crate) took: Duration,
    /// The command's name and its arguments.
    pub(crate) words: Vec<Vec<u8>>,
    /// Who sent it.
    pub(crate) client: String,
}

type Logged = (i64, i64, u64, Vec<Vec<u8>>, String, String);

/// Asks it, all within the source's time; for so many slow commands.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn ask(access: &Access, slow: usize) -> Result<Told, Failure> {
    let (name, source) = (access.name(), access.settings());
    let asked = async {
        let login = login(source).await?;
        let (stream, exceeded) = stream::connect(name, source, PORT, encryption(source)).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let told = async {
            let opened = MultiplexedConnection::new_with_config(&login, stream, config).await;
            let (connection, driver) = opened?;
            tokio::select! {
                told = tell(connection, slow) => told,
                // The connection ends with the call, whoever drops it.
                () = driver => Err(RedisError::from((ErrorKind::Io, "the connection ended"))),
            }
        };
        let told = told.await;
        told.map_err(|error| exceeded.or(name, source, failure(name, &error)))
    };
    stream::ask(access, "redis", asked).await
}

async fn tell(mut connection: MultiplexedConnection, slow: usize) -> Result<Told, RedisError> {
    let started = Instant::now();
    let _: String = cmd("PING").query_async(&mut connection).await?;
    let ping = started.elapsed();
    let info: String = cmd("INFO").query_async(&mut connection).await?;
    let logged = cmd("SLOWLOG")
        .arg("GET")
        .arg(slow)
        .query_async(&mut connection)
        .await;
    let slow = match logged {
        Ok(logged) => Ok(Vec::<Logged>::into_iter(logged).map(entry).collect()),
        Err(error) if error.is_io_error() || error.is_timeout() => return Err(error),
        // An account may not be allowed to look at it, or a service not have it.
        Err(error) => Err(error.to_string()),
    };
    let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    let info = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(Told { ping, info, slow })
}

fn entry((_, at, microseconds, words, client, _): Logged) -> Slow {
    Slow {
        at,
        took: Duration::from_micros(microseconds),
        words,
        client,
    }
}

/// How its address wants the connection encrypted.
pub(super) fn encryption(source: &Source) -> Encryption {
    match source.url.starts_with("rediss:") || !source.tls.is_empty() {
        true => Encryption::Tls,
        false => Encryption::None,
    }
}

/// Who it is that asks. Credentials of its own leave nothing of those in the address.
async fn login(source: &Source) -> Result<RedisConnectionInfo, Failure> {
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let credentials = &source.credentials;
    if !credentials.is_empty() {
        if let Some(username) = &credentials.username {
            login = login.set_username(username);
        }
        if let Some(password) = credentials.password().await? {
            login = login.set_password(password.expose_secret());
        }
        return Ok(login);
    }
    let url = Url::parse(&source.url).ok();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if let Some(username) = url.as_ref().map(Url::username).filter(|name| !name.is_empty()) {
        login = login.set_username(decoded(username));
    }
    if let Some(password) = url.as_ref().and_then(Url::password) {
        login = login.set_password(decoded(password));
    }
    Ok(login)
}

/// What an error means. Its text holds Redis's own message, never what was sent.
fn failure(name: &str, error: &RedisError) -> Failure {
    if error.is_io_error() || error.is_connection_dropped() {
        let message = format!("the source `{name}` is away: the connection was lost");
        return Failure::new(Code::SourceUnavailable, message);
    }
    let told = crate::tools::observe::answer::cut(&error.to_string(), 500);
    Failure::new(Code::SourceError, format!("the source `{name}` answers: {told}"))
}
