//! What SQLite tells somebody who looks for what is wrong.

use super::sql::{SqlStore, Statement};
use crate::store::{
    Result,
    inspect::{DatabaseView, ServerReport, SqliteReport, StatementAsk},
};
use sqlx::FromRow;

const FILE: Statement = Statement::new(
    "database.file",
    "SELECT sqlite_version() AS version, page_size, page_count, freelist_count AS free_pages
     FROM pragma_page_size, pragma_page_count, pragma_freelist_count",
);
const JOURNAL: Statement = Statement::new("database.journal", "PRAGMA journal_mode");

#[derive(FromRow)]
struct FileRow {
    version: String,
    page_size: i64,
    page_count: i64,
    free_pages: i64,
}

/// SQLite keeps no count.
#[expect(clippy::unused_async, reason = "PostgreSQL's has to ask")]
pub(crate) async fn database_view(_store: &SqlStore, _ask: &StatementAsk) -> Result<DatabaseView> {
    Ok(DatabaseView::NotKept)
}

/// From the file's header, and from the files themselves.
pub(crate) async fn server(store: &SqlStore) -> Result<ServerReport> {
    let file: Option<FileRow> = FILE.call().first(&store.read).await?;
    let file = file.ok_or(sqlx::Error::RowNotFound)?;
    let journal: Option<(String,)> = JOURNAL.call().first(&store.read).await?;
    let (page_size, page_count) = (file.page_size.unsigned_abs(), file.page_count.unsigned_abs());
    Ok(ServerReport::Sqlite(SqliteReport {
        version: file.version,
        journal_mode: journal.map_or_else(String::new, |(mode,)| mode),
        page_size,
        page_count,
        free_pages: file.free_pages.unsigned_abs(),
        size_bytes: page_size * page_count,
        wal_bytes: wal_bytes(store).await,
    }))
}

/// The write-ahead log lies beside the file. What is in memory has neither.
async fn wal_bytes(store: &SqlStore) -> Option<u64> {
    let options = store.write.connect_options();
    let mut path = options.get_filename().to_owned().into_os_string();
    path.push("-wal");
    Some(tokio::fs::metadata(path).await.ok()?.len())
}
