//! What every table of processes promises. Panics with what was expected.

#![expect(clippy::expect_used, reason = "a contract suite fails by panicking")]

use std::time::Duration;

use crate::ProcessIdentity;
use crate::ports::{MarkedProcess, ProcessTable};

/// Long enough for any machine; a kept promise takes milliseconds.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the promises of [`ProcessTable`].
///
/// `process` lives, carries `mark`, and obeys SIGTERM; nothing else carries it.
///
/// # Panics
/// When a promise is not kept.
pub async fn table(table: &dyn ProcessTable, mark: &str, process: &MarkedProcess) {
    let identity = &process.identity;
    let found = table.marked(mark);
    assert_eq!(found, std::slice::from_ref(process), "it is found with its service and its run");
    assert_eq!(table.marked(&format!("{mark}-of-nobody")), [], "a mark is compared whole");

    let later = ProcessIdentity { start_time: identity.start_time + 1, ..identity.clone() };
    let elsewhere = ProcessIdentity { boot_id: "another boot".to_owned(), ..identity.clone() };
    assert!(table.is_alive(identity), "what lives is alive");
    for stranger in [later, elsewhere] {
        assert!(!table.is_alive(&stranger), "a pid alone is nobody: {stranger}");
        let report = table.end(std::slice::from_ref(&stranger), Duration::ZERO).await;
        let report = report.expect("that nobody is there is no error");
        assert!(report.survivors.is_empty(), "nobody survives where nobody was");
        assert!(table.is_alive(identity), "who only has the same pid is not touched");
    }

    let report = table.end(std::slice::from_ref(identity), GRACE).await;
    let report = report.expect("what obeys can be ended");
    assert!(report.survivors.is_empty(), "it is gone: {:?}", report.survivors);
    assert!(!table.is_alive(identity), "what was ended is not alive, a zombie neither");
    assert_eq!(table.marked(mark), [], "what was ended is not found any more");
    let again = table.end(std::slice::from_ref(identity), GRACE).await;
    assert!(again.is_ok_and(|report| report.survivors.is_empty()), "ending it again is no error");
}
