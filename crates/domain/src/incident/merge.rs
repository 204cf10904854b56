//! What an incident learns from a notification.
//!
//! Alertmanager tells the same thing again and again, from several replicas, and not always in order. So what is told
//! is merged into what is known: told twice it changes nothing, and an end is not undone by an older word.

use super::{Alert, Notification};
use crate::Time;
use std::{collections::HashMap, time::Duration};

/// The most alerts that one incident knows.
pub const ALERTS_KEPT: usize = 1000;
/// Of how many of them labels and annotations are kept.
const DETAILED: usize = 50;
/// For how long after an end was heard of a word that the alert fires is taken for an older one that comes late, unless it
/// began after that end. Later it is believed: Alertmanager may have given an alert up that fired all the while.
pub const STALE: Duration = Duration::from_secs(120);

/// What a notification changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// All that is known afterwards.
    pub alerts: Vec<Alert>,
    /// Those that are new, or fire again.
    pub started: Vec<Alert>,
    /// Those that ended.
    pub ended: Vec<Alert>,
    /// Nothing fires any more.
    pub over: bool,
}

impl Merged {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        !self.started.is_empty() || !self.ended.is_empty()
    }
}

/// What `told`, heard at `now`, makes of what is `known` of an open incident (nothing: there is none). `past` is what the
/// group's last incident knew: an old word about it opens nothing.
pub fn merge(known: &[Alert], past: &[Alert], told: &Notification, now: Time) -> Merged {
    let mut merging = Merging {
        places: known
            .iter()
            .enumerate()
            .map(|(place, alert)| (alert.fingerprint.clone(), place))
            .collect(),
        merged: Merged {
            alerts: known.to_vec(),
            ..Merged::default()
        },
        past,
        now,
        left_out: false,
    };
    for alert in told.alerts.iter().filter(|alert| alert.fires()) {
        merging.fires(alert);
    }
    for alert in told.alerts.iter().filter(|alert| !alert.fires()) {
        merging.ended(alert);
    }
    if told.over {
        merging.all_over(told);
    }
    let mut merged = merging.merged;
    merged.over = !merging.left_out && merged.alerts.iter().all(|alert| !alert.fires());
    merged
}

struct Merging<'a> {
    places: HashMap<String, usize>,
    merged: Merged,
    past: &'a [Alert],
    now: Time,
    /// Something fires that there is no room for.
    left_out: bool,
}

impl Merging<'_> {
    fn fires(&mut self, alert: &Alert) {
        if let Some(place) = self.places.get(&alert.fingerprint) {
            let known = &mut self.merged.alerts[*place];
            if known.fires() || is_stale(known, alert, self.now) {
                return;
            }
            known.starts_at = alert.starts_at;
            known.ends_at = None;
            known.end_told_at = None;
            self.merged.started.push(known.clone());
            return;
        }
        let of_the_past = |past: &&Alert| past.fingerprint == alert.fingerprint;
        let past = self.past.iter().find(of_the_past);
        if past.is_some_and(|past| is_stale(past, alert, self.now)) {
            return;
        }
        if self.add(alert) {
            self.merged.started.push(alert.clone());
        } else {
            self.left_out = true;
        }
    }

    fn ended(&mut self, alert: &Alert) {
        let Some(end) = alert.ends_at else { return };
        if let Some(place) = self.places.get(&alert.fingerprint) {
            let known = &mut self.merged.alerts[*place];
            if known.fires() && end >= known.starts_at {
                *known = known.clone().ended(end, self.now);
                self.merged.ended.push(known.clone());
            }
            return;
        }
        // It came and went unheard of. What ended before this incident began is not its affair.
        let began = self.merged.alerts.iter().map(|known| known.starts_at).min();
        if began.is_some_and(|began| end >= began) && self.add(&alert.clone().ended(end, self.now)) {
            self.merged.ended.push(alert.clone());
        }
    }

    /// The group is over: so is what is told of no more, for it was silenced or cut from the notification. What began after
    /// all that is told of is news that this word does not know yet.
    fn all_over(&mut self, told: &Notification) {
        let Some(end) = told.alerts.iter().filter_map(|alert| alert.ends_at).max() else {
            return;
        };
        for known in &mut self.merged.alerts {
            if known.fires() && known.starts_at < end {
                *known = known.clone().ended(end, self.now);
                self.merged.ended.push(known.clone());
            }
        }
    }

    fn add(&mut self, alert: &Alert) -> bool {
        let place = self.merged.alerts.len();
        if place >= ALERTS_KEPT {
            return false;
        }
        let mut alert = alert.clone();
        if place >= DETAILED {
            alert.labels.clear();
            alert.annotations.clear();
            alert.generator_url = None;
        }
        self.places.insert(alert.fingerprint.clone(), place);
        self.merged.alerts.push(alert);
        true
    }
}

/// Whether a word that an alert fires is older than the word that it ended.
fn is_stale(ended: &Alert, fires: &Alert, now: Time) -> bool {
    let Some(end) = ended.ends_at else { return false };
    let heard = ended.end_told_at.unwrap_or(end);
    fires.starts_at <= end && now - heard < chrono::TimeDelta::from_std(STALE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{alert, at},
        *,
    };

    fn told(alerts: &[Alert]) -> Notification {
        Notification {
            group_key: "g".into(),
            over: alerts.iter().all(|alert| !alert.fires()),
            alerts: alerts.to_vec(),
            truncated: 0,
        }
    }

    fn names(alerts: &[Alert]) -> Vec<&str> {
        alerts.iter().map(|alert| alert.name.as_str()).collect()
    }

    #[test]
    fn an_incident_opens_grows_and_ends() {
        let a = alert("A", "critical", "x", 0);
        let b = alert("B", "warning", "x", 10);
        let opened = merge(&[], &[], &told(std::slice::from_ref(&a)), at(1));
        assert_eq!((names(&opened.started), opened.over), (vec!["A"], false));
        let same = merge(&opened.alerts, &[], &told(std::slice::from_ref(&a)), at(2));
        assert!(!same.changes(), "told again");

        let grown = merge(
            &opened.alerts,
            &[],
            &told(&[a.clone().ended(at(9), at(9)), b.clone()]),
            at(11),
        );
        assert_eq!(
            (names(&grown.started), names(&grown.ended)),
            (vec!["B"], vec!["A"])
        );
        assert!(!grown.over);
        let older = merge(&grown.alerts, &[], &told(&[a]), at(12));
        assert!(!older.changes(), "an older word came late");

        let over = merge(&grown.alerts, &[], &told(&[b.ended(at(20), at(20))]), at(21));
        assert_eq!((names(&over.ended), over.over), (vec!["B"], true));
    }

    #[test]
    fn an_old_word_opens_nothing_but_a_new_one_does() {
        let a = alert("A", "critical", "x", 0);
        let past = [a.clone().ended(at(50), at(60))];
        let late = merge(&[], &past, &told(std::slice::from_ref(&a)), at(61));
        assert!(!late.changes() && late.alerts.is_empty());
        let again = merge(&[], &past, &told(&[alert("A", "critical", "x", 55)]), at(61));
        assert_eq!(names(&again.started), ["A"]);
        let all_the_while = merge(&[], &past, &told(std::slice::from_ref(&a)), at(60 + 120));
        assert_eq!(names(&all_the_while.started), ["A"]);
        let ended = merge(&[], &past, &told(&[a.ended(at(50), at(60))]), at(61));
        assert!(!ended.changes(), "nothing opens with an end");
    }

    #[test]
    fn a_group_that_is_over_ends_what_it_tells_of_no_more() {
        let silenced = alert("S", "warning", "x", 0);
        let later = alert("L", "warning", "x", 100);
        let known = [silenced, alert("A", "warning", "x", 5), later];
        let word = told(&[alert("A", "warning", "x", 5).ended(at(50), at(50))]);
        let merged = merge(&known, &[], &word, at(101));
        assert_eq!(names(&merged.ended), ["A", "S"]);
        assert!(!merged.over, "L began later");
    }

    #[test]
    fn what_there_is_no_room_for_keeps_it_open() {
        let many: Vec<_> = (0..1000)
            .map(|i| alert(&format!("A{i}"), "info", "x", 0))
            .collect();
        let opened = merge(&[], &[], &told(&many), at(1));
        assert_eq!(opened.alerts.len(), ALERTS_KEPT);
        assert!(opened.alerts[DETAILED].labels.is_empty());
        let ends = many.iter().map(|a| a.clone().ended(at(5), at(6)));
        let word: Vec<_> = ends.skip(1).chain([alert("More", "info", "x", 1)]).collect();
        let merged = merge(&opened.alerts, &[], &told(&word), at(6));
        assert!(!merged.over);
    }
}
