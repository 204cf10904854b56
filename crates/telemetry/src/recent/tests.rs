use super::{record::Record, ring::Rings, work::MOST, *};
use crate::context::{RequestId, Sampling};
use std::thread;

fn record(name: &str, reasons: &[Reason]) -> Record {
    Record {
        duration: Duration::from_millis(10),
        reasons: reasons.to_vec(),
        ..Record::sample(RequestId::parse(name).unwrap(), Entry::Http, "GET /x")
    }
}

fn names(rings: &Rings) -> Vec<String> {
    rings
        .list()
        .iter()
        .map(|record| record.request_id.to_string())
        .collect()
}

fn request() -> (Request, Context) {
    let request = Request::new(RequestId::new(), None, Sampling::Head);
    (request.clone(), Context::new().with_value(request))
}

/// The settings are the process's: tests that need them take turns.
pub(crate) fn with_settings<T>(settings: &RecentRequests, f: impl FnOnce() -> T) -> T {
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    configure(settings);
    let result = f();
    configure(&RecentRequests {
        enabled: false,
        ..RecentRequests::default()
    });
    result
}

fn describe() -> Description {
    Description {
        kind: Entry::Mcp,
        name: "tools/call".to_owned(),
        status: "ok".into(),
        key_id: None,
    }
}

#[test]
fn failures_push_out_failures_only() {
    let rings = Rings::new(2);
    rings.keep(record("slow", &[Reason::Slow]));
    rings.keep(record("both", &[Reason::Slow, Reason::Failed]));
    for number in 0..5 {
        rings.keep(record(&format!("failed-{number}"), &[Reason::Failed]));
    }
    assert_eq!(names(&rings), ["failed-4", "failed-3", "both", "slow"]);
}

#[test]
fn after_concurrent_writers_the_newest_are_kept_in_order() {
    const WRITERS: usize = 4;
    const EACH: usize = 5_000;
    const CAPACITY: usize = 16;
    let rings = Rings::new(CAPACITY);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let rings = &rings;
            scope.spawn(move || {
                for number in 0..EACH {
                    rings.keep(record(&format!("{writer}-{number}"), &[Reason::Slow]));
                    assert!(rings.list().len() <= CAPACITY);
                }
            });
        }
    });
    let list = rings.list();
    assert_eq!(list.len(), CAPACITY);
    assert!(list.windows(2).all(|pair| pair[0].number > pair[1].number));
    // A writer may be held up between its number and its turn; none of the others is lost by that.
    let oldest = (WRITERS * EACH - CAPACITY - WRITERS) as u64;
    assert!(list.iter().all(|record| record.number >= oldest), "{list:#?}");
}

#[test]
fn a_request_notes_so_many_children_and_counts_the_rest() {
    let settings = RecentRequests {
        slow_ms: 0,
        ..RecentRequests::default()
    };
    with_settings(&settings, || {
        let (request, cx) = request();
        let _within = cx.clone().attach();
        for number in 0..MOST + 3 {
            let started = request.started() + Duration::from_millis(number as u64);
            child(
                Kind::Db,
                "contexts.get",
                started,
                Duration::from_millis(1),
                number == 1,
            );
        }
        child(
            Kind::Http,
            "x".repeat(10_000),
            Instant::now(),
            Duration::ZERO,
            false,
        );
        finished(&cx, false, describe);
        let kept = find(request.id().as_str());
        let [record] = kept.as_slice() else {
            panic!("{kept:#?}")
        };
        assert_eq!((record.children.len(), record.children_dropped), (MOST, 4));
        assert_eq!(record.children[2].offset, Duration::from_millis(2));
        assert!(record.children[1].failed && !record.children[2].failed);
        assert_eq!(record.reasons, [Reason::Slow]);
        assert_eq!(record.to_json()["children"][2]["offset_ms"], 2.0);
    });
}

#[test]
fn texts_are_cut_at_a_character() {
    let long = format!("a{}", "é".repeat(1000));
    assert_eq!(work::bounded(long.into()).len(), work::TEXT_MAX - 1);
}

#[test]
fn what_is_quick_and_fine_leaves_nothing() {
    with_settings(&RecentRequests::default(), || {
        let (request, cx) = request();
        finished(&cx, false, || panic!("it is not described"));
        assert_eq!(find(request.id().as_str()).len(), 0);
        finished(&cx, true, describe);
        request.set_debug();
        finished(&cx, false, describe);
        let reasons: Vec<_> = find(request.id().as_str())
            .iter()
            .map(|r| r.reasons.clone())
            .collect();
        assert_eq!(reasons, [vec![Reason::Debug], vec![Reason::Failed]]);
    });
}

#[test]
fn what_waits_for_its_caller_is_never_slow() {
    let settings = RecentRequests {
        slow_ms: 0,
        ..RecentRequests::default()
    };
    with_settings(&settings, || {
        let (request, cx) = request();
        let _within = cx.clone().attach();
        waits();
        child(Kind::Db, "contexts.get", Instant::now(), Duration::ZERO, false);
        finished(&cx, false, || panic!("it is not described"));
        finished(&cx, true, describe);
        let kept = find(request.id().as_str());
        assert_eq!((kept.len(), kept[0].children.len()), (1, 0));
    });
}

#[test]
fn what_is_inside_speaks_for_what_it_came_with() {
    let settings = RecentRequests {
        slow_ms: 0,
        ..RecentRequests::default()
    };
    with_settings(&settings, || {
        let (request, cx) = request();
        let outer = || Description {
            kind: Entry::Http,
            ..describe()
        };
        let span = SpanContext::empty_context();
        let streaming = pending(&request, &span, Duration::ZERO, false, outer);
        claim(&cx);
        finished(&cx, false, describe);
        drop(streaming);
        let kept = find(request.id().as_str());
        assert_eq!(kept.iter().map(|r| r.kind).collect::<Vec<_>>(), [Entry::Mcp]);
    });
}

#[test]
fn switched_off_nothing_is_noted() {
    let off = RecentRequests {
        enabled: false,
        slow_ms: 0,
        ..RecentRequests::default()
    };
    with_settings(&off, || {
        let (request, cx) = request();
        let _within = cx.clone().attach();
        child(Kind::Db, "contexts.get", Instant::now(), Duration::ZERO, false);
        finished(&cx, true, || panic!("it is not described"));
        assert_eq!(request.work().lock().clone().into_children().len(), 0);
        assert_eq!(list().len(), 0);
    });
}

#[test]
fn own_time_is_what_no_child_covers() {
    let ms = Duration::from_millis;
    let child = |offset, took| Child::new(Kind::Db, "q".into(), ms(offset), ms(took), false);
    let mut record = record("gaps", &[Reason::Slow]);
    record.duration = ms(100);
    assert_eq!(record.own_time(), ms(100));
    // 10 before, two at once until 50, 10 between, and 20 after.
    record.children = vec![child(10, 20), child(20, 30), child(25, 5), child(60, 20)];
    assert_eq!(record.own_time(), ms(40));
    // A stream that outlived the request.
    record.children = vec![child(90, 1000)];
    assert_eq!(record.own_time(), ms(90));
}

#[test]
fn a_record_takes_bounded_memory() {
    // What the manual promises: 64 children with names of 128 bytes, and then some.
    let child = size_of::<Child>() + work::TEXT_MAX;
    assert!(size_of::<Record>() + MOST * child < 16 << 10);
}
