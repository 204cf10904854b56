//! Tenants.

use crate::{TenantId, Time, validate};
use serde::{Deserialize, Serialize};

/// Whether a tenant's keys are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// Its keys work.
    Active,
    /// All its keys are refused until it is active again.
    Suspended,
}

impl TenantStatus {
    /// The word that stands in databases and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// An owner of contexts, tools, keys and executions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Identifier.
    pub id: TenantId,
    /// Unique name: letters, digits, `-`, `_` and `.`, at most 63 characters. It is the metrics' `tenant_id`.
    pub name: String,
    /// Whether its keys are accepted.
    pub status: TenantStatus,
    /// When it was made.
    pub created_at: Time,
}

/// Checks a tenant's name.
///
/// # Errors
/// When it is empty, too long or holds another character.
pub fn check_name(name: &str) -> Result<(), validate::Invalid> {
    validate::word("name", name, 63)
}
