//! What becomes of an execution when an attempt is over.

use domain::{
    Time,
    execution::{ExecutionError, ExecutionStatus, Outcome},
    tool::RetryPolicy,
};
use std::time::Duration;

/// How an attempt ended, in the words of who ran it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// What it came to.
    pub outcome: Outcome,
    /// Another attempt may fare better.
    pub transient: bool,
    /// The request may have left the worker.
    pub departed: bool,
    /// What the endpoint asked to be waited for.
    pub retry_after: Option<Duration>,
}

/// How the execution stands when its attempt is over.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Attempts so far, this one included.
    pub attempts: i32,
    /// The most that its policy, and replays, allow.
    pub max_attempts: i32,
    /// Running it twice is as good as once.
    pub idempotent: bool,
    /// Its caller wants it to end.
    pub cancel_requested: bool,
    /// When it ends if it has not begun by then.
    pub deadline: Option<Time>,
    /// The tool's policy, while the tool exists and has one.
    pub policy: Option<RetryPolicy>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing: this is its outcome.
    Final(Outcome),
    /// Another attempt.
    Retry {
        /// Not before so long.
        wait: Duration,
        /// Why this one did not do.
        error: ExecutionError,
    },
}

impl Ended {
    /// Whether another attempt is out of the question, however the execution stands.
    pub fn is_settled(&self) -> bool {
        self.outcome.status == ExecutionStatus::Succeeded || !self.transient
    }
}

/// Decides whether there is another attempt: only where that is safe, allowed, worth it, and still wanted. `random` of
/// 0 to 1 spreads the waits.
pub fn decide(ended: Ended, standing: &Standing, now: Time, random: f64) -> Next {
    let safe = standing.idempotent || !ended.departed;
    let Some(policy) = standing.policy.filter(|_| safe && !ended.is_settled()) else {
        return Next::Final(ended.outcome);
    };
    if standing.cancel_requested || standing.max_attempts <= 1 {
        return Next::Final(ended.outcome);
    }
    let wait = wait(&policy, standing.attempts, ended.retry_after, random);
    let in_time = standing.deadline.is_none_or(|deadline| now + wait <= deadline);
    if !in_time {
        return Next::Final(ended.outcome);
    }
    if standing.attempts >= standing.max_attempts {
        return Next::Final(Outcome {
            status: ExecutionStatus::Dead,
            ..ended.outcome
        });
    }
    Next::Retry {
        wait,
        error: ended.outcome.error.unwrap_or_else(unexplained),
    }
}

/// The policy's wait, or the endpoint's where that is longer and no more than the policy's longest.
fn wait(policy: &RetryPolicy, attempt: i32, retry_after: Option<Duration>, random: f64) -> Duration {
    let longest = Duration::from_millis(policy.max_backoff_ms);
    let asked = retry_after.unwrap_or_default().min(longest);
    policy
        .backoff(u32::try_from(attempt).unwrap_or(1), random)
        .max(asked)
}

fn unexplained() -> ExecutionError {
    ExecutionError {
        code: "unexplained".to_owned(),
        message: "the attempt failed and did not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 3,
        initial_backoff_ms: 100,
        max_backoff_ms: 1_000,
    };

    fn now() -> Time {
        Time::from_timestamp(1_000_000, 0).expect("a time")
    }

    fn failed(status: ExecutionStatus) -> Ended {
        Ended {
            outcome: Outcome {
                status,
                result: None,
                error: Some(error()),
            },
            transient: true,
            departed: true,
            retry_after: None,
        }
    }

    fn error() -> ExecutionError {
        ExecutionError {
            code: "http_status".to_owned(),
            message: "503".to_owned(),
        }
    }

    fn standing() -> Standing {
        Standing {
            attempts: 1,
            max_attempts: 3,
            idempotent: true,
            cancel_requested: false,
            deadline: None,
            policy: Some(POLICY),
        }
    }

    fn next(ended: &Ended, standing: &Standing) -> Next {
        decide(ended.clone(), standing, now(), 1.0)
    }

    fn retry(ms: u64) -> Next {
        Next::Retry {
            wait: Duration::from_millis(ms),
            error: error(),
        }
    }

    #[test]
    fn what_is_safe_and_may_fare_better_is_tried_again() {
        let failed = failed(ExecutionStatus::Failed);
        assert_eq!(next(&failed, &standing()), retry(100));
        let second = Standing {
            attempts: 2,
            ..standing()
        };
        assert_eq!(next(&failed, &second), retry(200));
        let not_left = Ended {
            departed: false,
            ..failed
        };
        let once = Standing {
            idempotent: false,
            ..standing()
        };
        assert_eq!(next(&not_left, &once), retry(100));
    }

    #[test]
    fn the_endpoint_may_ask_for_more_time_up_to_the_policys_longest() {
        for (asked, wait) in [(50, 100), (500, 500), (60_000, 1_000)] {
            let ended = Ended {
                retry_after: Some(Duration::from_millis(asked)),
                ..failed(ExecutionStatus::Failed)
            };
            assert_eq!(next(&ended, &standing()), retry(wait), "{asked}");
        }
    }

    #[test]
    fn what_may_not_run_again_ends_as_it_was_told() {
        let unknown = failed(ExecutionStatus::OutcomeUnknown);
        let once = Standing {
            idempotent: false,
            ..standing()
        };
        assert_eq!(next(&unknown, &once), Next::Final(unknown.outcome.clone()));
        let failed = failed(ExecutionStatus::Failed);
        let as_told = Next::Final(failed.outcome.clone());
        let settled = Ended {
            transient: false,
            ..failed.clone()
        };
        assert_eq!(next(&settled, &standing()), as_told);
        let hopeless = [
            Standing {
                policy: None,
                ..standing()
            },
            Standing {
                cancel_requested: true,
                ..standing()
            },
            Standing {
                max_attempts: 1,
                ..standing()
            },
            Standing {
                deadline: Some(now() + Duration::from_millis(99)),
                ..standing()
            },
        ];
        for standing in hopeless {
            assert_eq!(next(&failed, &standing), as_told, "{standing:?}");
        }
        let just_in_time = Standing {
            deadline: Some(now() + Duration::from_millis(100)),
            ..standing()
        };
        assert_eq!(next(&failed, &just_in_time), retry(100));
    }

    #[test]
    fn a_success_is_final_whatever_else_was_said() {
        let success = Ended {
            transient: true,
            ..failed(ExecutionStatus::Succeeded)
        };
        assert_eq!(next(&success, &standing()), Next::Final(success.outcome.clone()));
    }

    #[test]
    fn after_the_last_attempt_it_is_dead_and_keeps_what_was_learnt() {
        let last = Standing {
            attempts: 3,
            ..standing()
        };
        let dead = Outcome {
            status: ExecutionStatus::Dead,
            result: None,
            error: Some(error()),
        };
        assert_eq!(next(&failed(ExecutionStatus::Failed), &last), Next::Final(dead));
        // A replay grants more.
        let replayed = Standing {
            attempts: 4,
            max_attempts: 6,
            ..standing()
        };
        assert_eq!(next(&failed(ExecutionStatus::Failed), &replayed), retry(800));
    }
}
