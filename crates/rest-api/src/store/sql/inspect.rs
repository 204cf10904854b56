//! What the store tells of itself.

use super::{super::inspect as own, SqlStore, dialect};
use crate::store::{
    Result,
    inspect::{DatabaseView, InspectStore, PoolReport, ServerReport, StatementAsk},
};

#[async_trait::async_trait]
impl InspectStore for SqlStore {
    async fn database_view(&self, ask: &StatementAsk) -> Result<DatabaseView> {
        own::database_view(self, ask).await
    }

    fn pools(&self) -> Vec<PoolReport> {
        dialect::pools(self)
    }

    async fn server(&self) -> Result<ServerReport> {
        own::server(self).await
    }
}
