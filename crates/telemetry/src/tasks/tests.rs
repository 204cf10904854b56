use super::{snapshot::snapshot_at, *};
use crate::metrics::Registry;
use std::{
    future::{pending, poll_fn},
    task::Poll,
    thread,
    time::Instant,
};
use tokio::sync::oneshot;

fn on() {
    configure(&settings::Tasks::default());
}

/// The one task of that name. Names are each used in one test: the registry is the process's.
fn the(name: &str) -> Option<Task> {
    snapshot().tasks.into_iter().find(|task| task.name == name)
}

/// Blocks the thread, as no task should.
async fn blocks(time: Duration) {
    thread::sleep(time);
}

#[tokio::test]
async fn a_task_goes_through_its_states_and_leaves() {
    on();
    let (go, gone) = oneshot::channel();
    let line = line!() + 1;
    let task = spawn("stateful", async move { gone.await.is_ok() });
    let seen = the("stateful").expect("it is in the registry before it is polled");
    assert_eq!((seen.state, seen.polls), (State::New, 0));
    assert_eq!((seen.location.line(), seen.location.file()), (line, file!()));
    tokio::task::yield_now().await;
    let seen = the("stateful").expect("it waits");
    assert_eq!((seen.state, seen.polls, seen.every), (State::Idle, 1, None));
    let later = snapshot_at(Instant::now() + Duration::from_secs(60)).tasks;
    let later = later
        .into_iter()
        .find(|task| task.name == "stateful")
        .expect("it waits");
    assert!(
        later.since >= Duration::from_secs(60) && later.age >= later.since,
        "{later:?}"
    );
    go.send(()).expect("it waits");
    assert!(task.await.expect("it ends"));
    assert!(the("stateful").is_none());
}

#[tokio::test]
async fn aborted_and_panicked_tasks_leave_the_registry() {
    on();
    let aborted = spawn("aborted", pending::<()>());
    let panicked = spawn("panicked", async { panic!("as told") });
    assert!(the("aborted").is_some() && the("panicked").is_some());
    assert!(panicked.await.is_err_and(|error| error.is_panic()));
    tokio::task::yield_now().await;
    aborted.abort();
    assert!(aborted.await.is_err_and(|error| error.is_cancelled()));
    assert!(the("aborted").is_none() && the("panicked").is_none());
    // One that no runtime ever took.
    drop(track("dropped", pending::<()>()));
    assert!(the("dropped").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_in_progress_shows_with_its_time() {
    on();
    let (entered, is_in) = oneshot::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    let task = spawn("blocking", async move {
        entered.send(()).expect("the test waits");
        // Returns when the other end is dropped.
        let _ = may_leave.recv();
    });
    is_in.await.expect("it is polled");
    thread::sleep(Duration::from_millis(5));
    let seen = the("blocking").expect("it is polled");
    assert_eq!((seen.state, seen.polls), (State::Running, 1));
    assert!(
        seen.since >= Duration::from_millis(5) && seen.busy >= seen.since,
        "{seen:?}"
    );
    let registry =
        Registry::new("test", &[DECLARATIONS], &settings::Metrics::default()).expect("declared once");
    observe(&registry);
    let page = registry.render(None).1;
    let longest = page
        .lines()
        .find(|line| line.starts_with("runtime_longest_poll_seconds{"));
    let longest: f64 = longest
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .expect("a value");
    assert!(longest >= 0.005, "{page}");
    assert!(
        page.contains(r#"runtime_tasks{service="test",task="blocking"} 1"#),
        "{page}"
    );
    assert!(
        page.contains(r#"runtime_long_polls_total{service="test",task="http"} 0"#),
        "{page}"
    );
    drop(leave);
    task.await.expect("it ends");
    let page = registry.render(None).1;
    assert!(
        page.contains(r#"runtime_tasks{service="test",task="blocking"} 0"#),
        "{page}"
    );
}

#[tokio::test]
async fn a_task_is_stuck_after_three_periods_without_a_poll() {
    on();
    let every = Duration::from_secs(10);
    let _task = spawn_every("periodic", every, pending::<()>());
    tokio::task::yield_now().await;
    let polled = Instant::now();
    let stuck = |after| {
        let tasks = snapshot_at(polled + after).tasks;
        tasks
            .iter()
            .any(|task| task.name == "periodic" && task.is_stuck())
    };
    assert!(!stuck(every));
    assert!(
        !stuck(every * 3 - Duration::from_secs(1)),
        "not yet: just before three periods"
    );
    assert!(stuck(every * 3 + Duration::from_secs(1)));
    let text = snapshot_at(polled + every * 4).text();
    assert!(text.contains("1 idle, 1 STUCK"), "{text}");
    assert!(text.contains("polled every 10.0s at least"), "{text}");
}

#[test]
fn long_polls_are_counted_once_under_the_name_of_the_innermost() {
    on();
    let registry =
        Registry::new("test", &[DECLARATIONS], &settings::Metrics::default()).expect("declared once");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(registry.recorder(), || {
        runtime.block_on(async {
            let long = Duration::from_millis(settings::Tasks::default().long_poll_ms + 5);
            let request = polled("innermost", blocks(long));
            spawn("around it", request).await.expect("it ends");
            // Long in all, but not one poll of it.
            let mut polls = 0;
            let many = poll_fn(move |task| {
                polls += 1;
                thread::sleep(Duration::from_millis(1));
                task.waker().wake_by_ref();
                if polls < 5 { Poll::Pending } else { Poll::Ready(()) }
            });
            spawn("many polls", many).await.expect("it ends");
            let panicked = spawn(
                "panics late",
                polled("panicking", async move {
                    thread::sleep(long);
                    panic!("as told");
                }),
            );
            assert!(panicked.await.is_err());
        });
    });
    let page = registry.render(None).1;
    let mut counted: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("runtime_long_polls_total{"))
        .collect();
    counted.sort_unstable();
    let expected = ["innermost", "panicking"]
        .map(|name| format!(r#"runtime_long_polls_total{{service="test",task="{name}"}} 1"#));
    assert_eq!(counted, expected, "{page}");
    assert!(
        snapshot()
            .requests
            .iter()
            .all(|request| request.kind != "panicking")
    );
}

#[tokio::test]
async fn the_text_and_the_profile_tell_names_and_places() {
    on();
    let line = line!() + 1;
    let _tasks = [(); 3].map(|()| spawn("listed", pending::<()>()));
    tokio::task::yield_now().await;
    let snapshot = snapshot();
    let place = format!("{}:{line}", file!());
    let text = snapshot.text();
    assert!(
        text.contains(&format!("\n3 @ {place}  listed\n#\tstates: 3 idle\n")),
        "{text}"
    );
    let each = snapshot.text_of_each();
    assert_eq!(each.matches("]: listed\n").count(), 3, "{each}");
    assert!(text.contains("\nspawned by libraries: ") && each.contains("\nruntime: "));
    assert!(snapshot.profile().starts_with(&[0x1f, 0x8b]), "gzip");
}
