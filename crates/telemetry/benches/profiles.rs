//! What profiles cost the program that they are taken of: `cargo bench -p telemetry --bench profiles`.
//!
//! The allocator reads its options once, so each way has processes of its own. They take turns, and the shortest time of
//! each counts; compared are ratios.

use nix::time::ClockId;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env,
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};
use telemetry::profiles::{
    cpu,
    heap::{Snapshot, View},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TURNS: usize = 15;

/// What is compared, with the allocator's options and the frequency of a CPU profile taken meanwhile.
const WAYS: [(&str, &str, u32); 10] = [
    ("without heap profiles", "prof:false", 0),
    ("asleep", "prof:true,prof_active:false", 0),
    ("every 512 KiB", "prof:true,lg_prof_sample:19", 0),
    (
        "every 512 KiB, counted on",
        "prof:true,lg_prof_sample:19,prof_accum:true",
        0,
    ),
    ("every 2 MiB", "prof:true,lg_prof_sample:21", 0),
    (
        "every 2 MiB, counted on",
        "prof:true,lg_prof_sample:21,prof_accum:true",
        0,
    ),
    (
        "every 64 KiB, counted on",
        "prof:true,lg_prof_sample:16,prof_accum:true",
        0,
    ),
    ("CPU profile, 100 Hz", "prof:false", 100),
    ("CPU profile, 1000 Hz", "prof:false", 1000),
    ("without heap profiles, again", "prof:false", 0),
];

/// What an API does all day: reads JSON, looks into it, writes some. Returns the CPU time of it, which other programs on
/// the machine change less than the time.
fn work() -> Duration {
    let text = document().to_string();
    let begun = cpu_time();
    for _ in 0..20_000 {
        let mut parsed: Value = serde_json::from_str(black_box(&text)).expect("JSON");
        let mut index = BTreeMap::new();
        for item in parsed["items"].as_array().expect("items") {
            index.insert(item["id"].to_string(), item["content"].to_string());
        }
        parsed["index"] = json!(index);
        black_box(parsed.to_string());
    }
    cpu_time() - begun
}

fn cpu_time() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("a clock").into()
}

fn document() -> Value {
    let item = |id: usize| json!({"id": id, "type": "manual", "content": "x".repeat(64 + id * 16), "tags": ["a", "b"]});
    json!({"id": "ctx", "items": (0..16).map(item).collect::<Vec<_>>()})
}

fn child(frequency: u32) {
    work();
    let recording =
        (frequency > 0).then(|| cpu::start(frequency, Duration::from_secs(60)).expect("a profile"));
    println!("{}", work().as_nanos());
    drop(recording);
}

fn run(options: &str, frequency: u32) -> f64 {
    let output = Command::new(env::current_exe().expect("this program"))
        .env("MALLOC_CONF", options)
        .env("_RJEM_MALLOC_CONF", options)
        .env("BENCH_FREQUENCY", frequency.to_string())
        .output()
        .expect("this program again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{text}{output:?}"))
}

/// How long the profiles themselves take, in a process whose allocations are sampled.
fn take() {
    work();
    for round in ["first", "second"] {
        let begun = Instant::now();
        let snapshot = Snapshot::take().expect("a snapshot");
        let dumped = begun.elapsed();
        let size = snapshot.profile(View::InUse).encode().len();
        println!(
            "heap profile, {round}: dumped in {dumped:?}, encoded in {:?}, {size} bytes",
            begun.elapsed() - dumped
        );
    }
    let recording = cpu::start(100, Duration::from_secs(60)).expect("a profile");
    work();
    let samples = recording.finish().expect("samples");
    let begun = Instant::now();
    let size = samples.profile().encode().len();
    println!(
        "CPU profile of {} samples: encoded in {:?}, {size} bytes",
        samples.count(),
        begun.elapsed()
    );
}

fn main() {
    if let Ok(frequency) = env::var("BENCH_FREQUENCY") {
        return match frequency.parse() {
            Ok(frequency) => child(frequency),
            Err(_) => take(),
        };
    }
    let mut shortest = [f64::INFINITY; WAYS.len()];
    for _ in 0..TURNS {
        for ((_, options, frequency), shortest) in WAYS.iter().zip(&mut shortest) {
            *shortest = shortest.min(run(options, *frequency));
        }
    }
    for ((name, _, _), nanos) in WAYS.iter().zip(&shortest) {
        println!("{name:<30} {:>8.1} ms {:>7.3}", nanos / 1e6, nanos / shortest[0]);
    }
    let options = "prof:true,lg_prof_sample:16,prof_accum:true";
    let output = Command::new(env::current_exe().expect("this program"))
        .env("MALLOC_CONF", options)
        .env("_RJEM_MALLOC_CONF", options)
        .env("BENCH_FREQUENCY", "take")
        .output()
        .expect("this program again");
    print!("{}", String::from_utf8_lossy(&output.stdout));
}
