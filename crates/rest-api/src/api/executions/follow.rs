//! Following an execution, and reading its whole result in parts.

use crate::{
    api::Api,
    error::{Error, Result},
};
use domain::{
    ExecutionId, Principal,
    execution::{Execution, ExecutionStatus},
};
use futures_util::Stream;
use std::time::Duration;

/// How much of a result is read at once unless the caller says, bytes.
const DEFAULT_PART: usize = 64 << 10;

/// The shortest and the longest time between two looks at an execution of which no signal says that it changed. Whoever
/// follows may do so for days, and there may be thousands.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// A part of a result's JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultPart {
    /// The part.
    pub text: String,
    /// Where it begins, bytes.
    pub offset: usize,
    /// The whole, bytes.
    pub total: usize,
}

impl Api {
    /// Follows an execution: as it stands now, then whenever it changed, until it is final or the service stops. Needs
    /// `tools:read` or `tools:execute`.
    pub async fn follow_execution(
        &self,
        caller: &Principal,
        id: ExecutionId,
    ) -> Result<impl Stream<Item = Result<Execution>> + Send + 'static> {
        let mut waiter = self.0.hub.waiter(id);
        let first = self.get_execution(caller, id).await?;
        let (api, tenant) = (self.clone(), first.tenant_id);
        if first.status == ExecutionStatus::Running {
            self.0.store.watch_execution(tenant, id).await?;
        }
        Ok(async_stream::try_stream! {
            let mut last = first;
            let mut patience = LOOKS.0;
            yield last.clone();
            while !last.status.is_final() {
                tokio::select! {
                    () = waiter.changed_within(patience) => {}
                    () = api.0.shutdown.cancelled() => break,
                }
                let now = match api.0.store.get_execution(tenant, id).await.map_err(Error::from) {
                    // Whoever follows has time: the database may come back.
                    Err(Error::Unavailable { .. }) => continue,
                    other => other?,
                };
                patience = next_look(patience, now != last);
                if now != last {
                    last = now;
                    yield last.clone();
                }
            }
        })
    }

    /// A part of an execution's whole result, as JSON text, cut between characters; empty behind its end. Needs
    /// `tools:read` or `tools:execute`.
    pub async fn read_result(
        &self,
        caller: &Principal,
        id: ExecutionId,
        offset: u64,
        limit: u32,
    ) -> Result<ResultPart> {
        let execution = self.get_execution(caller, id).await?;
        let whole = execution
            .result
            .map_or_else(String::new, |result| result.to_string());
        let limit = match limit as usize {
            0 => DEFAULT_PART,
            limit => limit.min(self.0.limits.page_bytes),
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(part(&whole, offset, limit))
    }
}

fn next_look(patience: Duration, changed: bool) -> Duration {
    if changed {
        LOOKS.0
    } else {
        (2 * patience).min(LOOKS.1)
    }
}

/// From the character that holds `offset`, at most `limit` bytes but one character at least.
fn part(whole: &str, offset: usize, limit: usize) -> ResultPart {
    let offset = whole.floor_char_boundary(offset.min(whole.len()));
    let rest = &whole[offset..];
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let end = rest.floor_char_boundary(limit.min(rest.len())).max(first);
    ResultPart {
        text: rest[..end].to_owned(),
        offset,
        total: whole.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_is_looked_at_ever_more_seldom() {
        let mut looks = 0;
        let (mut patience, mut passed) = (LOOKS.0, Duration::ZERO);
        while passed < Duration::from_secs(3600) {
            passed += patience;
            looks += 1;
            patience = next_look(patience, false);
        }
        assert!(
            looks < 250,
            "{looks} in an hour, where once a second would be 3600"
        );
        assert_eq!(next_look(patience, true), LOOKS.0);
    }

    #[test]
    fn parts_are_cut_between_characters_and_make_up_the_whole() {
        let whole = "a\u{e9}\u{1f600}z";
        let (mut read, mut offset) = (String::new(), 0);
        while offset < whole.len() {
            let part = part(whole, offset, 3);
            assert_eq!((part.offset, part.total), (offset, whole.len()));
            assert!(!part.text.is_empty());
            offset += part.text.len();
            read.push_str(&part.text);
        }
        assert_eq!(read, whole);
        let back = part(whole, 2, 100);
        assert_eq!((back.offset, back.text.as_str()), (1, "\u{e9}\u{1f600}z"));
        assert_eq!(part(whole, 999, 5).text, "");
    }
}
