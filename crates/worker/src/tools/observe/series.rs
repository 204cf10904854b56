//! Series as Prometheus and Loki answer them, and what is told of them.

use super::answer::{self, Answer};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Answered},
};
use chrono::DateTime;
use serde_json::{Value, json};

/// The most series in an answer.
pub(crate) const MAX_SERIES: usize = 50;
/// The most that is told of one warning, in characters, and how many are.
const MAX_WARNING: usize = 200;
const MAX_WARNINGS: usize = 3;

/// One series: labels, and seconds since 1970 with values.
pub(crate) struct Series {
    labels: Value,
    samples: Vec<(f64, f64)>,
}

impl Series {
    /// From `{"metric": …, "value": …}` or `{"metric": …, "values": …}`. Of a histogram, the number of observations.
    fn read(mut entry: Value) -> Option<Self> {
        let labels = entry.get_mut("metric").map(Value::take);
        let labels = labels.filter(Value::is_object)?;
        let one = |sample: &Value| {
            let text = sample[1].as_str().or_else(|| sample[1]["count"].as_str())?;
            Some((sample[0].as_f64()?, text.parse().ok()?))
        };
        let samples = match (&entry["value"], &entry["histogram"]) {
            (Value::Null, Value::Null) => {
                let lists = ["values", "histograms"].map(|key| entry[key].as_array());
                let samples = lists.into_iter().flatten().flatten();
                samples.map(one).collect::<Option<Vec<_>>>()?
            }
            (Value::Null, histogram) => vec![one(histogram)?],
            (value, _) => vec![one(value)?],
        };
        Some(Self { labels, samples })
    }

    fn last(&self) -> f64 {
        self.samples.last().map_or(f64::NAN, |(_, value)| *value)
    }

    /// Its labels and its value.
    fn instant(&self) -> Value {
        json!({ "labels": self.labels, "value": answer::number(self.last()) })
    }

    /// Its labels, what its values were, and at most so many points: each the mean of those it stands for.
    fn summary(&self, points: usize) -> Value {
        let finite = || self.samples.iter().filter(|(_, value)| !value.is_nan());
        let mut summary = json!({ "labels": self.labels });
        let lowest = finite().min_by(|a, b| a.1.total_cmp(&b.1));
        let highest = finite().max_by(|a, b| a.1.total_cmp(&b.1));
        if let (Some((_, min)), Some((at, max))) = (lowest, highest) {
            summary["min"] = answer::number(*min);
            summary["max"] = answer::number(*max);
            summary["max_at"] = moment(*at).into();
        }
        summary["avg"] = answer::number(mean(&self.samples));
        summary["last"] = answer::number(self.last());
        let each = self.samples.len().div_ceil(points.max(1)).max(1);
        let shown = self.samples.chunks(each).map(|chunk| {
            let at = chunk.first().map_or(0.0, |(at, _)| *at);
            json!([moment(at), answer::number(mean(chunk))])
        });
        summary["points"] = shown.collect();
        summary
    }
}

/// Of the values that are numbers; NaN where none is.
fn mean(samples: &[(f64, f64)]) -> f64 {
    let values = || {
        samples
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| !value.is_nan())
    };
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = values().count() as f64;
    values().sum::<f64>() / count
}

fn moment(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "times of this era")]
    let time = DateTime::from_timestamp_millis((seconds * 1000.0) as i64);
    time.map(answer::time).unwrap_or_default()
}

/// What Prometheus' API answered: its data, and what it warns of as notes.
pub(crate) fn data(access: &Access, answered: Answered, answer: &mut Answer) -> Result<Answered, Failure> {
    if answered["status"] != "success" {
        let message = format!(
            "the source `{}` does not answer as Prometheus does",
            access.name()
        );
        return Err(Failure::new(Code::SourceError, message));
    }
    let lists = ["warnings", "infos"].map(|key| answered[key].as_array());
    let warnings = lists.into_iter().flatten().flatten().filter_map(Value::as_str);
    for warning in warnings.take(MAX_WARNINGS) {
        answer.note(answer::cut(warning, MAX_WARNING));
    }
    Ok(answered.part("/data"))
}

/// All series of a list.
pub(crate) fn read(access: &Access, list: Value) -> Result<Vec<Series>, Failure> {
    let read = match list {
        Value::Array(list) => list.into_iter().map(Series::read).collect(),
        _ => None,
    };
    read.ok_or_else(|| {
        let message = format!(
            "the series that the source `{}` answers cannot be read",
            access.name()
        );
        Failure::new(Code::SourceError, message)
    })
}

/// The biggest series first, by their last values; what is not a number comes last.
fn sort(series: &mut [Series]) {
    let rank = |series: &Series| match series.last() {
        value if value.is_nan() => f64::NEG_INFINITY,
        value => value,
    };
    series.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
}

/// Says in `answer` what `series` are: with `points`, summaries of a range, else one value each.
pub(crate) fn tell(answer: &mut Answer, mut series: Vec<Series>, points: Option<usize>) {
    let of = series.len();
    sort(&mut series);
    series.truncate(MAX_SERIES);
    if series.len() < of {
        let narrow = "the biggest by last value are shown; aggregate (sum by …), use topk() or add labels";
        answer.note(narrow);
    }
    let told = series.iter().map(|series| match points {
        None => series.instant(),
        Some(points) => series.summary(points),
    });
    let told: Vec<Value> = told.collect();
    answer.truncated(told.len(), of).set("series", told);
}
