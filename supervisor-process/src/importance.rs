//! Saying that a service could not be ranked among others as it wishes.

use std::io;

use supervisor_core::config::ServiceSpec;

/// What was refused of a service's wishes, each with the reason; most often nothing.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) nice: Option<io::Error>,
    pub(crate) oom_score_adj: Option<io::Error>,
}

impl Refusals {
    /// Makes them of what the system said to niceness and OOM score, 0 for nothing.
    pub(crate) fn of_errnos([nice, oom_score_adj]: [i32; 2]) -> Self {
        let error = |errno| (errno != 0).then(|| io::Error::from_raw_os_error(errno));
        Self { nice: error(nice), oom_score_adj: error(oom_score_adj) }
    }

    /// Logs what was refused. A wish that was not granted is no reason not to run: the service keeps what it inherited.
    pub(crate) fn report(&self, spec: &ServiceSpec) {
        let wishes = [
            ("limits.nice", spec.limits.nice, &self.nice),
            ("limits.oom_score_adj", spec.limits.oom_score_adj, &self.oom_score_adj),
        ];
        for (field, wanted, refused) in wishes {
            let (Some(wanted), Some(error)) = (wanted, refused) else { continue };
            tracing::warn!(
                service = spec.id,
                field,
                wanted,
                %error,
                "the system refused this; the service runs with what it inherited"
            );
        }
    }
}
