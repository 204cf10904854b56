//! Makes an upstream's rows among the tools what they should be, and touches only what is not so already.

use super::super::{Statement, dialect, tools};
use crate::store::{
    CredentialsChange, Result, SealedCredentials,
    rows::{ToolToRunRow, read_all},
    upstreams::{Settled, ToAsk},
};
use domain::{
    TenantId, UpstreamId,
    tool::{Tool, ToolSpec},
    upstream::{LeftOut, Reason},
};
use sqlx::Transaction;
use std::collections::{HashMap, HashSet};

const TAKEN: Statement = Statement::new(
    "tools.taken_by_others",
    "SELECT name FROM tools WHERE tenant_id = $1 AND (upstream_id IS NULL OR upstream_id <> $2)
     AND SUBSTR(name, 1, LENGTH($3)) = $3",
);

type Tx = Transaction<'static, dialect::Db>;

/// A tool as it stands, with its credentials.
pub(super) type Standing = (Tool, Option<SealedCredentials>);

/// Whose tools they are, and what they have from it.
pub(super) struct Owner {
    pub(super) tenant: TenantId,
    pub(super) id: UpstreamId,
    /// What their names begin with.
    pub(super) prefix: String,
    pub(super) credentials: Option<SealedCredentials>,
}

impl Owner {
    pub(super) fn of(locked: &ToAsk) -> Self {
        Self {
            tenant: locked.upstream.tenant_id,
            id: locked.upstream.id,
            prefix: locked.upstream.spec.prefix(),
            credentials: locked.credentials.clone(),
        }
    }
}

/// The tools that an upstream has.
pub(super) async fn tools(tx: &mut Tx, id: UpstreamId) -> Result<Vec<Standing>> {
    let rows = tools::OF_UPSTREAM
        .bind(id.0)
        .all::<ToolToRunRow>(&mut **tx)
        .await?;
    read_all(rows)
}

/// Adds, changes and removes until the tools are those that are `wanted`, but for names that others have. The catalogue's
/// revision is counted when anything of that is to be done, before it is.
pub(super) async fn settle(
    tx: &mut Tx,
    owner: &Owner,
    had: Vec<Standing>,
    wanted: &[ToolSpec],
) -> Result<Settled> {
    let mut settled = Settled::default();
    let taken = taken(tx, owner, wanted).await?;
    let mut had: HashMap<_, _> = had
        .into_iter()
        .map(|one| (one.0.spec.name.clone(), one))
        .collect();
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for spec in wanted {
        match had.remove(&spec.name) {
            Some((tool, sealed)) if tool.spec == *spec && sealed == owner.credentials => {}
            Some(_) => changed.push(spec),
            None if taken.contains(&spec.name) => {
                let tool = spec.options.upstream.as_ref().map_or("", |origin| &origin.tool);
                settled.taken.push(LeftOut::new(tool, Reason::NameTaken));
            }
            None => new.push(spec),
        }
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (settled.added, settled.changed, settled.removed) =
        (count(new.len()), count(changed.len()), count(had.len()));
    if settled.count() == 0 {
        return Ok(settled);
    }
    let revision = tools::next_revision(tx).await?;
    for (tool, _) in had.into_values() {
        tools::remove(tx, revision, owner.tenant, &tool.spec.name, Some(owner.id)).await?;
    }
    let change = owner
        .credentials
        .clone()
        .map_or(CredentialsChange::Remove, CredentialsChange::Set);
    for spec in changed {
        tools::replace(tx, revision, owner.tenant, spec, &change, Some(owner.id)).await?;
    }
    for spec in new {
        tools::insert(
            tx,
            revision,
            owner.tenant,
            spec,
            owner.credentials.as_ref(),
            Some(owner.id),
        )
        .await?;
    }
    Ok(settled)
}

/// The names that other tools of the tenant have, of those that this upstream's may have.
async fn taken(tx: &mut Tx, owner: &Owner, wanted: &[ToolSpec]) -> Result<HashSet<String>> {
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    let call = TAKEN
        .bind(owner.tenant.0)
        .bind(owner.id.0)
        .bind(owner.prefix.clone());
    let rows = call.all::<(String,)>(&mut **tx).await?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}
