//! What comes from the queue, against a fake rest-api over real gRPC.

use crate::{
    fake::Fake,
    runs::{HERE, accept},
    support::{PATIENCE, start},
};
use axum::{Router, routing::any};
use chassis::{Configuration, lifecycle::Running};
use proto::v1::{
    Held, LeaseEvent, LeasedRun, ReportRequest, RunToolRequest, Tool, lease_event::Event,
    report_request::What,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tonic::Status;

/// How long leases hold: long enough for a run to begin on a busy machine.
const LEASE: Duration = Duration::from_secs(9);

async fn worker(fake: &Fake, change: impl FnOnce(&mut Configuration<worker::Settings>)) -> Running {
    start(fake.address, |configuration| {
        configuration.service.queue.enabled = true;
        change(configuration);
    })
    .await
}

fn run(url: &str, read_only: bool) -> LeasedRun {
    LeasedRun {
        run: Some(RunToolRequest {
            execution_id: domain::ExecutionId::new().to_string(),
            tenant: "acme".into(),
            tool: Some(Tool {
                name: "queued".into(),
                method: "POST".into(),
                url: url.into(),
                timeout_ms: 60_000,
                read_only,
                ..Tool::default()
            }),
            arguments_json: "{}".into(),
            ..RunToolRequest::default()
        }),
        token: 7,
        attempt: 2,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        lease_ms: LEASE.as_millis().try_into().unwrap(),
        timeout_ms: 0,
    }
}

fn id(run: &LeasedRun) -> String {
    run.run.as_ref().unwrap().execution_id.clone()
}

async fn endpoint() -> (TcpListener, String) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

async fn answer(mut stream: TcpStream) {
    let fine = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";
    stream.write_all(fine).await.unwrap();
}

/// The run's endpoint sees its connection closed: the run has ended.
async fn closed(mut stream: TcpStream) {
    let closed = async { while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("the run ends");
}

fn status(report: &ReportRequest) -> &str {
    match report.what.as_ref().unwrap() {
        What::Outcome(outcome) => &outcome.status,
        What::HandedBack(_) => "handed_back",
    }
}

fn of<'a>(reports: &'a [ReportRequest], id: &str) -> &'a ReportRequest {
    let mut found = reports
        .iter()
        .filter(|report| report.held.as_ref().unwrap().execution_id == id);
    let report = found.next().unwrap_or_else(|| panic!("a report on {id}"));
    assert!(found.next().is_none(), "one report on {id}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_taken_as_there_is_room_and_reported_with_what_was_learnt() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| c.service.queue.room = 2).await;
    let (listener, url) = endpoint().await;
    let (first, second) = (run(&url, true), run(&url, false));
    fake.lease(first.clone()).await;
    let mut stream = accept(&listener).await;
    fake.lease(second.clone()).await;
    let other = accept(&listener).await;
    fake.until("progress is told", |seen| {
        seen.progress
            .get(&id(&first))
            .is_some_and(|words| words == "calling the endpoint")
    })
    .await;
    let busy = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(fake.seen().stream.as_ref().unwrap().1, 0, "there is no room left");
    stream.write_all(busy).await.unwrap();
    let reports = fake.reports(1).await;
    let report = of(&reports, &id(&first));
    assert_eq!(
        (status(report), report.held.as_ref().unwrap().token),
        ("failed", 7)
    );
    assert_eq!(
        (report.transient, report.departed, report.retry_after_ms),
        (true, true, Some(7_000))
    );
    fake.until("its room is given back", |seen| {
        seen.stream.as_ref().unwrap().1 == 1
    })
    .await;
    answer(other).await;
    let reports = fake.reports(2).await;
    let report = of(&reports, &id(&second));
    assert_eq!(
        (status(report), report.transient, report.retry_after_ms),
        ("succeeded", false, None)
    );
    assert_eq!(fake.seen().workers.len(), 1);

    let malformed = LeasedRun {
        run: Some(RunToolRequest {
            tool: None,
            ..first.run.clone().unwrap()
        }),
        token: 8,
        ..first
    };
    fake.lease(malformed).await;
    let reports = fake.reports(3).await;
    let Some(What::Outcome(outcome)) = &reports[2].what else {
        panic!("{reports:?}")
    };
    assert_eq!(outcome.error.as_ref().unwrap().code, "invalid_tool");
    assert!(!reports[2].transient && !reports[2].departed);

    let (_, metrics) = worker.host.telemetry.render(None);
    for moved in [
        r#"worker_reports_total{service="worker",what="outcome",result="accepted"}"#,
        r#"worker_heartbeats_total{service="worker",result="ok"}"#,
    ] {
        let series = metrics.lines().find(|line| line.starts_with(moved));
        assert!(
            series.is_some_and(|line| !line.ends_with(" 0")),
            "{moved} in\n{metrics}"
        );
    }
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_its_stream_and_belongs_to_a_trace_of_its_own() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| c.service.queue.room = 2).await;
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (go, goes) = watch::channel(false);
    let routes = Router::new().route(
        "/",
        any(async move |headers: axum::http::HeaderMap| {
            begun.send(headers).unwrap();
            goes.clone().wait_for(|go| *go).await.unwrap();
            "fine"
        }),
    );
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let kept = run(&url, true);
    fake.lease(kept.clone()).await;
    let headers = begins.recv().await.unwrap();
    let trace = headers["traceparent"].to_str().unwrap();
    assert!(
        !trace.contains("4bf92f3577b34da6a3ce929d0e0e4736"),
        "a trace of its own: {trace}"
    );
    assert_eq!(headers["idempotency-key"], id(&kept).as_str());
    for streams in 2..4 {
        fake.break_stream();
        fake.until("a new stream", |seen| {
            seen.streams == streams && seen.stream.is_some()
        })
        .await;
        assert_eq!(
            fake.seen().stream.as_ref().unwrap().1,
            1,
            "what is held takes its room"
        );
    }
    let before = fake.seen().heartbeats;
    fake.until("its lease is kept", |seen| seen.heartbeats > before + 1)
        .await;
    go.send(true).unwrap();
    assert_eq!(status(of(&fake.reports(1).await, &id(&kept))), "succeeded");
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_is_stopped_without_a_word_and_what_is_cancelled_is_reported() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |_| ()).await;
    let (listener, url) = endpoint().await;
    let lost = run(&url, true);
    fake.lease(lost.clone()).await;
    let stream = accept(&listener).await;
    fake.change(|seen| seen.lost.push(id(&lost)));
    closed(stream).await;
    for (read_only, by_stream, expected) in [
        (true, true, "cancelled"),
        (false, true, "outcome_unknown"),
        (true, false, "cancelled"),
    ] {
        let run = run(&url, read_only);
        fake.lease(run.clone()).await;
        let stream = accept(&listener).await;
        fake.change(|seen| {
            if by_stream {
                let held = |token| Held {
                    execution_id: id(&run),
                    token,
                };
                for token in [6, 7] {
                    let event = LeaseEvent {
                        event: Some(Event::Cancel(held(token))),
                    };
                    seen.stream.as_ref().unwrap().0.send(Ok(event)).unwrap();
                }
            } else {
                seen.cancel.push(id(&run));
            }
        });
        closed(stream).await;
        fake.until("its report", |seen| {
            let mut reports = seen.reports.iter();
            reports.any(|report| report.held.as_ref().unwrap().execution_id == id(&run))
        })
        .await;
        assert_eq!(status(of(&fake.seen().reports, &id(&run))), expected);
    }
    worker.stop().await.unwrap();
    let seen = fake.seen();
    assert!(
        seen.reports
            .iter()
            .all(|report| report.held.as_ref().unwrap().execution_id != id(&lost))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_token_takes_a_run_from_an_older_one() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |_| ()).await;
    let (listener, url) = endpoint().await;
    let older = run(&url, true);
    fake.lease(older.clone()).await;
    let first = accept(&listener).await;
    fake.lease(LeasedRun {
        token: 8,
        ..older.clone()
    })
    .await;
    let second = accept(&listener).await;
    closed(first).await;
    answer(second).await;
    let reports = fake.reports(1).await;
    let report = of(&reports, &id(&older));
    assert_eq!(
        (status(report), report.held.as_ref().unwrap().token),
        ("succeeded", 8)
    );
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_brought_again_until_it_is_accepted_or_too_late() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| c.service.queue.room = 1).await;
    let (listener, url) = endpoint().await;
    let mut lease_lost = Status::aborted("another holds it");
    lease_lost
        .metadata_mut()
        .insert(proto::CODE_KEY, "lease_lost".parse().unwrap());
    for (refusals, tries, accepted) in [
        (
            vec![
                Status::unavailable("gone"),
                Status::internal("broken"),
                Status::unauthenticated("who?"),
            ],
            3,
            true,
        ),
        (vec![lease_lost, Status::unavailable("gone")], 2, false),
    ] {
        let reports = fake.change(|seen| {
            (seen.refusals, seen.refused) = (refusals, 0);
            seen.reports.len()
        });
        let run = run(&url, false);
        fake.lease(run.clone()).await;
        answer(accept(&listener).await).await;
        fake.until("it is tried again", |seen| seen.refused == tries)
            .await;
        if accepted {
            assert_eq!(
                status(of(&fake.reports(reports + 1).await, &id(&run))),
                "succeeded"
            );
        }
        fake.until("its room is given back", |seen| {
            seen.stream.as_ref().is_some_and(|(_, room)| *room == 1)
        })
        .await;
        assert_eq!(fake.seen().reports.len(), reports + usize::from(accepted));
    }
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_worker_hands_back_what_has_not_begun_and_finishes_the_rest() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| {
        c.service.concurrency.per_tenant = 1;
        c.service.concurrency.wait = PATIENCE;
        c.common.shutdown.timeout = PATIENCE;
    })
    .await;
    let (listener, url) = endpoint().await;
    let (running, waiting) = (run(&url, false), run(&url, false));
    fake.lease(running.clone()).await;
    let stream = accept(&listener).await;
    fake.lease(waiting.clone()).await;
    fake.until("it waits", |seen| {
        seen.progress
            .get(&id(&waiting))
            .is_some_and(|words| words == "waiting for a free slot")
    })
    .await;
    // What rest-api sends after the worker has ended its half of the stream comes back, too.
    let late = run(&url, false);
    let events = fake.seen().stream.as_ref().unwrap().0.clone();
    let stopping = tokio::spawn(async move { worker.stop().await });
    fake.until("no more is taken", |seen| seen.stream.is_none()).await;
    events
        .send(Ok(LeaseEvent {
            event: Some(Event::Run(late.clone())),
        }))
        .unwrap();
    drop(events);
    let reports = fake.reports(2).await;
    for handed_back in [&waiting, &late] {
        let report = of(&reports, &id(handed_back));
        assert_eq!((status(report), report.departed), ("handed_back", false));
    }
    answer(stream).await;
    assert_eq!(status(of(&fake.reports(3).await, &id(&running))), "succeeded");
    stopping.await.unwrap().expect("everything has ended in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_in_time_is_ended_and_brought_home() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| c.common.shutdown.timeout = Duration::from_secs(12)).await;
    let (listener, url) = endpoint().await;
    let (safe, unsafe_) = (run(&url, true), run(&url, false));
    let mut streams = Vec::new();
    for run in [&safe, &unsafe_] {
        fake.lease(run.clone()).await;
        streams.push(accept(&listener).await);
    }
    worker.stop().await.expect("everything has ended in time");
    let reports = fake.reports(2).await;
    assert_eq!(status(of(&reports, &id(&safe))), "handed_back");
    let report = of(&reports, &id(&unsafe_));
    assert_eq!((status(report), report.departed), ("outcome_unknown", true));
    let Some(What::Outcome(outcome)) = &report.what else {
        panic!("{report:?}")
    };
    assert_eq!(outcome.error.as_ref().unwrap().code, "worker_stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_finds_no_slot_is_handed_back() {
    let fake = Fake::start().await;
    let mut worker = worker(&fake, |c| {
        c.service.concurrency.per_tenant = 1;
        c.service.concurrency.wait = Duration::from_millis(20);
    })
    .await;
    let (listener, url) = endpoint().await;
    let (running, crowded) = (run(&url, true), run(&url, true));
    fake.lease(running).await;
    let stream = accept(&listener).await;
    fake.lease(crowded.clone()).await;
    let reports = fake.reports(1).await;
    let Some(What::HandedBack(back)) = &of(&reports, &id(&crowded)).what else {
        panic!("{reports:?}")
    };
    assert!(back.after_ms > 0, "not at once");
    let mut other = run(&url, true);
    other.run.as_mut().unwrap().tenant = "globex".into();
    fake.lease(other).await;
    answer(accept(&listener).await).await;
    fake.reports(2).await;
    answer(stream).await;
    worker.stop().await.unwrap();
}
