//! Rejected authentications, counted together.

use super::{AUTHENTICATE, Door, Outcome, Record};
use crate::{ApiKeyId, TenantId, Time};
use std::{collections::HashMap, net::IpAddr};

/// How many kinds of rejected authentications are told apart between two [`Rejections::take`]: of a known key, of all
/// keys of a tenant, and of anything else.
const KEY_MAX: usize = 16;
const TENANT_MAX: usize = 64;
const STRANGERS_MAX: usize = 32;

/// A key that is known, and not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Whose key it is.
    pub tenant_id: TenantId,
    /// The key.
    pub key_id: ApiKeyId,
}

/// What was shown at a door, and not accepted.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Why: the metrics' `result`.
    pub reason: &'static str,
    /// Whose it is, where that is known.
    pub owner: Option<Owner>,
    /// The first characters of a well-formed key. Anything else may be a secret of another kind.
    pub shown: Option<String>,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// The trace, where it is known.
    pub trace_id: String,
}

/// Whose a rejected authentication is: nobody's, a tenant's, or one of its keys'.
type Whose = (Option<TenantId>, Option<ApiKeyId>);

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    reason: &'static str,
    whose: Whose,
    shown: Option<String>,
    address: Option<IpAddr>,
}

/// Rejected authentications, counted together so that a flood of them is a few records.
pub struct Rejections {
    door: Door,
    kinds: HashMap<Kind, Record>,
    /// How many of the kinds are whose; a tenant's are those of its keys, too.
    used: HashMap<Whose, usize>,
}

impl Rejections {
    /// Those of one door.
    pub fn at(door: Door) -> Self {
        Self {
            door,
            kinds: HashMap::new(),
            used: HashMap::new(),
        }
    }

    /// Counts one.
    pub fn count(&mut self, rejected: Rejected, now: Time) {
        let Rejected {
            reason,
            owner,
            shown,
            address,
            trace_id,
        } = rejected;
        let kind = self.told_apart(Kind {
            reason,
            whose: (
                owner.as_ref().map(|owner| owner.tenant_id),
                owner.as_ref().map(|owner| owner.key_id),
            ),
            shown,
            address,
        });
        if let Some(record) = self.kinds.get_mut(&kind) {
            record.count += 1;
            return;
        }
        let mut record = Record::new(now, self.door, AUTHENTICATE);
        let (tenant, key) = kind.whose;
        (record.tenant_id, record.key_id) = (tenant, key);
        record.key_name = kind.shown.clone().unwrap_or_default();
        record.address = kind
            .address
            .map(|address| address.to_string())
            .unwrap_or_default();
        record.outcome = Outcome::Denied;
        record.code = reason.to_owned();
        record.trace_id = trace_id;
        *self.used.entry((tenant, None)).or_default() += 1;
        if key.is_some() {
            *self.used.entry((tenant, key)).or_default() += 1;
        }
        self.kinds.insert(kind, record);
    }

    /// The kind, or where its owner has too many to be told apart, one that tells less of it: whose it is stays, so that
    /// nobody's flood hides what is another's.
    fn told_apart(&self, kind: Kind) -> Kind {
        let (tenant, key) = kind.whose;
        let used = |whose: Whose| self.used.get(&whose).copied().unwrap_or(0);
        let most = tenant.map_or(STRANGERS_MAX, |_| TENANT_MAX);
        let room = used((tenant, None)) < most;
        let key_room = key.is_none() || used((tenant, key)) < KEY_MAX;
        if (room && key_room) || self.kinds.contains_key(&kind) {
            return kind;
        }
        let plain = Kind {
            shown: None,
            address: None,
            ..kind
        };
        if room || self.kinds.contains_key(&plain) {
            return plain;
        }
        Kind {
            whose: (tenant, None),
            ..plain
        }
    }

    /// What was counted since the last time, as records.
    pub fn take(&mut self) -> Vec<Record> {
        self.used.clear();
        self.kinds.drain().map(|(_, record)| record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_is_a_few_records_with_the_right_count() {
        let mut rejections = Rejections::at(Door::Rest);
        let now = chrono::Utc::now();
        let owner = Owner {
            tenant_id: TenantId::new(),
            key_id: ApiKeyId::new(),
        };
        let rejected = |shown: Option<String>, owner| Rejected {
            reason: "invalid",
            owner,
            shown,
            address: None,
            trace_id: String::new(),
        };
        for n in 0..1000 {
            rejections.count(rejected(Some(format!("dmcp_{n}")), None), now);
        }
        rejections.count(rejected(None, Some(owner)), now);
        let records = rejections.take();
        assert!(records.len() <= STRANGERS_MAX + 2, "{}", records.len());
        assert_eq!(records.iter().map(|record| record.count).sum::<i64>(), 1001);
        let own = records
            .iter()
            .filter(|record| record.tenant_id == Some(owner.tenant_id));
        assert_eq!(own.map(|record| record.count).sum::<i64>(), 1);
        assert!(rejections.take().is_empty());
    }

    #[test]
    fn a_flood_with_known_keys_hides_nothing_of_another_tenant() {
        let mut rejections = Rejections::at(Door::Rest);
        let now = chrono::Utc::now();
        let owner = |tenant_id| Owner {
            tenant_id,
            key_id: ApiKeyId::new(),
        };
        let mut count = |owner, n: u32| {
            let rejected = Rejected {
                reason: "revoked",
                owner: Some(owner),
                shown: None,
                address: Some(IpAddr::from(n.to_be_bytes())),
                trace_id: String::new(),
            };
            rejections.count(rejected, now);
        };
        let (one, other) = (owner(TenantId::new()), owner(TenantId::new()));
        (0..5000).for_each(|n| count(one, n));
        // Its neighbour of the same tenant is told apart, and so is the other tenant's.
        let neighbour = owner(one.tenant_id);
        count(neighbour, 1);
        (0..5000).for_each(|n| count(owner(one.tenant_id), n));
        count(other, 1);
        let records = rejections.take();
        assert!(records.len() <= TENANT_MAX + 2, "{}", records.len());
        let sum = |of: &dyn Fn(&&Record) -> bool| records.iter().filter(of).map(|r| r.count).sum::<i64>();
        assert_eq!(sum(&|r| r.key_id == Some(one.key_id)), 5000);
        assert_eq!(
            sum(&|r| r.key_id == Some(neighbour.key_id) && r.address == "0.0.0.1"),
            1
        );
        assert_eq!(sum(&|r| r.tenant_id == Some(one.tenant_id)), 10_001);
        assert_eq!(
            sum(&|r| r.key_id == Some(other.key_id) && r.address == "0.0.0.1"),
            1
        );
    }
}
