//! Puts every query to a running stack: each panel must have data, each rule must have been evaluated, each metric
//! that is declared or catalogued must be there, and none that isn't.

mod ask;
mod backends;
mod metrics;
mod rules;

pub use backends::{Backends, Prometheus};

use super::{Choices, Language, Purpose, Sources, catalogue::Catalogue};
use ask::{Answer, ask};
use std::{path::Path, time::Duration};
use tokio::time::{Instant, sleep};

/// How long what came up empty is left before it is asked again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is told what is still waited for.
const TELL: Duration = Duration::from_secs(30);

/// Asks everything, prints a table of the answers, and gives what is wrong, a line each.
///
/// What has no data is asked again for as long as [`Backends::patience`] says: a rule is evaluated, a line collected,
/// a counter scraped twice only in time.
///
/// # Errors
/// When Prometheus does not answer at all, or a file cannot be read.
pub async fn run(root: &Path, backends: &Backends) -> anyhow::Result<Vec<String>> {
    let choices = choices(root, backends).await?;
    let sources = Sources::read(root, &choices)?;
    let catalogue = Catalogue::read(root)?;
    let prometheus = backends.prometheus();
    let deadline = Instant::now() + backends.patience();
    let (rows, mut findings) = rows(&sources, backends, deadline).await?;
    findings.splice(0..0, sources.findings.iter().cloned());
    print(&rows);
    findings.extend(until(deadline, || rules::check(&sources, &prometheus)).await?);
    findings.extend(until(deadline, || metrics::selectors(&sources, &catalogue, &prometheus)).await?);
    findings.extend(until(deadline, || metrics::own(&prometheus)).await?);
    findings.extend(until(deadline, || metrics::of_others(&catalogue, &prometheus)).await?);
    println!("{} queries asked, {} findings", rows.len(), findings.len());
    Ok(findings)
}

/// Looks until there is nothing to find, or the time is over.
async fn until<F: Future<Output = anyhow::Result<Vec<String>>>>(
    deadline: Instant,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<Vec<String>> {
    loop {
        let findings = look().await?;
        if findings.is_empty() || Instant::now() >= deadline {
            return Ok(findings);
        }
        sleep(PAUSE).await;
    }
}

/// Values for variables that take one at a time: the first that there is.
async fn choices(root: &Path, backends: &Backends) -> anyhow::Result<Choices> {
    let mut choices = Choices::new();
    for expression in Sources::read(root, &Choices::new())?.expressions {
        let Purpose::Variable(name) = &expression.purpose else {
            continue;
        };
        if expression.language == Language::PromQl
            && let Ok(series) = backends.prometheus().query(&expression.text).await
            && let Some(value) = series.first().and_then(|one| one.labels.values().next())
        {
            choices.insert((expression.place.file, name.clone()), value.clone());
        }
    }
    Ok(choices)
}

/// One line of the table.
struct Row {
    file: String,
    item: String,
    answer: Answer,
}

/// The rows of all queries, and what is wrong with them.
async fn rows(
    sources: &Sources,
    backends: &Backends,
    deadline: Instant,
) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
    let mut open: Vec<usize> = (0..sources.expressions.len()).collect();
    let mut answers: Vec<Option<Result<Answer, String>>> = vec![None; open.len()];
    let mut told = Instant::now();
    loop {
        let mut left = Vec::new();
        for index in open {
            let expression = &sources.expressions[index];
            let answer = ask(expression, backends).await;
            let satisfied = answer
                .as_ref()
                .is_ok_and(|answer| answer.series > 0 || may_be_empty(&expression.purpose));
            if !satisfied {
                left.push(index);
            }
            answers[index] = Some(answer.map_err(|error| format!("{error:#}")));
        }
        open = left;
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let one = &sources.expressions[open[0]].place;
            println!(
                "   {} of {} queries have no data yet, one of them {one}",
                open.len(),
                answers.len()
            );
        }
        sleep(PAUSE).await;
    }
    let (mut rows, mut findings) = (Vec::new(), Vec::new());
    for (index, (expression, answer)) in sources.expressions.iter().zip(answers).enumerate() {
        let answer = answer.unwrap_or_else(|| Err("was not asked".to_owned()));
        if open.contains(&index) {
            let why = answer
                .as_ref()
                .map_or_else(Clone::clone, |answer| answer.sample.clone());
            let query = super::promql::one_line(&expression.text);
            findings.push(format!("{}: {why}: {query}", expression.place));
        }
        rows.push(Row {
            file: expression.place.file.clone(),
            item: expression.place.item.clone(),
            answer: answer.unwrap_or_else(|error| Answer {
                series: 0,
                sample: format!("error: {error}"),
            }),
        });
    }
    Ok((rows, findings))
}

/// Whether a query may have no answer while all is well.
fn may_be_empty(purpose: &Purpose) -> bool {
    match purpose {
        Purpose::Panel { .. } | Purpose::Variable(_) | Purpose::Record(_) => false,
        Purpose::Annotation | Purpose::Alert | Purpose::Document => true,
    }
}

fn print(rows: &[Row]) {
    let width = |of: fn(&Row) -> &str, most: usize| {
        let widths = rows.iter().map(|row| of(row).chars().count());
        widths.max().unwrap_or_default().min(most)
    };
    let file = width(|row| &row.file, 40);
    let item = width(|row| &row.item, 60);
    println!("{:file$} | {:item$} | series | sample", "file", "what");
    for row in rows {
        let (shown_item, sample) = (cut(&row.item, item), cut(&row.answer.sample, 60));
        let shown_file = cut(&row.file, file);
        println!(
            "{shown_file:file$} | {shown_item:item$} | {:6} | {sample}",
            row.answer.series
        );
    }
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
