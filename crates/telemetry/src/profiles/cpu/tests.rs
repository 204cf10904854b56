use super::*;
use crate::profiles::message;
use std::hint::black_box;

/// What the profile is to find: it uses half a second of CPU time, however many tests run beside it.
#[inline(never)]
fn burn() -> u64 {
    let mut value = 1_u64;
    let thread_time = || ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock");
    while Duration::from(thread_time()) < Duration::from_millis(500) {
        for _ in 0..100_000 {
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

    let burner = thread::Builder::new().name("burner".to_owned());
    let burner = burner.spawn(burn).expect("a thread");
    burner.join().expect("no panic");
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
    let hottest = hottest(&message, "burner").expect("samples of the thread");
    assert!(hottest.contains("burn"), "{hottest}");
    let picture = samples.flamegraph("CPU");
    assert!(picture.starts_with("<?xml") && picture.contains("burner"));

    // Full, it counts what it has no room for.
    let mut samples = samples;
    let count = samples.count();
    for address in 0..2 * MOST_STACKS {
        samples.add(1, &[address + 1]);
    }
    let (room, lost) = (MOST_STACKS - samples.stacks.len(), samples.lost());
    assert_eq!(
        (room, samples.count() - count + lost as u64),
        (0, 2 * MOST_STACKS as u64)
    );

    // Given up, it ends by itself.
    drop(samples);
    drop(start(1000, Duration::from_secs(60)).expect("the turn was given back"));
    wait_until(|| running_until().is_none());
}

/// The functions of the stack that `thread` was most often seen at.
fn hottest(message: &message::Profile, thread: &str) -> Option<String> {
    let string = |index: i64| message.string_table[index as usize].as_str();
    let own = message
        .sample
        .iter()
        .filter(|sample| string(sample.label[0].str) == thread);
    let most = own.max_by_key(|sample| sample.value[0])?;
    let function = |id: &u64| message.location[*id as usize - 1].line[0].function_id as usize;
    let functions = most.location_id.iter().map(function);
    Some(
        functions
            .map(|id| string(message.function[id - 1].name))
            .collect::<Vec<_>>()
            .join(" "),
    )
}
