//! Telling a service that hangs from one that others keep from a processor.
//!
//! Two observations over a fifth of a second: how long the service's own threads wait for a processor, which the
//! kernel counts, and how much slower than alone anything runs here, which is tried out. A service that sleeps in a
//! dead-lock waits for no processor, however loaded the host is; one that uses the processors up itself is no victim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::ports::ChildHandle;
use supervisor_core::text::format_duration;

use crate::os;

/// How long is looked.
const LOOK: Duration = Duration::from_millis(200);
/// A host that runs less than this many times slower than free is busy, not overloaded.
const SLOW_MIN: f64 = 4.0;

/// What was seen during one look.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    took: Duration,
    processors: u32,
    had: Duration,
    waited: Duration,
    suspended: bool,
    slowdown: f64,
}

/// Looks why a service was late; nothing if it is its own doing or nothing is known.
pub(super) async fn doubt(
    child: Arc<dyn ChildHandle>,
    usual: Duration,
    timeout: Duration,
) -> Option<String> {
    let look = |child: Arc<dyn ChildHandle>| {
        let set: Vec<u32> = child.members().iter().map(|member| member.pid).collect();
        os::processor_time(&set)
    };
    let began = Instant::now();
    let first = Arc::clone(&child);
    let before = tokio::task::spawn_blocking(move || look(first)).await.ok()??;
    let slowdown = tokio::task::spawn_blocking(os::slowdown).await.ok()?;
    tokio::time::sleep(LOOK.saturating_sub(began.elapsed())).await;
    let after = tokio::task::spawn_blocking(move || look(child)).await.ok()??;
    let seen = Seen {
        took: began.elapsed(),
        processors: os::processors(),
        had: after.had.saturating_sub(before.had),
        waited: after.waited.saturating_sub(before.waited),
        suspended: after.suspended,
        slowdown,
    };
    tracing::debug!(?seen, ?usual, "a hang was weighed");
    seen.excuse(usual, timeout)
}

impl Seen {
    /// Gives the reason why the host is to blame, if it is.
    fn excuse(&self, usual: Duration, timeout: Duration) -> Option<String> {
        if self.suspended || self.had >= self.took * self.processors / 2 {
            return None;
        }
        if self.waited >= self.took / 2 {
            return Some(format!(
                "the host is overloaded: its threads waited {} of {} for a processor",
                millis(self.waited),
                millis(self.took)
            ));
        }
        let expected = usual.mul_f64(self.slowdown.min(1e6));
        if self.slowdown >= SLOW_MIN && !usual.is_zero() && expected >= timeout / 2 {
            return Some(format!(
                "the host is overloaded: programs run {:.0} times slower than alone, and its probe takes {} of {} then",
                self.slowdown,
                millis(usual),
                millis(timeout)
            ));
        }
        None
    }
}

fn millis(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    format_duration(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const QUIET: Seen = Seen {
        took: ms(200),
        processors: 2,
        had: ms(1),
        waited: ms(0),
        suspended: false,
        slowdown: 1.1,
    };

    #[test]
    fn a_service_that_sleeps_on_a_quiet_host_has_no_excuse() {
        assert_eq!(QUIET.excuse(ms(5), ms(1000)), None);
    }

    #[test]
    fn a_service_whose_threads_wait_for_a_processor_has_one() {
        let starved = Seen { waited: ms(150), ..QUIET };
        assert!(starved.excuse(ms(0), ms(1000)).unwrap().contains("150ms of 200ms"));
    }

    #[test]
    fn a_probe_that_usually_takes_a_moment_has_one_where_moments_take_long() {
        let slow = Seen { slowdown: 20.0, ..QUIET };
        assert!(slow.excuse(ms(30), ms(1000)).unwrap().contains("20 times slower"));
        assert_eq!(slow.excuse(ms(5), ms(1000)), None, "even then it had been answered in a tenth");
        assert_eq!(slow.excuse(ms(0), ms(1000)), None, "it never passed, so nothing is known");
    }

    #[test]
    fn a_busy_host_is_no_overloaded_one() {
        assert_eq!(Seen { slowdown: 3.0, ..QUIET }.excuse(ms(900), ms(1000)), None);
    }

    #[test]
    fn who_uses_the_processors_up_or_is_suspended_is_no_victim() {
        let hog = Seen { had: ms(390), waited: ms(190), slowdown: 9.0, ..QUIET };
        assert_eq!(hog.excuse(ms(900), ms(1000)), None);
        let suspended = Seen { suspended: true, waited: ms(190), slowdown: 9.0, ..QUIET };
        assert_eq!(suspended.excuse(ms(900), ms(1000)), None);
    }
}
