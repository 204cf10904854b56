//! What a document would become, in figures: `cargo run --release -p openapi --example plan -- openapi.json [server]`.

use openapi::{Document, Options};
use std::{collections::BTreeMap, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bytes = std::fs::read(arguments.next().ok_or("the path of a document")?)?;
    let began = Instant::now();
    let document = Document::parse(&bytes)?;
    println!("read:       {} bytes in {:?}", bytes.len(), began.elapsed());
    let options = Options {
        server: arguments.next(),
        max_tools: usize::MAX,
        ..Options::default()
    };
    let began = Instant::now();
    let plan = document.plan(&options, &|_| Ok(()))?;
    println!("planned:    {:?}", began.elapsed());
    println!("operations: {}", plan.tools.len() + plan.left_out.len());
    println!("tools:      {}", plan.tools.len());
    let codes = plan.left_out.iter().map(|left| left.code);
    println!("left out:   {:?}", count(codes));
    let codes = plan.tools.iter().flat_map(|tool| {
        let codes: std::collections::BTreeSet<_> = tool.notes.iter().map(|note| note.code).collect();
        codes
    });
    println!("simplified: {:?}", count(codes));
    let mut sizes: Vec<usize> = plan
        .tools
        .iter()
        .map(|tool| serde_json::to_string(&tool.spec.input_schema).map_or(0, |text| text.len()))
        .collect();
    sizes.sort_unstable();
    let at = |part: usize| sizes.get(sizes.len().saturating_sub(1) * part / 100);
    println!(
        "schemas:    median {:?}, 90 % {:?}, largest {:?} bytes",
        at(50),
        at(90),
        at(100)
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!(
        "peak:       {:?}",
        status.lines().find(|line| line.starts_with("VmHWM"))
    );
    Ok(())
}

fn count<'a>(codes: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for code in codes {
        *counts.entry(code).or_default() += 1;
    }
    counts
}
