//! The guardian's own log: what it refused and what went wrong, in a file in the state directory.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

/// Name of the file in the state directory.
const FILE: &str = "guardian.log";
/// Size at which it begins anew; what was in it is gone then.
const BYTES_MAX: u64 = 64 * 1024;

/// The log; what cannot be written is not missed.
#[derive(Debug)]
pub(super) struct Log(PathBuf);

impl Log {
    pub(super) fn open(state_dir: &Path) -> Self {
        Self(state_dir.join(FILE))
    }

    /// Adds a line.
    pub(super) fn say(&self, text: &str) {
        if std::fs::metadata(&self.0).is_ok_and(|found| found.len() > BYTES_MAX) {
            drop(File::create(&self.0));
        }
        let Ok(mut file) = File::options().create(true).append(true).open(&self.0) else { return };
        let now = DateTime::<Utc>::from(SystemTime::now());
        let now = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let pid = std::process::id();
        drop(file.write_all(format!("{now} guardian {pid}: {text}\n").as_bytes()));
    }
}
