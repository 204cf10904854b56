//! What tracking tasks costs: `cargo bench -p telemetry --bench tasks`. Ratios of on to off within one run.

use std::{
    future::{pending, poll_fn},
    hint::black_box,
    task::Poll,
    time::{Duration, Instant},
};
use telemetry::{settings, tasks};

const ROUNDS: u32 = 9;

/// The quickest of several rounds, in nanoseconds for one of `n`.
fn quickest(n: u32, mut round: impl FnMut() -> Duration) -> f64 {
    let rounds = (0..ROUNDS).map(|_| round());
    rounds.min().unwrap_or_default().as_nanos() as f64 / f64::from(n)
}

fn switch(on: bool) {
    tasks::configure(&settings::Tasks {
        enabled: on,
        ..settings::Tasks::default()
    });
}

/// A future that is polled `polls` times.
fn yielding(polls: u32) -> impl Future<Output = ()> + Send {
    let mut left = polls;
    poll_fn(move |task| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        task.waker().wake_by_ref();
        Poll::Pending
    })
}

async fn spawn_many(n: u32, tracked: bool) -> Duration {
    let start = Instant::now();
    for _ in 0..n {
        let task = if tracked {
            tasks::spawn("bench", async {})
        } else {
            tokio::spawn(async {})
        };
        task.await.expect("it ends");
    }
    start.elapsed()
}

async fn poll_many(n: u32, how: How) -> Duration {
    let start = Instant::now();
    let task = match how {
        How::Bare => tokio::spawn(yielding(n)),
        How::Tracked => tasks::spawn("bench", yielding(n)),
        How::Request => tokio::spawn(tasks::polled("bench", yielding(n))),
    };
    task.await.expect("it ends");
    start.elapsed()
}

#[derive(Clone, Copy)]
enum How {
    Bare,
    Tracked,
    Request,
}

fn print(what: &str, value: f64, bare: f64) {
    println!(
        "{what:<36} {value:>9.1} ns  {:>6.2} of bare  {:>+8.1} ns",
        value / bare,
        value - bare
    );
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let spawns = 100_000;
    let spawned = |tracked| quickest(spawns, || runtime.block_on(spawn_many(spawns, tracked)));
    let bare = spawned(false);
    print("spawn, bare", bare, bare);
    switch(false);
    print("spawn, tracking off", spawned(true), bare);
    switch(true);
    print("spawn, tracked", spawned(true), bare);

    let polls = 1_000_000;
    let polled = |how| quickest(polls, || runtime.block_on(poll_many(polls, how)));
    let bare = polled(How::Bare);
    print("poll, bare", bare, bare);
    switch(false);
    print("poll, tracking off", polled(How::Tracked), bare);
    switch(true);
    print("poll, tracked", polled(How::Tracked), bare);
    print("poll, request", polled(How::Request), bare);

    let live: Vec<_> = {
        let _guard = runtime.enter();
        (0..10_000)
            .map(|_| tasks::spawn("bench", pending::<()>()))
            .collect()
    };
    runtime.block_on(tokio::task::yield_now());
    let ms = |f: &dyn Fn()| {
        let once = || {
            let start = Instant::now();
            f();
            start.elapsed()
        };
        quickest(1, once) / 1e6
    };
    println!(
        "snapshot of 10k tasks                {:>9.2} ms",
        ms(&|| drop(black_box(tasks::snapshot())))
    );
    println!(
        "the same as a profile                {:>9.2} ms",
        ms(&|| drop(black_box(tasks::snapshot().profile())))
    );
    println!(
        "the same as text, by place           {:>9.2} ms",
        ms(&|| drop(black_box(tasks::snapshot().text())))
    );
    println!(
        "the same as text, each task          {:>9.2} ms",
        ms(&|| drop(black_box(tasks::snapshot().text_of_each())))
    );
    drop(live);
    Ok(())
}
