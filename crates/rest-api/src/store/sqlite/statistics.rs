//! What SQLite knows of itself.

use super::sql::{SqlStore, Statement};
use crate::store::{Result, StatementStatistics};
use std::path::{Path, PathBuf};

/// Without the write-ahead log, which is folded into it again and again.
pub(crate) const SIZE: Statement = Statement::new(
    "database.size",
    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
);

/// Where the file lies.
pub(crate) fn directory(store: &SqlStore) -> Option<PathBuf> {
    let options = store.write.connect_options();
    let file = options.get_filename();
    // What is in memory has a name that is no file's.
    let directory = file.is_file().then(|| file.parent())??;
    let here = directory.as_os_str().is_empty();
    Some(if here { Path::new(".") } else { directory }.to_owned())
}

/// SQLite keeps no count.
#[expect(clippy::unused_async, reason = "PostgreSQL's has to ask")]
pub(crate) async fn statements(_store: &SqlStore, _limit: u32) -> Result<StatementStatistics> {
    Ok(StatementStatistics::NotKept)
}
