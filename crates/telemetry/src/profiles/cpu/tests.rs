use super::*;
use crate::profiles::message;
use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
};

/// What the profile is to find.
#[inline(never)]
fn burn(until: &AtomicBool) -> u64 {
    let mut value = 1_u64;
    while !until.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    value
}

fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it did not come to be");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One test, because there is one profile at a time in a process.
#[test]
fn a_profile_names_what_ran_and_there_is_one_at_a_time() {
    let recording = start(500, Duration::from_secs(60)).expect("a profile");
    let StartError::Busy(remaining) = start(500, Duration::from_secs(1)).expect_err("one at a time") else {
        panic!("another reason");
    };
    assert!(remaining > Duration::from_secs(1) && running_until().is_some());

    let done = AtomicBool::new(false);
    let cpu = cpu_time();
    thread::scope(|scope| {
        thread::Builder::new()
            .name("burner".to_owned())
            .spawn_scoped(scope, || burn(&done))
            .expect("a thread");
        wait_until(|| cpu_time() - cpu > Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
    });
    let samples = recording.finish().expect("no panic");
    assert_eq!(samples.lost(), 0);
    let used = samples.cpu.as_nanos() as f64;
    let named: f64 = samples
        .profile()
        .message()
        .sample
        .iter()
        .map(|s| s.value[1] as f64)
        .sum();
    assert!((used - named).abs() < used / 100.0, "{used} {named}");

    let message = samples.profile().message();
    let (leaf, thread) = hottest(&message);
    assert!(leaf.contains("burn") && thread == "burner", "{leaf} {thread}");
    let picture = String::from_utf8(samples.flamegraph("CPU").expect("a picture")).expect("text");
    assert!(picture.starts_with("<?xml") && picture.contains("burner"));

    // Given up, it ends by itself.
    drop(samples);
    drop(start(1000, Duration::from_secs(60)).expect("the turn was given back"));
    wait_until(|| running_until().is_none());
}

/// The function that most samples end in or were inlined into, of this test, and its thread.
fn hottest(message: &message::Profile) -> (String, String) {
    let string = |index: i64| message.string_table[index as usize].clone();
    let most = message
        .sample
        .iter()
        .max_by_key(|sample| sample.value[0])
        .expect("samples");
    let names: Vec<_> = most
        .location_id
        .iter()
        .map(|id| message.location[*id as usize - 1].line[0].function_id)
        .map(|id| string(message.function[id as usize - 1].name))
        .collect();
    (names.join(" "), string(most.label[0].str))
}
