//! What Redis tells somebody who looks for what is wrong: on a connection of its own, so that it can be asked while the
//! circuit is open, and an answer that fails opens none.

use crate::redis_link::Link;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, InfoDict, RedisError, aio::MultiplexedConnection, cmd,
};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For how long Redis is asked, in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many slow commands are shown.
const SLOW_COMMANDS: u32 = 10;
/// The longest key that is shown, and how much of a session's identifier, characters.
const MAX_KEY: usize = 128;
const MAX_ID: usize = 8;

/// Asks Redis how it is. Clones share the link.
#[derive(Clone)]
pub struct Inspector {
    client: Client,
    link: Link,
}

/// How Redis is; what it does not tell is `None`. Names and units are those of Redis's `INFO`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Commands a second.
    pub instantaneous_ops_per_sec: Option<u64>,
    /// Memory in use, for people.
    pub used_memory_human: Option<String>,
    /// Connections of clients.
    pub connected_clients: Option<u64>,
    /// Clients that wait in a blocking command.
    pub blocked_clients: Option<u64>,
    /// Memory in use, bytes.
    pub used_memory: Option<u64>,
    /// The most memory, bytes; 0: no limit.
    pub maxmemory: Option<u64>,
    /// What happens at the limit.
    pub maxmemory_policy: Option<String>,
    /// Memory held over memory in use.
    pub mem_fragmentation_ratio: Option<f64>,
    /// Keys removed for want of memory.
    pub evicted_keys: Option<u64>,
    /// Keys whose time was up.
    pub expired_keys: Option<u64>,
    /// Look-ups that found their key.
    pub keyspace_hits: Option<u64>,
    /// Look-ups that did not.
    pub keyspace_misses: Option<u64>,
    /// Connections refused for the limit of clients.
    pub rejected_connections: Option<u64>,
    /// `master` or `slave`.
    pub role: Option<String>,
    /// The server's version.
    pub redis_version: Option<String>,
    /// For how long it has run, seconds.
    pub uptime_in_seconds: Option<u64>,
    /// How long a PING took just now, milliseconds.
    pub ping_ms: f64,
    /// The last slow commands, newest first; `None` where Redis does not show them.
    pub slowlog: Option<Vec<SlowCommand>>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowlog_refused: Option<String>,
    /// What this service holds of it.
    pub circuit: CircuitReport,
}

/// A command in Redis's slow log: of all its clients, these services or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlowCommand {
    /// Redis's number for it.
    pub id: i64,
    /// When it ran.
    pub at: String,
    /// How long it took, milliseconds.
    pub duration_ms: f64,
    /// The command's name.
    pub command: String,
    /// Its key, where it is one of this installation; the end of a cached value's is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many arguments it had. They are not shown: they may be anything.
    pub arguments: usize,
    /// Who sent it.
    pub client: String,
}

/// The circuit around the service's connection.
#[derive(Clone, Debug, Serialize)]
pub struct CircuitReport {
    /// `closed`: Redis is used; `open`: the service keeps everything in process.
    pub state: &'static str,
    /// Since when.
    pub since: String,
    /// What failed last, if anything has since the service started.
    pub last_failure: Option<Failure>,
}

/// A command or an attempt to connect that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// When.
    pub at: String,
    /// The command's name; `CONNECT` for an attempt to connect.
    pub command: String,
    /// What went wrong.
    pub reason: String,
}

/// Redis does not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Redis does not answer: {reason}")]
pub struct Unreachable {
    /// Why.
    pub reason: String,
    /// What this service holds of it.
    pub circuit: Box<CircuitReport>,
}

type Logged = (i64, u64, i64, Vec<Vec<u8>>, String, String);

impl Inspector {
    pub(crate) fn new(client: Client, link: Link) -> Self {
        Self { client, link }
    }

    /// Asks Redis, for two seconds at most.
    ///
    /// # Errors
    /// [`Unreachable`] when it does not answer in that time.
    pub async fn report(&self) -> Result<Report, Unreachable> {
        let reason = match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(Ok(report)) => return Ok(report),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        let circuit = Box::new(self.link.circuit());
        Err(Unreachable { reason, circuit })
    }

    async fn ask(&self) -> Result<Report, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = &self.client;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let started = Instant::now();
        let _: String = cmd("PING").query_async(&mut connection).await?;
        let ping_ms = started.elapsed().as_micros() as f64 / 1e3;
        let info: String = cmd("INFO").query_async(&mut connection).await?;
        let (slowlog, slowlog_refused) = match self.slow_log(&mut connection).await {
            Ok(slow) => (Some(slow), None),
            // An account may not be allowed to look at it, or a service not have it.
            Err(error) if error.is_io_error() || error.is_timeout() => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        let info = InfoDict::new(&info);
        Ok(Report {
            instantaneous_ops_per_sec: info.get("instantaneous_ops_per_sec"),
            used_memory_human: info.get("used_memory_human"),
            connected_clients: info.get("connected_clients"),
            blocked_clients: info.get("blocked_clients"),
            used_memory: info.get("used_memory"),
            maxmemory: info.get("maxmemory"),
            maxmemory_policy: info.get("maxmemory_policy"),
            mem_fragmentation_ratio: info.get("mem_fragmentation_ratio"),
            evicted_keys: info.get("evicted_keys"),
            expired_keys: info.get("expired_keys"),
            keyspace_hits: info.get("keyspace_hits"),
            keyspace_misses: info.get("keyspace_misses"),
            rejected_connections: info.get("rejected_connections"),
            role: info.get("role"),
            redis_version: info.get("redis_version"),
            uptime_in_seconds: info.get("uptime_in_seconds"),
            ping_ms,
            slowlog,
            slowlog_refused,
            circuit: self.link.circuit(),
        })
    }

    async fn slow_log(&self, connection: &mut MultiplexedConnection) -> Result<Vec<SlowCommand>, RedisError> {
        let mut command = cmd("SLOWLOG");
        command.arg("GET").arg(SLOW_COMMANDS);
        let logged: Vec<Logged> = command.query_async(connection).await?;
        let prefix = &self.link.settings().prefix;
        Ok(logged.into_iter().map(|one| shown(one, prefix)).collect())
    }
}

fn shown((id, at, microseconds, words, client, _name): Logged, prefix: &str) -> SlowCommand {
    let command = words.first().map_or_else(String::new, |word| name(word));
    SlowCommand {
        id,
        at: rfc3339(UNIX_EPOCH + Duration::from_secs(at)),
        duration_ms: microseconds as f64 / 1e3,
        key: key(&command, &words, prefix),
        command,
        arguments: words.len().saturating_sub(1),
        client,
    }
}

/// What can be a command's name: whatever else somebody sent in its place is not shown.
fn name(word: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let name = word.iter().filter(|b| plain(b)).take(24);
    name.map(|b| char::from(b.to_ascii_uppercase())).collect()
}

/// The key of a command that these services send. Of others it is not known where the key stands, and what it holds.
fn key(command: &str, words: &[Vec<u8>], prefix: &str) -> Option<String> {
    let at = match command {
        "GET" | "SET" | "DEL" | "PUBLISH" | "SUBSCRIBE" => 1,
        "EVAL" | "EVALSHA" => 3,
        _ => return None,
    };
    let key = std::str::from_utf8(words.get(at)?).ok()?;
    let rest = key.strip_prefix(prefix)?;
    // A cached value's key may end with a session's identifier, which is its holder's affair.
    let shown = match rest.strip_prefix("cache:").and(key.rsplit_once(':')) {
        Some((kind, id)) if id.chars().count() > MAX_ID => format!("{kind}:{}…", cut(id, MAX_ID)),
        _ => cut(key, MAX_KEY),
    };
    Some(shown)
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// A time as text.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(words: &[&str]) -> SlowCommand {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let one = (
            7,
            1_700_000_000,
            12_345,
            words,
            "10.0.0.1:5".to_owned(),
            String::new(),
        );
        shown(one, "devops-mcp:")
    }

    #[test]
    fn a_slow_command_shows_its_name_and_a_key_of_ours_and_no_argument() {
        let set = logged(&["set", "devops-mcp:limit:rest:0198", "secret", "PX", "5"]);
        assert_eq!(
            (set.command.as_str(), set.arguments, set.at.as_str()),
            ("SET", 4, "2023-11-14T22:13:20.000Z")
        );
        assert_eq!(set.key.as_deref(), Some("devops-mcp:limit:rest:0198"));
        let eval = logged(&["EVAL", "return 1", "1", "devops-mcp:limit:mcp:k", "secret"]);
        assert_eq!(eval.key.as_deref(), Some("devops-mcp:limit:mcp:k"));
        for words in [
            &["AUTH", "secret"][..],
            &["AUTH", "devops-mcp:secret"],
            &["CONFIG", "SET", "requirepass", "secret"],
            &["GET", "another:secret"],
            &["EVAL", "secret"],
            &["secret secret", "x"],
        ] {
            let shown = logged(words);
            assert_eq!(shown.key, None, "{shown:?}");
            assert!(!format!("{shown:?}").contains("secret"), "{shown:?}");
        }
    }

    #[test]
    fn a_sessions_identifier_is_cut() {
        let get = logged(&["GET", "devops-mcp:cache:mcp-session:t1:0123456789abcdef"]);
        assert_eq!(
            get.key.as_deref(),
            Some("devops-mcp:cache:mcp-session:t1:01234567…")
        );
    }
}
