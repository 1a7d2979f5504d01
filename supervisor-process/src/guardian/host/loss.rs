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

/// Kills what a lost guardian held, found by its marks and by the groups of its leaders, each process by its identity, and
/// tells its runs.
///
/// Services that would outlive their host are killed too: with the guardian their output has lost its reader and their
/// end its witness.
pub(super) async fn clean_up(link: &Arc<Link>, mark: &str) {
    link.ended(END).await;
    launch::end_unfinished(mark);
    let table = SystemProcessTable::new();
    loop {
        let runs = link.living_runs();
        let leaders: Vec<_> = runs.iter().map(|run| run.identity.clone()).collect();
        let mut identities = table.led_by(&leaders);
        identities.extend(table.marked(mark).into_iter().map(|process| process.identity));
        if let Err(error) = table.end(&identities, Duration::ZERO).await {
            tracing::error!(error = %chain(&error), "ending what the guardian held");
        }
        let left: HashSet<_> = table
            .marked(mark)
            .into_iter()
            .map(|process| (process.service, process.incarnation))
            .collect();
        let mut survivors = left.len();
        for run in link.living_runs() {
            let marked = left.contains(&(run.key.service.clone(), run.key.incarnation));
            let hidden = !marked && table.is_alive(&run.identity);
            survivors += usize::from(hidden);
            run.lost(!marked && !hidden);
        }
        if survivors == 0 {
            break;
        }
        tracing::error!(sets = survivors, "what the guardian held does not end; trying again");
        // poll: what survives a kill sleeps in the kernel; until it ends nothing is started in its place.
        tokio::time::sleep(AGAIN).await;
    }
    link.asked.cleaned.cancel();
}
