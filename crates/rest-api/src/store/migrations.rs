//! The migrations that a start applies, with those that a test plants among them (`test_faults`).

use super::{Result, StoreError};
use chassis::faults::Fault;
use sqlx::{
    SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

/// Expands the schema as a next version would: this one knows nothing of it, and must work all the same.
const NEXT: Planted = Planted {
    version: 99_990_101_000_000,
    description: "next version",
    sql: "ALTER TABLE contexts ADD COLUMN next_version TEXT NOT NULL DEFAULT '';
          ALTER TABLE context_items ADD COLUMN next_version TEXT NOT NULL DEFAULT '';
          ALTER TABLE tools ADD COLUMN next_version TEXT NOT NULL DEFAULT '';
          ALTER TABLE api_keys ADD COLUMN next_version TEXT NOT NULL DEFAULT '';
          ALTER TABLE executions ADD COLUMN next_version TEXT NOT NULL DEFAULT '';
          CREATE TABLE next_version (id BIGINT NOT NULL)",
};
/// Fails after it has changed something, which must be undone.
const FAILING: Planted = Planted {
    version: 99_990_101_000_001,
    description: "failing migration",
    sql: "CREATE TABLE failing_migration (id BIGINT NOT NULL);
          INSERT INTO there_is_no_such_table VALUES (1)",
};

struct Planted {
    version: i64,
    description: &'static str,
    sql: &'static str,
}

/// Which schema the database is brought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    next: bool,
    failing: bool,
}

impl Schema {
    /// This version's, or what a test makes of it.
    pub fn of(faults: &[Fault]) -> Self {
        Self {
            next: faults.contains(&Fault::NextMigration),
            failing: faults.contains(&Fault::FailingMigration),
        }
    }

    /// What leads there from `ours`. A newer schema than that is accepted.
    pub(crate) fn migrator(self, ours: &Migrator) -> Migrator {
        let mut all: Vec<_> = ours.iter().cloned().collect();
        let planted = [(self.next, NEXT), (self.failing, FAILING)];
        let planted = planted
            .into_iter()
            .filter_map(|(wanted, one)| wanted.then_some(one));
        all.extend(planted.map(
            |Planted {
                 version,
                 description,
                 sql,
             }| {
                let sql = sql.into_sql_str();
                Migration::new(version, description.into(), MigrationType::Simple, sql, false)
            },
        ));
        let mut migrator = Migrator::with_migrations(all);
        migrator.set_ignore_missing(true);
        migrator
    }
}

/// What came of it; a migration that failed is told by its name.
pub(crate) fn told(migrator: &Migrator, done: std::result::Result<(), MigrateError>) -> Result<()> {
    done.map_err(|error| match error {
        MigrateError::ExecuteMigration(cause, version) => {
            let failed = migrator.iter().find(|one| one.version == version);
            let description = failed.map_or_else(String::new, |one| one.description.replace(' ', "_"));
            StoreError::Migration {
                name: format!("{version}_{description}"),
                cause,
            }
        }
        other => other.into(),
    })
}
