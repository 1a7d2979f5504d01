//! Starting one program, as the guardian starts them: in a session of its own, with a file mode mask that is told.

use super::super::plan::{Launched, Plan, Refused};
use crate::os::launch::{self, Leads};

/// Starts a program in a session of its own, with clean signals and only the three descriptors of the plan.
///
/// # Errors
/// [`Refused`]; nothing of the child is left.
pub(crate) fn launch(plan: &Plan<'_>) -> Result<Launched, Refused> {
    let launched = launch::launch(&launch::Plan {
        program: plan.program,
        arguments: plan.arguments,
        environment: plan.environment,
        working_dir: Some(plan.working_dir),
        stdio: plan.stdio.map(Some),
        limits: plan.limits,
        nice: plan.nice,
        oom_score_adj: plan.oom_score_adj,
        umask: Some(plan.umask),
        leads: Leads::Session,
    })?;
    Ok(Launched { pid: launched.number(), end: launched.pidfd, refused: launched.refused })
}
