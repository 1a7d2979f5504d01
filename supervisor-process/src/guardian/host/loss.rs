//! What is done when the guardian is gone and its host lives: everything it held is ended, so that what is started
//! again is no second copy.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::error::chain;
use supervisor_core::ports::ProcessTable;

use super::launch;
use super::link::Link;
use crate::SystemProcessTable;

/// How long a guardian that hung up may take to end before it is looked past.
const END: Duration = Duration::from_secs(2);
/// Pause before trying again to end what does not end.
const AGAIN: Duration = Duration::from_secs(1);

/// Kills what a lost guardian held, found by its marks and each process by its identity, and tells its runs.
///
/// Services that would outlive their host are killed too: with the guardian their output has lost its reader and their
/// end its witness.
pub(super) async fn clean_up(link: &Arc<Link>, mark: &str) {
    link.ended(END).await;
    launch::end_unfinished(mark);
    let table = SystemProcessTable::new();
    loop {
        let found = table.marked(mark);
        let identities: Vec<_> = found.iter().map(|process| process.identity.clone()).collect();
        if let Err(error) = table.end(&identities, Duration::ZERO).await {
            tracing::error!(error = %chain(&error), "ending what the guardian held");
        }
        let left: HashSet<_> = table
            .marked(mark)
            .into_iter()
            .map(|process| (process.service, process.incarnation))
            .collect();
        let runs = link.living_runs();
        for run in &runs {
            run.lost(!left.contains(&(run.key.service.clone(), run.key.incarnation)));
        }
        if left.is_empty() {
            break;
        }
        tracing::error!(sets = left.len(), "what the guardian held does not end; trying again");
        // poll: what survives a kill sleeps in the kernel; until it ends nothing is started in its place.
        tokio::time::sleep(AGAIN).await;
    }
    link.cleaned.cancel();
}
