//! What an image says of where it comes from.

use crate::workspace::Workspace;
use anyhow::Context;
use std::{env, process::Command};

/// From the last commit, so that the same sources make the same image.
pub(super) struct Provenance {
    /// Seconds since 1970: the time of everything in the image.
    pub(super) epoch: u64,
    revision: String,
    created: String,
}

impl Provenance {
    /// Asks git. Sources that are no clone have an unknown revision, and the time that `SOURCE_DATE_EPOCH` says, or 0.
    pub(super) fn of(workspace: &Workspace) -> anyhow::Result<Self> {
        let git = |args: &[&str]| -> Option<String> {
            let mut command = Command::new("git");
            command.args(args).current_dir(&workspace.root);
            let output = command.output().ok().filter(|output| output.status.success())?;
            Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
        };
        let given = env::var("SOURCE_DATE_EPOCH").ok();
        let epoch = match given.or_else(|| git(&["log", "-1", "--format=%ct"])) {
            Some(seconds) => seconds
                .parse()
                .with_context(|| format!("SOURCE_DATE_EPOCH={seconds}: expected seconds since 1970"))?,
            None => 0,
        };
        // Forty digits, and `-dirty` when something is not committed.
        let revision = git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
        Ok(Self {
            epoch,
            revision: revision.unwrap_or_else(|| "unknown".to_owned()),
            created: rfc3339(epoch),
        })
    }

    /// The build arguments of the Dockerfiles' labels.
    pub(super) fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![
            ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            ("REVISION", self.revision.clone()),
            ("CREATED", self.created.clone()),
        ]
    }
}

/// A time as RFC 3339 writes it, in UTC.
fn rfc3339(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    // Counted from 1 March of year 0, so that leap days end a year (Howard Hinnant's civil_from_days).
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
