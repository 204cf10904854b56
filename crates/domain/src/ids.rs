//! Identifiers: UUIDv7, so that they sort by the time they were made.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identifier, greater than those made before it on this machine.
            #[expect(clippy::new_without_default, reason = "two calls give two values")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(s).map(Self)
            }
        }
    };
}

id!(
    /// A tenant: the owner of everything else.
    TenantId
);
id!(
    /// A context.
    ContextId
);
id!(
    /// A registered tool.
    ToolId
);
id!(
    /// An execution of a tool.
    ExecutionId
);
id!(
    /// An API key (its record, not its secret).
    ApiKeyId
);
id!(
    /// A schedule that runs a tool again and again.
    ScheduleId
);
id!(
    /// Another MCP server whose tools a tenant uses.
    UpstreamId
);
id!(
    /// An incident: what alerts of one group came to.
    IncidentId
);
