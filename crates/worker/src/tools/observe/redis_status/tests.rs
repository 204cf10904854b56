use super::super::{
    databases::{self, bears_its_source},
    testing::{call, call_for},
};
use super::*;
use crate::outcome::Code;
use deadpool_redis::redis::{Client, cmd};
use std::{collections::BTreeMap, time::Duration};

fn told(info: &[(&str, &str)]) -> Told {
    Told {
        ping: Duration::from_millis(1),
        info: info
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect::<BTreeMap<_, _>>(),
        slow: Ok(Vec::new()),
    }
}

#[test]
fn what_is_well_is_not_found_fault_with() {
    let well = told(&[
        ("used_memory", "1000000"),
        ("maxmemory", "0"),
        ("mem_fragmentation_ratio", "9.1"),
        ("evicted_keys", "0"),
        ("keyspace_hits", "10"),
        ("keyspace_misses", "100"),
        ("rdb_last_bgsave_status", "ok"),
        ("master_link_status", "up"),
        ("connected_clients", "5"),
        ("maxclients", "10000"),
    ]);
    assert_eq!(findings(&well), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_told_in_sentences() {
    let wrong = told(&[
        ("master_link_status", "down"),
        ("used_memory", "190000000"),
        ("maxmemory", "200000000"),
        ("maxmemory_policy", "noeviction"),
        ("mem_fragmentation_ratio", "2.4"),
        ("rejected_connections", "7"),
        ("keyspace_hits", "100"),
        ("keyspace_misses", "900000"),
        ("latest_fork_usec", "900000"),
    ]);
    let found = findings(&wrong);
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found[0].contains("lost its master"));
    assert_eq!(
        found[1],
        "memory is at 95 % of maxmemory; at the limit it refuses writes (noeviction)"
    );
}

#[test]
fn a_slow_command_shows_its_name_and_its_key_and_no_argument() {
    let logged = |words: &[&str]| {
        shown(&Slow {
            at: 1_700_000_000,
            took: Duration::from_micros(12_345),
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            client: "10.0.0.1:5".into(),
        })
    };
    let set = logged(&["set", "session:1", "secret", "EX", "5"]);
    let expected = json!({
        "at": "2023-11-14T22:13:20Z", "ms": 12.35, "command": "SET", "key": "session:1", "arguments": 4,
        "client": "10.0.0.1:5",
    });
    assert_eq!(set, expected);
    assert_eq!(
        logged(&["EVALSHA", "abc", "1", "queue", "secret"])["key"],
        "queue"
    );
    assert_eq!(
        logged(&["GET", &"k".repeat(100)])["key"]
            .as_str()
            .unwrap()
            .chars()
            .count(),
        LONGEST_KEY
    );
    for words in [
        &["AUTH", "secret"][..],
        &["EVAL", "secret", "0", "secret"],
        &["CONFIG", "SET", "requirepass", "secret"],
        &["HELLO", "3", "AUTH", "u", "secret"],
        &["secret secret", "x"],
        &[],
    ] {
        let shown = logged(words);
        assert!(
            shown.get("key").is_none() && !shown.to_string().contains("secret"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn bears_whatever_happens_to_its_source() {
    let endless: (&[u8], &[u8]) = (b"$900000000\r\n", b"x");
    bears_its_source::<Tool>(Kind::Redis, "redis://127.0.0.1:PORT", endless).await;
}

#[tokio::test]
async fn a_real_redis_tells_how_it_is() {
    let Some(server) = databases::redis("s3cret").await else {
        return;
    };
    let address = format!("redis://:s3cret@127.0.0.1:{}/", server.port);
    let client = Client::open(address).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for n in 0..3 {
        let mut set = cmd("SET");
        set.arg(format!("key:{n}"))
            .arg("a value that is nobody's business");
        let () = set.query_async(&mut connection).await.unwrap();
    }
    let source = |credentials| {
        let grants = json!({ "acme": { "credentials": credentials } });
        let url = "redis://:s3cret@127.0.0.1:PORT/0";
        databases::source(Kind::Redis, url, server.port, json!({ "grants": grants }))
    };
    let sources = source(json!({ "password": "wrong" })).unwrap();
    let answer = call::<Tool>(&sources, json!({})).await.unwrap();
    assert_eq!(answer["findings"], json!([]));
    assert_eq!(answer["keys"]["db0"]["keys"], 3);
    assert!(
        answer["memory"]["used_memory"].as_u64().unwrap() > 100_000,
        "{answer}"
    );
    assert_eq!(answer["server"]["role"], "master");
    let slow = answer["slow"].as_array().unwrap();
    assert!(
        slow.iter()
            .any(|slow| slow["command"] == "SET" && slow["key"] == "key:2"),
        "{answer}"
    );
    assert!(!answer.to_string().contains("business"), "{answer}");
    assert!(answer.to_string().len() < 4096, "{}", answer.to_string().len());

    // A tenant comes with his own password, and with no other.
    let failure = call_for::<Tool>(&sources, "acme", json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::SourceError, "{failure}");
    assert!(!failure.message.contains("s3cret"));
    let own = source(json!({ "password": "s3cret" })).unwrap();
    assert_eq!(
        call_for::<Tool>(&own, "acme", json!({})).await.unwrap()["server"]["role"],
        "master"
    );
    for nobody in [json!({ "username": "default" }), json!({ "bearer": "s3cret" })] {
        assert!(
            source(nobody).is_err(),
            "it would log in as nobody, and be everybody"
        );
    }
}
