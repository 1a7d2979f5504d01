//! Ending with whoever started us.

use rust_ai_ide_supervisor::{Actor, Supervisor, SupervisorControl};
use tokio::io::AsyncReadExt;

/// Shuts down when standard input ends: the demo holds its other end, so its death by any route ends it.
pub(super) async fn end_with_parent(supervisor: Supervisor) {
    let mut nothing = [0; 64];
    let mut input = tokio::io::stdin();
    while matches!(input.read(&mut nothing).await, Ok(read) if read > 0) {}
    // Its outcome is told by the supervisor's own end.
    drop(supervisor.shutdown(Actor::Host).await);
}
