//! The guardian's own log: what it refused and what went wrong, in a file beside its socket.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

/// Name of the file in the state directory.
const FILE: &str = "guardian.log";
/// Size at which it begins anew; what was in it is gone then.
const BYTES_MAX: u64 = 64 * 1024;

/// The log; what cannot be written is not missed.
#[derive(Debug)]
pub(super) struct Log(Option<File>);

impl Log {
    pub(super) fn open(state_dir: &Path) -> Self {
        let mut options = OpenOptions::new();
        Self(options.create(true).append(true).mode(0o600).open(state_dir.join(FILE)).ok())
    }

    /// Adds a line.
    pub(super) fn say(&self, text: &str) {
        let Some(mut file) = self.0.as_ref() else { return };
        if file.metadata().is_ok_and(|found| found.len() > BYTES_MAX) {
            drop(file.set_len(0));
        }
        let now = DateTime::<Utc>::from(SystemTime::now());
        let now = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let pid = std::process::id();
        drop(file.write_all(format!("{now} guardian {pid}: {text}\n").as_bytes()));
    }
}
