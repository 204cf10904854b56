//! What tracking tasks costs: `cargo bench -p telemetry --bench tasks`. Ratios of on to off within one run.

use std::{
    future::{pending, poll_fn},
    hint::black_box,
    task::Poll,
    time::{Duration, Instant},
};
use telemetry::{settings, tasks};

const ROUNDS: u32 = 15;
const SPAWNS: u32 = 50_000;
const POLLS: u32 = 500_000;

/// What is measured, under its name; gives how long one round takes.
type Candidate<'a> = (&'a str, &'a dyn Fn() -> Duration);

/// Prints for each the quickest of its rounds, in nanoseconds for one of `n`, and how it compares to the first. They take
/// turns, so that a busy machine is as bad for one as for the others.
fn compare(n: u32, candidates: &[Candidate<'_>]) {
    let mut quickest = vec![Duration::MAX; candidates.len()];
    for _ in 0..ROUNDS {
        for ((_, round), best) in candidates.iter().zip(&mut quickest) {
            *best = round().min(*best);
        }
    }
    let each = |total: Duration| total.as_nanos() as f64 / f64::from(n);
    let bare = each(quickest[0]);
    for ((what, _), total) in candidates.iter().zip(quickest) {
        let value = each(total);
        println!(
            "{what:<36} {value:>9.1} ns  {:>6.2} of bare  {:>+8.1} ns",
            value / bare,
            value - bare
        );
    }
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

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let spawned = |on, tracked| {
        switch(on);
        runtime.block_on(spawn_many(SPAWNS, tracked))
    };
    compare(
        SPAWNS,
        &[
            ("spawn to end, bare", &|| spawned(false, false)),
            ("spawn to end, tracking off", &|| spawned(false, true)),
            ("spawn to end, tracked", &|| spawned(true, true)),
        ],
    );
    let polled = |on, how| {
        switch(on);
        runtime.block_on(poll_many(POLLS, how))
    };
    compare(
        POLLS,
        &[
            ("poll, bare", &|| polled(false, How::Bare)),
            ("poll, tracking off", &|| polled(false, How::Tracked)),
            ("poll, tracked", &|| polled(true, How::Tracked)),
            ("poll, request, tracking off", &|| polled(false, How::Request)),
            ("poll, request", &|| polled(true, How::Request)),
        ],
    );
    switch(true);
    let live: Vec<_> = {
        let _guard = runtime.enter();
        (0..10_000)
            .map(|_| tasks::spawn("bench", pending::<()>()))
            .collect()
    };
    runtime.block_on(tokio::task::yield_now());
    let time = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    compare(
        1,
        &[
            ("10k tasks, snapshot", &|| {
                time(&|| drop(black_box(tasks::snapshot())))
            }),
            ("10k tasks, profile", &|| {
                time(&|| drop(black_box(tasks::snapshot().profile())))
            }),
            ("10k tasks, text by place", &|| {
                time(&|| drop(black_box(tasks::snapshot().text())))
            }),
            ("10k tasks, text of each", &|| {
                time(&|| drop(black_box(tasks::snapshot().text_of_each())))
            }),
        ],
    );
    drop(live);
    Ok(())
}
