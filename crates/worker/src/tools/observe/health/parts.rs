//! Parts of an answer: each has its own time, and one that fails is told of while the others stand.

use crate::outcome::{Code, Failure};
use std::time::Duration;

/// What came of the parts of an answer.
#[derive(Default)]
pub(in super::super) struct Parts {
    /// What is missing and why, for the agent.
    pub(in super::super) notes: Vec<String>,
    first_failure: Option<Failure>,
    some_stand: bool,
}

impl Parts {
    /// Takes a part: what it found, or nothing and a note.
    pub(in super::super) fn take<T: Default>(&mut self, name: &str, part: Result<T, Failure>) -> T {
        match part {
            Ok(found) => {
                self.some_stand = true;
                found
            }
            Err(failure) => {
                self.notes.push(format!("{name}: not known ({failure})"));
                self.first_failure.get_or_insert(failure);
                T::default()
            }
        }
    }

    /// The failure of the first part, where not one stands.
    ///
    /// # Errors
    /// That failure.
    pub(in super::super) fn any(&self) -> Result<(), Failure> {
        match &self.first_failure {
            Some(failure) if !self.some_stand => Err(failure.clone()),
            _ => Ok(()),
        }
    }
}

/// A part that is given up after `limit`.
///
/// # Errors
/// Its own, or [`Code::Timeout`].
pub(in super::super) async fn within<T>(
    limit: Duration,
    part: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| {
        Failure::new(
            Code::Timeout,
            format!("no answer within {} s", limit.as_secs_f64()),
        )
    };
    tokio::time::timeout(limit, part).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_without_each_other_but_not_without_all() {
        let failure = || Failure::new(Code::SourceUnavailable, "down");
        let mut parts = Parts::default();
        let nothing: Vec<u8> = parts.take("rates", Err(failure()));
        assert!(nothing.is_empty());
        assert_eq!(parts.any(), Err(failure()));
        assert_eq!(parts.take("alerts", Ok(1)), 1);
        assert_eq!(parts.any(), Ok(()));
        assert_eq!(parts.notes, ["rates: not known (source_unavailable: down)"]);
    }
}
