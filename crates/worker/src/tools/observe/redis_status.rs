//! `redis_status`

use super::answer::{self, Answer};
use crate::{
    outcome::Failure,
    sources::{
        Kind,
        redis::{self, Slow, Told},
    },
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How many slow commands are shown.
const SLOW_COMMANDS: usize = 10;
/// How much of a key is, characters.
const LONGEST_KEY: usize = 64;

/// Asks Redis how it is.
pub(super) struct Tool;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "redis_status";
    const TITLE: &'static str = "Redis: how it is";
    const DESCRIPTION: &'static str = "Says how a Redis is: memory, clients, hit ratio, evictions, replication, \
        persistence, what looks wrong (findings), and its last slow commands by name and key.";
    const NEEDS: &'static [Kind] = &[Kind::Redis];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = desk
            .sources
            .pick(Kind::Redis, arguments.source.as_deref(), &desk.who)?;
        let told = redis::ask(&access, SLOW_COMMANDS).await?;
        let mut answer = Answer::from(&access);
        answer.set("findings", findings(&told));
        answer.set("ping_ms", answer::number(told.ping.as_secs_f64() * 1e3));
        for (part, names) in SHOWN {
            let known = names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), value(told.info.get(*name)?))));
            let known: Map<String, Value> = known.collect();
            if !known.is_empty() {
                answer.set(part, known);
            }
        }
        answer.set_some("hit_ratio", hit_ratio(&told).map(answer::number));
        let keys: Map<String, Value> = told.info.iter().filter_map(keyspace).collect();
        answer.set("keys", keys);
        match &told.slow {
            Ok(slow) => {
                answer.set("slow", slow.iter().map(shown).collect::<Vec<_>>());
                answer.note("slow: of all clients, since the log was last cleared; arguments but the key are not shown");
            }
            Err(why) => {
                answer.note(format!("SLOWLOG is not to be had: {}", answer::cut(why, 200)));
            }
        }
        Ok(answer.finish("slow"))
    }
}

/// What is shown of `INFO`, in its names and units.
const SHOWN: [(&str, &[&str]); 5] = [
    (
        "server",
        &["redis_version", "role", "uptime_in_seconds", "loading"],
    ),
    (
        "memory",
        &[
            "used_memory",
            "used_memory_rss",
            "used_memory_peak",
            "maxmemory",
            "maxmemory_policy",
            "mem_fragmentation_ratio",
        ],
    ),
    (
        "clients",
        &[
            "connected_clients",
            "blocked_clients",
            "maxclients",
            "rejected_connections",
        ],
    ),
    (
        "activity",
        &[
            "instantaneous_ops_per_sec",
            "total_commands_processed",
            "evicted_keys",
            "expired_keys",
            "total_error_replies",
        ],
    ),
    (
        "durability",
        &[
            "rdb_last_bgsave_status",
            "rdb_changes_since_last_save",
            "aof_enabled",
            "aof_last_write_status",
            "latest_fork_usec",
            "connected_slaves",
            "master_link_status",
            "master_last_io_seconds_ago",
        ],
    ),
];

fn value(text: &str) -> Value {
    text.parse::<i64>().map(Value::from).unwrap_or_else(|_| {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.map_or_else(|| answer::cut(text, 80).into(), answer::number)
    })
}

fn number(told: &Told, name: &str) -> f64 {
    told.info
        .get(name)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn hit_ratio(told: &Told) -> Option<f64> {
    let (hits, misses) = (number(told, "keyspace_hits"), number(told, "keyspace_misses"));
    (hits + misses > 0.0).then(|| hits / (hits + misses))
}

/// `db0:keys=3,expires=1,avg_ttl=9000`
fn keyspace((name, text): (&String, &String)) -> Option<(String, Value)> {
    let database = name.strip_prefix("db")?;
    database.parse::<u32>().ok()?;
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let wanted = pairs.filter(|(name, _)| matches!(*name, "keys" | "expires"));
    let counts: Map<String, Value> = wanted
        .map(|(name, count)| (name.to_owned(), value(count)))
        .collect();
    Some((name.clone(), counts.into()))
}

/// What looks wrong, in sentences; the worst first.
fn findings(told: &Told) -> Vec<String> {
    let parts = [standing(told), memory(told), clients(told), durability(told)];
    let wrong = parts.into_iter().flatten().filter(|(wrong, _)| *wrong);
    wrong.map(|(_, sentence)| sentence).collect()
}

fn is(told: &Told, name: &str, word: &str) -> bool {
    told.info.get(name).is_some_and(|value| value == word)
}

fn percent(part: f64, whole: f64) -> f64 {
    (part / whole * 100.0).round()
}

fn standing(told: &Told) -> Vec<(bool, String)> {
    let ping = told.ping.as_secs_f64() * 1e3;
    vec![
        (
            is(told, "loading", "1"),
            "it is loading its data and refuses commands until then".into(),
        ),
        (
            is(told, "master_link_status", "down"),
            "it is a replica that has lost its master: what it answers is old".into(),
        ),
        (ping > 50.0, format!("a PING took {} ms", ping.round())),
    ]
}

fn memory(told: &Told) -> Vec<(bool, String)> {
    let at = |name: &str| number(told, name);
    let (used, most) = (at("used_memory"), at("maxmemory"));
    let policy = told.info.get("maxmemory_policy").map_or("", String::as_str);
    let then = match policy {
        "noeviction" => "at the limit it refuses writes (noeviction)".to_owned(),
        policy => format!("at the limit it removes keys ({policy})"),
    };
    let (share, evicted, ratio) = (
        percent(used, most),
        at("evicted_keys"),
        at("mem_fragmentation_ratio"),
    );
    // Of little memory any ratio is possible.
    let matters = used > 100e6;
    vec![
        (
            most > 0.0 && used > 0.9 * most,
            format!("memory is at {share} % of maxmemory; {then}"),
        ),
        (
            evicted > 0.0,
            format!("it removed {evicted} keys for want of memory"),
        ),
        (
            matters && ratio > 1.5,
            format!("it holds {ratio} times the memory that it uses (fragmentation)"),
        ),
        (
            matters && (0.01..0.9).contains(&ratio),
            format!("only {ratio} of its memory is resident: it is swapped out"),
        ),
    ]
}

fn clients(told: &Told) -> Vec<(bool, String)> {
    let at = |name: &str| number(told, name);
    let (rejected, blocked) = (at("rejected_connections"), at("blocked_clients"));
    let (clients, limit) = (at("connected_clients"), at("maxclients"));
    let crowded = limit > 0.0 && clients > 0.8 * limit;
    let asked = at("keyspace_hits") + at("keyspace_misses");
    let ratio = hit_ratio(told).unwrap_or(1.0);
    vec![
        (
            rejected > 0.0,
            format!("it refused {rejected} connections: maxclients was reached"),
        ),
        (
            crowded,
            format!(
                "{clients} clients are {} % of maxclients",
                percent(clients, limit)
            ),
        ),
        (
            blocked > 0.0,
            format!("{blocked} clients wait in a blocking command"),
        ),
        (
            ratio < 0.5 && asked > 1000.0,
            format!("{} % of look-ups found their key", percent(ratio, 1.0)),
        ),
    ]
}

fn durability(told: &Told) -> Vec<(bool, String)> {
    let fork = number(told, "latest_fork_usec") / 1e3;
    vec![
        (
            is(told, "rdb_last_bgsave_status", "err"),
            "its last snapshot failed: it may refuse writes".into(),
        ),
        (
            is(told, "aof_last_write_status", "err"),
            "its last write to the append-only file failed".into(),
        ),
        (
            fork > 200.0,
            format!("its last fork stopped it for {} ms", fork.round()),
        ),
    ]
}

/// A slow command, without the arguments that are no key.
fn shown(slow: &Slow) -> Value {
    let command = slow.words.first().map_or_else(String::new, |word| command(word));
    let mut shown = json!({
        "at": chrono::DateTime::from_timestamp(slow.at, 0).map(answer::time),
        "ms": answer::number(slow.took.as_secs_f64() * 1e3),
        "command": command,
        "arguments": slow.words.len().saturating_sub(1),
        "client": answer::cut(&slow.client, 64),
    });
    if let Some(key) = key(&command, &slow.words) {
        shown["key"] = key.into();
    }
    shown
}

/// What can be a command's name: whatever else somebody sent in its place is not shown.
fn command(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let name = word.iter().filter(|byte| plain(byte)).take(24);
    name.map(|byte| char::from(byte.to_ascii_uppercase())).collect()
}

/// Its first key, where it is known where that stands: of other commands it is not known what stands there.
fn key(command: &str, words: &[Vec<u8>]) -> Option<String> {
    const FIRST: &str = "GET SET SETEX PSETEX SETNX GETSET GETDEL GETEX DEL UNLINK EXISTS EXPIRE PEXPIRE TTL PTTL TYPE \
        DUMP APPEND STRLEN INCR INCRBY DECR DECRBY MGET MSET GETRANGE SETRANGE BITCOUNT HGET HSET HMGET \
        HMSET HGETALL HKEYS HVALS HLEN HDEL HEXISTS HINCRBY HSCAN LPUSH RPUSH LPOP RPOP LRANGE LLEN \
        LREM LTRIM LINDEX LINSERT BLPOP BRPOP SADD SREM SMEMBERS SISMEMBER SCARD SINTER SUNION SDIFF \
        SPOP SSCAN SORT ZADD ZREM ZRANGE ZREVRANGE ZRANGEBYSCORE ZCARD ZCOUNT ZSCORE ZRANK ZINCRBY \
        ZREMRANGEBYSCORE ZSCAN XADD XLEN XRANGE XREVRANGE XTRIM XDEL XACK PFADD PFCOUNT PFMERGE RENAME \
        COPY";
    let at = match command {
        "EVAL" | "EVALSHA" | "FCALL" if words.get(2).is_some_and(|keys| keys != b"0") => 3,
        command if FIRST.split(' ').any(|known| known == command) => 1,
        _ => return None,
    };
    let key = words.get(at)?;
    Some(answer::cut(&String::from_utf8_lossy(key), LONGEST_KEY))
}

#[cfg(test)]
mod tests;
