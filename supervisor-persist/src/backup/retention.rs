//! Which backups go, and when the next one is due. Decisions only: no clock, no file.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::types::{BackupReason, BackupSummary};

/// How many backups are kept, and for how long.
///
/// A backup goes when it is neither among the newest `keep` nor younger than `keep_for`, or when `at_most` newer sound
/// ones exist. The newest sound one, the newest sound one from before a migration, and damaged ones never go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRetention {
    /// So many of the newest stay however old they are; at least 1.
    pub keep: u64,
    /// A backup stays for this long, however many there are up to `at_most`.
    pub keep_for: Duration,
    /// Bound on the number of sound ones; at least `keep`.
    pub at_most: u64,
}

impl Default for BackupRetention {
    fn default() -> Self {
        Self { keep: 8, keep_for: Duration::from_secs(24 * 3600), at_most: 32 }
    }
}

/// Names what may go. `backups` are in order, the newest first.
pub(super) fn superseded(
    backups: &[BackupSummary],
    retention: BackupRetention,
    now: DateTime<Utc>,
) -> Vec<String> {
    let keep = retention.keep.max(1);
    let at_most = retention.at_most.max(keep);
    let sound = || backups.iter().filter(|backup| backup.health.is_sound());
    let upgrade =
        sound().find(|backup| matches!(backup.reason, BackupReason::BeforeMigration { .. }));
    sound()
        .zip(0_u64..)
        .filter(|(backup, place)| {
            let old = age(backup.created_at, now) > retention.keep_for;
            *place >= at_most || (*place >= keep && old)
        })
        .map(|(backup, _)| &backup.name)
        .filter(|name| upgrade.is_none_or(|upgrade| upgrade.name != **name))
        .cloned()
        .collect()
}

/// Age of something; what lies in the future has none, because then the clock went back and not the thing.
fn age(created_at: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    now.signed_duration_since(created_at).to_std().unwrap_or_default()
}

/// Tells whether a backup is due: there is none, the newest is damaged or older than `interval`, or the clock went
/// back behind it, for then its age is unknown.
#[must_use]
pub fn backup_due(newest: Option<&BackupSummary>, now: DateTime<Utc>, interval: Duration) -> bool {
    newest.is_none_or(|newest| {
        !newest.health.is_sound()
            || newest.created_at > now
            || age(newest.created_at, now) >= interval
    })
}

#[cfg(test)]
mod tests {
    use super::super::types::{BackupContent, BackupHealth};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + hour * 3600, 0).unwrap()
    }

    fn backup(number: u64, hour: i64) -> BackupSummary {
        BackupSummary {
            name: number.to_string(),
            number,
            created_at: at(hour),
            reason: BackupReason::Scheduled,
            bytes: 1,
            blake3: String::new(),
            content: BackupContent::default(),
            health: BackupHealth::Verified { at: at(hour) },
        }
    }

    /// One an hour, the newest first, numbered from 1.
    fn hourly(count: u64) -> Vec<BackupSummary> {
        (1..=count).rev().map(|n| backup(n, i64::try_from(n).unwrap())).collect()
    }

    const RULE: BackupRetention = BackupRetention { keep: 3, keep_for: HOUR, at_most: 6 };

    #[test]
    fn a_backup_goes_only_when_it_is_both_old_and_beyond_the_count() {
        assert_eq!(superseded(&hourly(5), RULE, at(5)), ["2", "1"]);
        let young = BackupRetention { keep_for: HOUR * 100, ..RULE };
        assert!(superseded(&hourly(5), young, at(5)).is_empty(), "the count alone removes nothing");
        assert!(superseded(&hourly(3), RULE, at(500)).is_empty(), "age alone removes nothing");
    }

    #[test]
    fn the_bound_on_their_number_holds_whatever_the_clock_says() {
        let young = BackupRetention { keep_for: HOUR * 100, ..RULE };
        assert_eq!(superseded(&hourly(8), young, at(8)), ["2", "1"]);
        assert_eq!(superseded(&hourly(8), young, at(-5000)), ["2", "1"]);
    }

    #[test]
    fn scenario_14_a_clock_that_jumps_prunes_nothing_that_count_or_age_protects() {
        assert!(superseded(&hourly(5), RULE, at(-9000)).is_empty(), "backwards: nothing is old");
        let kept = |jump| {
            let gone = superseded(&hourly(5), RULE, at(jump));
            hourly(5).into_iter().filter(|one| !gone.contains(&one.name)).count()
        };
        assert_eq!(kept(900_000), 3, "forwards: the newest three stay");
        // Taken after the clock went back: the newest by number, the oldest by its clock.
        let mut backups = hourly(5);
        backups.insert(0, backup(6, -9000));
        assert!(!superseded(&backups, RULE, at(5)).contains(&"6".to_owned()));
    }

    #[test]
    fn the_last_sound_backup_and_the_one_before_a_migration_never_go() {
        let mut backups = hourly(9);
        for backup in &mut backups {
            if backup.number != 2 && backup.number != 1 {
                backup.health = BackupHealth::Damaged { reason: "x".into() };
            }
        }
        assert!(superseded(&backups, BackupRetention { keep: 0, ..RULE }, at(900)) == ["1"]);
        backups[8].reason = BackupReason::BeforeMigration { from: 1, to: 2 };
        assert!(superseded(&backups, BackupRetention { keep: 0, ..RULE }, at(900)).is_empty());
    }

    #[test]
    fn a_backup_is_due_by_interval_by_damage_and_after_the_clock_went_back() {
        assert!(backup_due(None, at(0), HOUR));
        let mut newest = backup(1, 10);
        assert!(!backup_due(Some(&newest), at(10), HOUR));
        assert!(backup_due(Some(&newest), at(11), HOUR));
        assert!(backup_due(Some(&newest), at(9), HOUR));
        newest.health = BackupHealth::Damaged { reason: "x".into() };
        assert!(backup_due(Some(&newest), at(10), HOUR));
    }
}
