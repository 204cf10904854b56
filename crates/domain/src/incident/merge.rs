//! What an incident learns from a notification.
//!
//! Alertmanager tells the same thing again and again, from several replicas, and not always in order. So what is told
//! is merged into what is known: told twice it changes nothing, and an end is not undone by an older word.

use super::{Alert, Notification};
use crate::Time;
use std::collections::HashMap;

/// The most alerts that one incident knows.
pub const ALERTS_KEPT: usize = 1000;
/// Of how many of them labels and annotations are kept.
const DETAILED: usize = 50;
/// For how long after an end was heard of a word that the alert fires is taken for an older one that comes late, unless it
/// began after that end. Later it is believed: Alertmanager may have given an alert up that fired all the while.
pub const STALE: chrono::TimeDelta = chrono::TimeDelta::seconds(120);

/// What lies between an end that was not told and the next beginning.
const MOMENT: chrono::TimeDelta = chrono::TimeDelta::seconds(1);

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
    /// It is over because all that is told of it began anew, after an end that nobody told: once it is closed, what is told
    /// is to be heard again, and opens another one.
    pub again: bool,
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
    if let Some(merged) = ended_unheard(known, told, now) {
        return merged;
    }
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
            if began_anew(known, alert) {
                let before = known.clone().ended(alert.starts_at - MOMENT, self.now);
                self.merged.ended.push(before);
            } else if known.fires() || is_stale(known, alert, self.now) {
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

/// Whether an alert that is known to fire ended in between, and nobody told, since it was silenced then. Alertmanager takes
/// what it is told of one alert by several Prometheus together under its first beginning, so little may differ.
fn began_anew(known: &Alert, fires: &Alert) -> bool {
    known.fires() && !fires.start_guessed && fires.starts_at - known.starts_at > STALE
}

/// What ends an incident whose alerts began anew, where none of the others is told to fire: its end was not heard of.
fn ended_unheard(known: &[Alert], told: &Notification, now: Time) -> Option<Merged> {
    let words: HashMap<_, _> = told.alerts.iter().map(|word| (&word.fingerprint, word)).collect();
    let anew = |known: &Alert| {
        let word = words.get(&known.fingerprint)?;
        (word.fires() && began_anew(known, word)).then_some(word.starts_at)
    };
    let first = known.iter().filter_map(anew).min()?;
    let mut merged = Merged {
        over: true,
        again: true,
        ..Merged::default()
    };
    for alert in known {
        let word = words.get(&alert.fingerprint);
        let end = match word {
            _ if !alert.fires() => {
                merged.alerts.push(alert.clone());
                continue;
            }
            Some(word) if word.fires() => anew(alert)? - MOMENT,
            Some(word) => word.ends_at?,
            // Cut from the notification, it may fire all the same.
            None if told.truncated > 0 => return None,
            None => first - MOMENT,
        };
        let ended = alert.clone().ended(end, now);
        merged.ended.push(ended.clone());
        merged.alerts.push(ended);
    }
    Some(merged)
}

/// Whether a word that an alert fires is older than the word that it ended.
fn is_stale(ended: &Alert, fires: &Alert, now: Time) -> bool {
    let Some(end) = ended.ends_at else { return false };
    let heard = ended.end_told_at.unwrap_or(end);
    fires.starts_at <= end && now - heard < STALE
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
    fn what_began_anew_after_a_silence_is_another_incident() {
        let a = alert("A", "critical", "x", 0);
        let known = [a.clone(), alert("Silenced", "warning", "x", 5)];
        let soon = told(&[alert("A", "critical", "x", 120)]);
        assert!(
            !merge(&known, &[], &soon, at(900)).changes(),
            "of another Prometheus"
        );

        let anew = told(&[
            alert("A", "critical", "x", 800),
            alert("New", "warning", "x", 850),
        ]);
        let before = merge(&known, &[], &anew, at(900));
        assert!(before.over && before.again && before.started.is_empty());
        assert_eq!(names(&before.ended), ["A", "Silenced"]);
        assert_eq!(before.alerts[0].ends_at, Some(at(799)));
        let after = merge(&[], &before.alerts, &anew, at(900));
        assert_eq!((names(&after.started), after.over), (vec!["A", "New"], false));
        let older = merge(&after.alerts, &before.alerts, &told(&[a]), at(901));
        assert!(!older.changes(), "an older word came late");

        // The incident goes on while another of its alerts does, and tells of both.
        let both = told(&[
            alert("A", "critical", "x", 800),
            alert("Silenced", "warning", "x", 5),
        ]);
        let goes_on = merge(&known, &[], &both, at(900));
        assert_eq!(
            (names(&goes_on.started), names(&goes_on.ended)),
            (vec!["A"], vec!["A"])
        );
        assert!(!goes_on.over && !goes_on.again);
        assert_eq!(goes_on.alerts[0].starts_at, at(800));
        let cut = Notification { truncated: 1, ..anew };
        assert!(
            !merge(&known, &[], &cut, at(900)).over,
            "Silenced may be among the rest"
        );

        let mut unknown = alert("A", "critical", "x", 800);
        unknown.start_guessed = true;
        assert!(!merge(&known, &[], &told(&[unknown]), at(900)).changes());
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
