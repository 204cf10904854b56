//! How many imports run at once: a document takes a hundred megabytes and a second of a thread.

use crate::error::{Error, Result};
use domain::TenantId;
use parking_lot::Mutex;
use std::{collections::HashSet, sync::Arc};

/// The most imports at once in this replica.
const AT_ONCE: usize = 2;

/// The places that there are: one a tenant, few in all.
#[derive(Clone, Debug, Default)]
pub struct Imports(Arc<Mutex<HashSet<TenantId>>>);

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    places: Imports,
    tenant: TenantId,
}

impl Imports {
    /// Takes a place.
    ///
    /// # Errors
    /// When the tenant has one, or none is left.
    pub fn begin(&self, tenant: TenantId) -> Result<Permit> {
        let mut taken = self.0.lock();
        if taken.contains(&tenant) {
            return Err(Error::ImportRunning);
        }
        if taken.len() >= AT_ONCE {
            return Err(Error::Unavailable {
                what: "a place for another import",
            });
        }
        taken.insert(tenant);
        Ok(Permit {
            places: self.clone(),
            tenant,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places.0.lock().remove(&self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_place_and_all_have_few() {
        let places = Imports::default();
        let tenants = [TenantId::new(), TenantId::new(), TenantId::new()];
        let first = places.begin(tenants[0]).unwrap();
        assert!(matches!(places.begin(tenants[0]), Err(Error::ImportRunning)));
        let _second = places.begin(tenants[1]).unwrap();
        assert!(matches!(places.begin(tenants[2]), Err(Error::Unavailable { .. })));
        drop(first);
        assert!(places.begin(tenants[2]).is_ok());
    }
}
