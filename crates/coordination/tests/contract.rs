//! What every implementation must do, in process and over Redis, and what happens when Redis goes away.
//!
//! `TEST_REDIS_URL` names the Redis to test on; the tests of its loss start one of their own from
//! `TEST_REDIS_SERVER` or from `redis-server` on the `PATH`. Without them those parts are left out, in words.

#![expect(clippy::unwrap_used, reason = "a test may fail here")]

use coordination::{Coordination, Decision, Quota, Settings, connect};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// How long to wait for what must come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a command may take here: so long that a busy machine does not look like a Redis that is away.
const COMMAND: Duration = Duration::from_secs(3);

/// A prefix of its own for each test, so that neither tests nor runs meet.
fn settings(url: &str) -> Settings {
    let prefix = format!("test-{}-{:?}:", std::process::id(), Instant::now()).replace([' ', '{', '}'], "");
    Settings {
        prefix,
        timeout: COMMAND,
        ..Settings::at(url)
    }
}

/// Waits until commands reach Redis: only then is a value kept where every replica sees it.
async fn wait_for_redis(coordination: &Coordination) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if coordination
            .cache
            .put("probe", b"1", Duration::from_secs(5))
            .await
        {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("Redis was not there within {PATIENCE:?}");
}

/// Two replicas of each implementation: in process they are one and the same.
async fn implementations() -> Vec<(&'static str, Coordination, Coordination)> {
    let alone = Coordination::in_process();
    let mut all = vec![("in process", alone.clone(), alone)];
    if let Ok(url) = std::env::var("TEST_REDIS_URL") {
        let settings = settings(&url);
        let (one, other) = (connect(&settings).unwrap(), connect(&settings).unwrap());
        wait_for_redis(&one).await;
        wait_for_redis(&other).await;
        all.push(("Redis", one, other));
    } else {
        eprintln!("LEFT OUT: Redis (TEST_REDIS_URL is not set)");
    }
    all
}

#[tokio::test]
async fn limits_hold_across_replicas() {
    for (name, one, other) in implementations().await {
        // So slow that nothing is given back while the test runs.
        let quota = Quota {
            per_second: 0.001,
            burst: 4,
        };
        let mut remaining = Vec::new();
        for replica in [&one, &other, &one, &other] {
            let Decision::Allowed { remaining: left } = replica.limiter.check("test:a", quota).await else {
                panic!("{name}: limited within the burst");
            };
            remaining.push(left);
        }
        assert_eq!(remaining, [3, 2, 1, 0], "{name}");
        let Decision::Limited { retry_after } = other.limiter.check("test:a", quota).await else {
            panic!("{name}: not limited after the burst");
        };
        assert!(
            retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1000),
            "{name}: {retry_after:?}"
        );
        let allowed = one.limiter.check("test:b", quota).await;
        assert!(
            matches!(allowed, Decision::Allowed { .. }),
            "{name}: keys must not share a quota"
        );
        the_hint_is_enough(name, &one).await;
    }
}

/// Whoever is limited and comes again as told is let in.
async fn the_hint_is_enough(name: &str, one: &Coordination) {
    let quota = Quota {
        per_second: 5.0,
        burst: 1,
    };
    let limited = async {
        loop {
            // Between two requests of a busy machine more may be given back than one takes.
            if let Decision::Limited { retry_after } = one.limiter.check("test:c", quota).await {
                break retry_after;
            }
        }
    };
    let retry_after = timeout(PATIENCE, limited).await.expect("it is limited");
    assert!(
        retry_after <= Duration::from_millis(200),
        "{name}: {retry_after:?}"
    );
    sleep(retry_after + Duration::from_millis(5)).await;
    let again = one.limiter.check("test:c", quota).await;
    assert!(matches!(again, Decision::Allowed { .. }), "{name}: {again:?}");
}

#[tokio::test]
async fn values_are_shared_until_they_expire() {
    for (name, one, other) in implementations().await {
        assert_eq!(one.cache.get("k").await, None, "{name}");
        assert!(
            one.cache.put("k", b"\0v1", Duration::from_secs(60)).await,
            "{name}"
        );
        assert_eq!(
            other.cache.get("k").await.as_deref(),
            Some(&b"\0v1"[..]),
            "{name}"
        );
        assert!(
            other.cache.put("k", b"v2", Duration::from_secs(60)).await,
            "{name}"
        );
        assert_eq!(one.cache.get("k").await.as_deref(), Some(&b"v2"[..]), "{name}");
        assert!(
            other.cache.put("k", b"brief", Duration::from_millis(80)).await,
            "{name}"
        );
        sleep(Duration::from_millis(120)).await;
        assert_eq!(one.cache.get("k").await, None, "{name}: expired");
        one.cache.put("k", b"v3", Duration::from_secs(60)).await;
        other.cache.remove("k").await;
        assert_eq!(one.cache.get("k").await, None, "{name}: removed");
        let huge = vec![0; coordination::cache::MAX_VALUE_BYTES + 1];
        assert!(
            !one.cache.put("k", &huge, Duration::from_secs(1)).await,
            "{name}: too large"
        );
    }
}

#[tokio::test]
async fn notices_reach_every_replica_once() {
    for (name, one, other) in implementations().await {
        let (mut here, mut there, mut elsewhere) = (
            one.notices.subscribe("t"),
            other.notices.subscribe("t"),
            other.notices.subscribe("u"),
        );
        // The subscription on the other side may still be on its way.
        let mut arrived = None;
        for i in 0..50 {
            one.notices.publish("t", &format!("warm {i}")).await;
            if let Ok(Ok(first)) = timeout(Duration::from_millis(100), there.recv()).await {
                arrived = Some(first);
                break;
            }
        }
        assert!(arrived.is_some_and(|text| text.starts_with("warm")), "{name}");
        one.notices.publish("t", "last: ü").await;
        for receiver in [&mut here, &mut there] {
            let last = async { while receiver.recv().await.unwrap() != "last: ü" {} };
            timeout(PATIENCE, last).await.expect(name);
            // And no second time.
            let more = timeout(Duration::from_millis(200), receiver.recv()).await;
            assert!(more.is_err(), "{name}: {more:?}");
        }
        assert!(elsewhere.try_recv().is_err(), "{name}: topics are apart");
    }
}

/// A Redis that can be stopped; killed with the test.
struct Server(Child, u16);

impl Server {
    fn start(port: u16) -> Option<Self> {
        let program = std::env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let port_text = port.to_string();
        let child = Command::new(program)
            .args([
                "--port",
                &port_text,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self(child, port))
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &self.0.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port from below the range that outgoing connections and other tests are given, so that none of those takes it
/// while Redis is away.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 9_000).unwrap_or(0);
    (10_000 + first..20_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// Redis is away: one command at most waits for it in vain, limits and values are kept here.
async fn assert_falls_back(coordination: &Coordination, how: &str) {
    let quota = Quota {
        per_second: 0.001,
        burst: 2,
    };
    let key = format!("test:{how}");
    let started = Instant::now();
    for expected in [true, true, false] {
        let decision = coordination.limiter.check(&key, quota).await;
        assert_eq!(matches!(decision, Decision::Allowed { .. }), expected, "{how}");
    }
    coordination
        .cache
        .put("away", b"kept", Duration::from_secs(60))
        .await;
    assert_eq!(
        coordination.cache.get("away").await.as_deref(),
        Some(&b"kept"[..]),
        "{how}"
    );
    let mut notices = coordination.notices.subscribe("t");
    coordination.notices.publish("t", "still heard here").await;
    assert_eq!(notices.recv().await.unwrap(), "still heard here", "{how}");
    assert!(started.elapsed() < 2 * COMMAND, "{how}: {:?}", started.elapsed());
}

#[tokio::test]
async fn losing_redis_costs_no_time_and_it_is_taken_up_again() {
    let port = free_port();
    let coordination = connect(&settings(&format!("redis://127.0.0.1:{port}/"))).unwrap();
    assert_falls_back(&coordination, "never there").await;
    let Some(server) = Server::start(port) else {
        eprintln!("LEFT OUT: loss of Redis (no redis-server on the PATH and no TEST_REDIS_SERVER)");
        return;
    };
    wait_for_redis(&coordination).await;

    // Frozen: connections stay open and nothing answers.
    server.signal("-STOP");
    assert_falls_back(&coordination, "frozen").await;
    server.signal("-CONT");
    wait_for_redis(&coordination).await;

    let port = server.1;
    drop(server);
    assert_falls_back(&coordination, "killed").await;
    let _again = Server::start(port).expect("it could be started before");
    wait_for_redis(&coordination).await;
}

#[test]
fn passwords_stay_out_of_errors() {
    let settings = Settings::at("http://user:hunter2@host/");
    let error = settings.validate().unwrap_err().to_string();
    assert!(
        !error.contains("hunter2") && error.contains("redis://"),
        "{error}"
    );
}
