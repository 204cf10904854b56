//! Drives one server for one turn, twice: flat out, and at the same rate as all others.
//!
//! Connections are kept. Flat out, each sends its request again as soon as it is answered, which shows how much the
//! server can do; but the more it does, the more requests share a wake-up and a system call. What a request costs can
//! only be compared at one rate.

use crate::{procfs, subject::Subject};
use anyhow::{Context, bail, ensure};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// How long a server is driven before it is measured.
const WARM_UP: Duration = Duration::from_millis(150);
/// The end of a chunked body. JSON holds no bare line ends, so nothing else looks like it.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// One turn of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// As fast as it can.
    pub(crate) flat_out: Phase,
    /// At the common rate.
    pub(crate) steady: Phase,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// Answers a second.
    pub(crate) rate: f64,
    /// The median latency.
    pub(crate) p50: Duration,
    /// The latency that one in a hundred exceeds.
    pub(crate) p99: Duration,
    /// CPU seconds an answer, of each of the subject's processes.
    pub(crate) cpu: Vec<f64>,
}

impl Phase {
    /// CPU of the process that was called.
    pub(crate) fn own(&self) -> f64 {
        self.cpu.first().copied().unwrap_or_default()
    }

    /// CPU of all processes that took part.
    pub(crate) fn together(&self) -> f64 {
        self.cpu.iter().sum()
    }
}

/// Drives `subject` for a while, half of it at `rate` requests a second, and measures it meanwhile.
pub(crate) async fn measure(subject: &Subject, turn: Duration, rate: f64) -> anyhow::Result<Turn> {
    Ok(Turn {
        flat_out: flat_out(subject, turn / 2).await?,
        steady: steady(subject, turn / 2, rate).await?,
    })
}

/// Drives `subject` as fast as it can for a while.
pub(crate) async fn flat_out(subject: &Subject, time: Duration) -> anyhow::Result<Phase> {
    drive(subject, time, Duration::ZERO).await
}

/// Drives `subject` for a while at `rate` requests a second.
pub(crate) async fn steady(subject: &Subject, time: Duration, rate: f64) -> anyhow::Result<Phase> {
    let every = Duration::from_secs_f64(subject.requests.len() as f64 / rate);
    drive(subject, time, every).await
}

/// Asks so many times in all, rounded up to the same number for each connection, as fast as it can; how long each
/// answer took, the shortest first.
pub(crate) async fn batch(subject: &Subject, count: usize) -> anyhow::Result<Vec<Duration>> {
    let limit = count.div_ceil(subject.requests.len());
    let mut connections = JoinSet::new();
    for request in &subject.requests {
        let (request, stop) = (request.clone(), Arc::default());
        let pace = (Instant::now(), Duration::ZERO);
        connections.spawn(ask(subject.address, request, stop, pace, limit));
    }
    let mut latencies = Vec::new();
    while let Some(answers) = connections.join_next().await {
        let answers = answers?.with_context(|| subject.name.clone())?;
        latencies.extend(answers.into_iter().map(|(_, took)| took));
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// Each connection asks again after `every`, or once it is answered when that is later.
async fn drive(subject: &Subject, time: Duration, every: Duration) -> anyhow::Result<Phase> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut connections = JoinSet::new();
    for (first, request) in (0..).zip(&subject.requests) {
        // Evenly spread: they take turns.
        let first = Instant::now() + every * first / u32::try_from(subject.requests.len())?;
        connections.spawn(ask(
            subject.address,
            request.clone(),
            stop.clone(),
            (first, every),
            usize::MAX,
        ));
    }
    sleep(WARM_UP).await;
    let before = subject.cpu()?;
    let begin = Instant::now();
    sleep(time).await;
    let end = Instant::now();
    let after = subject.cpu()?;
    stop.store(true, Ordering::Relaxed);

    let mut latencies = Vec::new();
    while let Some(answers) = connections.join_next().await {
        let answers = answers?.with_context(|| subject.name.clone())?;
        latencies.extend(
            answers
                .iter()
                .filter(|(at, _)| (begin..end).contains(at))
                .map(|(_, took)| *took),
        );
    }
    ensure!(
        !latencies.is_empty(),
        "{} answered nothing within {time:?}",
        subject.name
    );
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    Ok(Phase {
        rate: count / (end - begin).as_secs_f64(),
        p50: quantile(&latencies, 0.5),
        p99: quantile(&latencies, 0.99),
        cpu: before
            .iter()
            .zip(&after)
            .map(|(before, after)| (after - before) / count)
            .collect(),
    })
}

/// What this share of `sorted` does not exceed; zero of nothing.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share) as usize).copied().unwrap_or_default()
}

impl Subject {
    /// CPU seconds that each of its processes has taken so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<f64>> {
        self.processes
            .iter()
            .map(|pid| procfs::cpu_seconds(*pid))
            .collect()
    }
}

/// Asks the same again and again on one connection, at most `limit` times; when each answer was there, and how long it
/// took.
async fn ask(
    address: SocketAddr,
    request: Arc<[u8]>,
    stop: Arc<AtomicBool>,
    (mut due, every): (Instant, Duration),
    limit: usize,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut answers, mut buffer) = (Vec::with_capacity(1 << 14), Vec::with_capacity(16 << 10));
    while !stop.load(Ordering::Relaxed) && answers.len() < limit {
        if !every.is_zero() {
            sleep_until(due).await;
            due += every;
        }
        let sent = Instant::now();
        stream.write_all(&request).await?;
        buffer.clear();
        while !is_whole(&buffer)? {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the server hung up");
        }
        let now = Instant::now();
        answers.push((now, now - sent));
    }
    Ok(answers)
}

/// Whether this is all of a response. Any but a success is an error.
fn is_whole(response: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = (&response[..end], &response[end + 4..]);
    let head = std::str::from_utf8(head).context("the head is no text")?;
    ensure!(
        head.starts_with("HTTP/1.1 20"),
        "{}",
        String::from_utf8_lossy(response)
    );
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(body.len() >= value.trim().parse::<usize>()?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(body.ends_with(LAST_CHUNK));
        }
    }
    bail!("a response without a length: {head}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_once_all_of_it_is_there() {
        let whole = |text: &str| is_whole(text.as_bytes());
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for (body, is) in [("", false), ("hell", false), ("hello", true)] {
            assert_eq!(whole(&format!("{sized}{body}")).expect("a success"), is, "{body}");
        }
        assert!(!whole("HTTP/1.1 200 OK\r\nContent-Le").expect("a success"));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (body, is) in [("5\r\nhello\r\n", false), ("5\r\nhello\r\n0\r\n\r\n", true)] {
            assert_eq!(
                whole(&format!("{chunked}{body}")).expect("a success"),
                is,
                "{body}"
            );
        }
        assert!(whole("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
