//! Telling a service that hangs from one that others keep from a processor.
//!
//! Two observations over a fifth of a second: how long the service's own threads wait for a processor, which the
//! kernel counts and their state shows, and how much slower than alone anything runs here, which is tried out. A
//! service that sleeps in a dead-lock waits for no processor, however loaded the host is; one that uses the processors
//! up itself is no victim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::ports::ChildHandle;
use supervisor_core::text::format_duration;

use crate::os::{self, Thread};

/// How often is looked, and the pause between two looks.
const LOOKS: u32 = 10;
const STEP: Duration = Duration::from_millis(20);
/// A host that runs less than this many times slower than free is busy, not overloaded.
const SLOW_MIN: f64 = 4.0;

/// A service that uses this share of one processor works: timers of an idle runtime use a tenth of it.
const WORK_MIN: f64 = 0.02;

/// What was seen, all looks together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    took: Duration,
    processors: u32,
    had: Duration,
    /// Waits that ended, as the kernel counts them.
    waited: Duration,
    /// Time in which a thread wanted a processor and got none.
    stuck: Duration,
    suspended: bool,
    slowdown: f64,
}

/// Looks why a service was late; nothing if it is its own doing or nothing is known.
pub(super) async fn doubt(
    child: Arc<dyn ChildHandle>,
    usual: Duration,
    timeout: Duration,
) -> Option<String> {
    let seen = watch(child).await?;
    tracing::debug!(?seen, ?usual, "a hang was weighed");
    seen.excuse(usual, timeout)
}

/// Looks why a service is silent; nothing if it neither works nor is kept from it, or nothing is known.
pub(super) async fn excuse(child: Arc<dyn ChildHandle>) -> Option<String> {
    let seen = watch(child).await?;
    tracing::debug!(?seen, "a silence was weighed");
    seen.work().or_else(|| seen.excuse(Duration::ZERO, Duration::ZERO))
}

async fn watch(child: Arc<dyn ChildHandle>) -> Option<Seen> {
    // It reads some files for each thread, and computes for a moment: no work for a thread that serves others.
    let looking = tokio::task::spawn_blocking(move || child.members());
    let set: Arc<[u32]> = looking.await.ok()?.iter().map(|member| member.pid).collect();
    let trying = tokio::task::spawn_blocking(os::slowdown);
    let mut seen = Seen::nothing();
    let mut before = look(&set).await?;
    for _ in 0..LOOKS {
        tokio::time::sleep(STEP).await;
        let after = look(&set).await?;
        seen.add(&before, &after);
        before = after;
    }
    seen.slowdown = trying.await.ok()?;
    Some(seen)
}

async fn look(set: &Arc<[u32]>) -> Option<(Instant, Vec<Thread>)> {
    let set = Arc::clone(set);
    let threads = tokio::task::spawn_blocking(move || os::threads(&set)).await.ok()??;
    Some((Instant::now(), threads))
}

impl Seen {
    fn nothing() -> Self {
        Self {
            took: Duration::ZERO,
            processors: os::processors(),
            had: Duration::ZERO,
            waited: Duration::ZERO,
            stuck: Duration::ZERO,
            suspended: false,
            slowdown: 1.0,
        }
    }

    /// Adds what happened between two looks.
    fn add(&mut self, before: &(Instant, Vec<Thread>), after: &(Instant, Vec<Thread>)) {
        let step = after.0.duration_since(before.0);
        let mut stuck = false;
        for thread in &after.1 {
            self.suspended |= matches!(thread.state, 'T' | 't');
            let Some(earlier) = before.1.iter().find(|it| it.id == thread.id) else { continue };
            let had = thread.had.saturating_sub(earlier.had);
            self.had += had;
            self.waited += thread.waited.saturating_sub(earlier.waited);
            stuck |= earlier.state == 'R' && thread.state == 'R' && had < step / 10;
        }
        self.took += step;
        if stuck {
            self.stuck += step;
        }
    }

    /// Says that the service works, if it does; a stopped one does not, whatever its others do.
    fn work(&self) -> Option<String> {
        let busy = !self.suspended && self.had >= self.took.mul_f64(WORK_MIN);
        busy.then(|| {
            format!("it is at work: it used {} of {}", millis(self.had), millis(self.took))
        })
    }

    /// Gives the reason why the host is to blame, if it is.
    fn excuse(&self, usual: Duration, timeout: Duration) -> Option<String> {
        if self.suspended || self.had >= self.took * self.processors / 2 {
            return None;
        }
        let waited = self.waited.max(self.stuck);
        if waited >= self.took / 2 {
            return Some(format!(
                "the host is overloaded: its threads waited {} for a processor within {}",
                millis(waited),
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
        stuck: ms(0),
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
        assert!(
            starved.excuse(ms(0), ms(1000)).unwrap().contains("150ms for a processor within 200ms")
        );
    }

    #[test]
    fn a_thread_that_wants_a_processor_and_gets_none_waits_although_the_kernel_has_not_counted_it_yet()
     {
        let thread = |id, had, state| Thread { id, had: ms(had), waited: ms(0), state };
        let began = Instant::now();
        let mut seen = Seen::nothing();
        let before = (began, vec![thread(1, 5, 'R'), thread(2, 9, 'S')]);
        seen.add(&before, &(began + ms(20), vec![thread(1, 5, 'R'), thread(2, 9, 'S')]));
        assert_eq!((seen.stuck, seen.took, seen.had), (ms(20), ms(20), ms(0)));
        seen.add(&before, &(began + ms(20), vec![thread(1, 15, 'R'), thread(2, 9, 'S')]));
        assert_eq!((seen.stuck, seen.had), (ms(20), ms(10)), "one that runs is not stuck");
        assert!(Seen { processors: 2, ..seen }.excuse(ms(0), ms(1000)).is_some());
    }

    #[test]
    fn a_probe_that_usually_takes_a_moment_has_one_where_moments_take_long() {
        let slow = Seen { slowdown: 20.0, ..QUIET };
        assert!(slow.excuse(ms(30), ms(1000)).unwrap().contains("20 times slower"));
        assert_eq!(slow.excuse(ms(5), ms(1000)), None, "even then it had been answered in a tenth");
        assert_eq!(slow.excuse(ms(0), ms(1000)), None, "it never passed, so nothing is known");
    }

    #[test]
    fn a_silent_service_that_computes_is_at_work_and_one_that_only_keeps_timers_or_is_suspended_is_not()
     {
        let computes = Seen { had: ms(180), ..QUIET };
        assert_eq!(computes.work().unwrap(), "it is at work: it used 180ms of 200ms");
        assert_eq!(QUIET.work(), None);
        assert_eq!(Seen { suspended: true, ..computes }.work(), None);
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
