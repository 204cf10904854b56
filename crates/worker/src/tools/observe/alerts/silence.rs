//! What keeps alerts quiet.

use super::{equals, filters, read};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Matcher, time},
    tools::observe::answer,
};
use domain::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// How much of a comment or a condition is shown, in characters.
const MAX_TEXT: usize = 300;

/// A silence.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Silence {
    /// Its identifier.
    pub id: String,
    /// Whether it holds.
    pub status: Status,
    /// All of them must fit an alert.
    pub matchers: Vec<Condition>,
    /// When it begins to hold.
    pub starts_at: Time,
    /// When it ends.
    pub ends_at: Time,
    /// Whose it is.
    pub created_by: String,
    /// Why it is.
    pub comment: String,
}

/// Whether a silence holds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    /// The word for it.
    pub state: State,
}

/// Whether a silence holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Active,
    Pending,
    Expired,
}

/// What a silence asks of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    /// The label.
    pub name: String,
    /// Its value, or a regular expression.
    pub value: String,
    /// Whether it is one.
    pub is_regex: bool,
    /// Whether it must be so; otherwise it must not. Old versions leave it away.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

impl Condition {
    /// That a label has a value.
    pub(crate) fn equality(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
            is_regex: false,
            is_equal: true,
        }
    }

    fn is(&self, matcher: &Matcher) -> bool {
        *self == Self::equality(&matcher.name, &matcher.value)
    }

    /// `name="value"`, as people write it.
    pub(crate) fn text(&self) -> String {
        let operator = match (self.is_equal, self.is_regex) {
            (true, false) => "=",
            (false, false) => "!=",
            (true, true) => "=~",
            (false, true) => "!~",
        };
        equals(&self.name, &self.value).replacen('=', operator, 1)
    }
}

impl Silence {
    /// Whether it can keep quiet only alerts that hold all of these.
    pub(crate) fn holds(&self, enforced: &[Matcher]) -> bool {
        let held = |enforced: &Matcher| self.matchers.iter().any(|condition| condition.is(enforced));
        enforced.iter().all(held)
    }

    /// As an answer has it.
    pub(crate) fn value(&self) -> Value {
        let shown = |condition: &Condition| answer::cut(&condition.text(), MAX_TEXT);
        let matchers: Vec<String> = self.matchers.iter().map(shown).collect();
        json!({
            "id": self.id,
            "state": self.status.state,
            "matchers": matchers,
            "starts": time::rfc3339(self.starts_at),
            "ends": time::rfc3339(self.ends_at),
            "author": self.created_by,
            "comment": answer::cut(&self.comment, MAX_TEXT),
        })
    }
}

/// The silences that a caller may see: those that hold, those that will, those that did; of each the next to end first,
/// and of those that did the last.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn silences(access: &Access) -> Result<Vec<Silence>, Failure> {
    let enforced: Vec<&Matcher> = access.matchers().iter().collect();
    let mut silences: Vec<Silence> = access
        .get("/api/v2/silences", &filters(&enforced))
        .await?
        .read(read)?;
    silences.retain(|silence| silence.holds(access.matchers()));
    silences.sort_by_key(|silence| {
        let ends = silence.ends_at.timestamp();
        let expired = silence.status.state == State::Expired;
        (silence.status.state, if expired { -ends } else { ends })
    });
    Ok(silences)
}

/// The silence of this id, if the caller may see it.
///
/// # Errors
/// [`Failure`]; that there is none is told in the same words where it is not for the caller.
pub(crate) async fn find(access: &Access, id: Uuid) -> Result<Silence, Failure> {
    let unknown = || {
        Failure::new(
            Code::InvalidArguments,
            "there is no such silence; list_silences lists them",
        )
    };
    let answer = access.get(&format!("/api/v2/silence/{id}"), &[]).await;
    let answer = answer.map_err(|failure| match &failure.result {
        Some(result) if result["status"] == 404 => unknown(),
        _ => failure,
    })?;
    let silence: Silence = answer.read(read)?;
    silence
        .holds(access.matchers())
        .then_some(silence)
        .ok_or_else(unknown)
}

/// A silence to be made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Draft {
    /// See [`Silence::matchers`].
    pub matchers: Vec<Condition>,
    /// See [`Silence::starts_at`].
    pub starts_at: Time,
    /// See [`Silence::ends_at`].
    pub ends_at: Time,
    /// See [`Silence::created_by`].
    pub created_by: String,
    /// See [`Silence::comment`].
    pub comment: String,
}

impl Draft {
    /// Makes it: its identifier.
    ///
    /// # Errors
    /// [`Failure`]
    pub(crate) async fn create(&self, access: &Access) -> Result<String, Failure> {
        let answer = access.post("/api/v2/silences", &json!(self)).await?;
        read(answer["silenceID"].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: &str, value: &str, is_regex: bool, is_equal: bool) -> Condition {
        Condition {
            name: name.to_owned(),
            value: value.to_owned(),
            is_regex,
            is_equal,
        }
    }

    #[test]
    fn only_an_equality_with_the_same_value_holds_what_is_enforced() {
        let enforced = [Matcher {
            name: "tenant_id".to_owned(),
            value: "acme".to_owned(),
        }];
        let silence = |matchers: Vec<Condition>| Silence {
            id: String::new(),
            status: Status { state: State::Active },
            matchers,
            starts_at: Time::UNIX_EPOCH,
            ends_at: Time::UNIX_EPOCH,
            created_by: String::new(),
            comment: String::new(),
        };
        let other = condition("alertname", "X", false, true);
        let held = condition("tenant_id", "acme", false, true);
        assert!(silence(vec![other.clone(), held]).holds(&enforced));
        for matcher in [
            condition("tenant_id", "acme", true, true),
            condition("tenant_id", "acme", false, false),
            condition("tenant_id", "acme2", false, true),
            condition("tenant", "acme", false, true),
        ] {
            assert!(
                !silence(vec![other.clone(), matcher.clone()]).holds(&enforced),
                "{matcher:?}"
            );
        }
        assert!(!silence(vec![]).holds(&enforced));
        assert!(silence(vec![other]).holds(&[]));
    }

    #[test]
    fn conditions_are_shown_as_people_write_them() {
        let shown = |is_regex, is_equal| condition("a", "b=\"c\"", is_regex, is_equal).text();
        assert_eq!(shown(false, true), r#"a="b=\"c\"""#);
        assert_eq!(shown(false, false), r#"a!="b=\"c\"""#);
        assert_eq!(shown(true, true), r#"a=~"b=\"c\"""#);
        assert_eq!(shown(true, false), r#"a!~"b=\"c\"""#);
    }
}
