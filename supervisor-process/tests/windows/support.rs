//! Starting, waiting, and telling who is who.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::config::ServiceSpec;
use supervisor_core::ports::{ChildHandle, ProcessSpawner, ProcessTable, SpawnRequest};
use supervisor_core::{Incarnation, ProcessIdentity};
use supervisor_process::SystemProcessTable;

/// Longest wait for anything; far above what a loaded machine needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn spawn(spawner: &dyn ProcessSpawner, spec: ServiceSpec) -> Box<dyn ChildHandle> {
    let request = SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    };
    spawner.spawn(request).await.unwrap()
}

/// Polls until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        // poll: the condition above, up to LIMIT.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes a file whole or not at all.
pub(crate) fn publish(path: &Path, text: &str) {
    let part = path.with_extension("part");
    std::fs::File::create(&part).unwrap().write_all(text.as_bytes()).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// Identities as a text.
pub(crate) fn told(identities: &[ProcessIdentity]) -> String {
    let line = |one: &ProcessIdentity| format!("{} {} {}\n", one.pid, one.start_time, one.boot_id);
    identities.iter().map(line).collect()
}

/// Identities from a text.
pub(crate) fn heard(text: &str) -> Vec<ProcessIdentity> {
    let identity = |line: &str| {
        let mut words = line.split(' ');
        ProcessIdentity {
            pid: words.next().unwrap().parse().unwrap(),
            start_time: words.next().unwrap().parse().unwrap(),
            boot_id: words.next().unwrap().to_owned(),
        }
    };
    text.lines().map(identity).collect()
}

/// Waits until every one of them is gone.
pub(crate) async fn all_gone(identities: &[ProcessIdentity]) {
    let table = SystemProcessTable::new();
    for identity in identities {
        let what = format!("{} is gone", identity.pid);
        eventually(&what, || (!table.is_alive(identity)).then_some(())).await;
    }
}
