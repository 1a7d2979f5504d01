//! One run of the server: its set, its pipes, and since when it takes no byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{SpawnError, SpawnErrorKind};
use supervisor_core::exit::{ExitStatus, LAST_LINES_MAX};
use supervisor_core::ports::{ChildHandle, ProcessSpawner, SpawnRequest};
use supervisor_core::{Generation, Incarnation, Monotonic, ServiceId};
use supervisor_ipc::relay::Frames;
use supervisor_process::SystemProcessTable;
use tokio::process::{ChildStdin, ChildStdout};

use super::WrapOptions;
use super::pipe::{Inbox, Outbox, widen};
use super::spin::Spin;

/// How long a killed set is looked at before it is left alone.
const CONFIRM: Duration = Duration::from_secs(5);
/// Looks at what a set does that are closer to each other tell the same: processor time is counted in ticks of 10 ms,
/// so that a set at work may show none in between.
const LOOKS_APART: Duration = Duration::from_millis(200);
/// A look that comes so much too late means that this process stood still, and nobody is blamed for that time.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// A server takes no byte of what waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    since: Monotonic,
    pub(super) look_at: Monotonic,
}

impl Stall {
    pub(super) fn begins(now: Monotonic, options: &WrapOptions) -> Self {
        // Looked at twice until the deadline: the first look has nothing to compare with.
        Self { since: now, look_at: now + options.write_deadline / 2 }
    }

    /// Tells, after a look, whether it has lasted too long.
    pub(super) fn is_over(&mut self, now: Monotonic, busy: bool, options: &WrapOptions) -> bool {
        if now.since(self.look_at) > STOOD_STILL {
            *self = Self::begins(now, options);
            return false;
        }
        self.look_at = now + options.write_deadline / 2;
        let limit = if busy { options.write_deadline_busy } else { options.write_deadline };
        now.since(self.since) >= limit
    }
}

/// What a set was seen doing.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Monotonic,
    ticks: u64,
    busy: bool,
}

impl Look {
    /// One that wants a processor and gets none is at work, too: others keep it from that.
    fn next(last: Option<Self>, ticks: u64, runnable: bool, now: Monotonic) -> Self {
        match last {
            Some(last) if now.since(last.at) < LOOKS_APART => last,
            Some(last) => Self { at: now, ticks, busy: runnable || ticks > last.ticks },
            None => Self { at: now, ticks, busy: true },
        }
    }
}

/// One run of the server.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) generation: Generation,
    pub(super) child: Box<dyn ChildHandle>,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) frames: Frames,
    /// Something waits and no byte of it was taken yet.
    pub(super) stall: Option<Stall>,
    /// The relay wants to know when everything before this place is written.
    pub(super) tell_when_taken: Option<u64>,
    /// Whether its next answer is looked for.
    pub(super) spin: Spin,
    look: Option<Look>,
}

impl Running {
    pub(super) async fn start(
        spawner: &Arc<dyn ProcessSpawner>,
        service: &ServiceId,
        spec: &Arc<ServiceSpec>,
        options: &WrapOptions,
        generation: Generation,
    ) -> Result<Self, SpawnError> {
        let request = SpawnRequest {
            service: service.clone(),
            incarnation: Incarnation(generation.get()),
            spec: Arc::clone(spec),
            extra_environment: Vec::new(),
        };
        let child = spawner.spawn(request).await?;
        let unusable = |reason: String, source: Option<io::Error>| SpawnError {
            kind: SpawnErrorKind::Other,
            program: spec.command.clone(),
            reason,
            source,
        };
        let pipes = child
            .take_stdio()
            .ok_or_else(|| unusable("it has no pipes to talk over".to_owned(), None))?;
        let failed = |error| unusable("its pipes cannot be used".to_owned(), Some(error));
        widen(&pipes.stdin);
        widen(&pipes.stdout);
        let frames = || Frames::new(options.framing, options.frame_max, options.junk_max);
        Ok(Self {
            generation,
            stdin: Some(ChildStdin::from_std(pipes.stdin).map_err(failed)?),
            stdout: ChildStdout::from_std(pipes.stdout).map_err(failed)?,
            child,
            inbox: Inbox::new(options.framing, frames()),
            outbox: Outbox::default(),
            frames: frames(),
            stall: None,
            tell_when_taken: None,
            spin: Spin::new(options.cores),
            look: None,
        })
    }

    /// Tells whether the set used the processor since the last look, and whether its leader is stopped.
    ///
    /// The first look has nothing to compare with and says that it did.
    pub(super) fn look(&mut self, now: Monotonic) -> (bool, bool) {
        let Some(seen) = SystemProcessTable::new().activity(&self.child.identity()) else {
            return (false, false);
        };
        let look = Look::next(self.look, seen.ticks, seen.runnable, now);
        self.look = Some(look);
        (look.busy, seen.stopped)
    }

    /// Ends the set and gives the last lines of its standard error.
    pub(super) async fn end(self) -> Vec<String> {
        let report = self.child.kill_set(CONFIRM).await;
        for survivor in &report.survivors {
            tracing::warn!(%survivor, "a process of the server survived its kill");
        }
        self.child.last_lines(LAST_LINES_MAX)
    }

    /// Waits for the leader's end, for at most `limit`.
    pub(super) async fn ended_within(&self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.wait()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervisor_core::config::FramingKind;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn options() -> WrapOptions {
        let spec = WrapOptions::plain_spec("a", "b", Vec::new()).unwrap();
        WrapOptions::new(spec, FramingKind::Lsp).unwrap()
    }

    fn stalled_until(busy: bool, mut stall: Stall) -> u64 {
        let options = options();
        loop {
            let now = stall.look_at;
            if stall.is_over(now, busy, &options) {
                return now.since_origin().as_secs();
            }
        }
    }

    #[test]
    fn a_server_that_takes_no_byte_has_five_seconds_and_five_minutes_while_it_works() {
        let stall = Stall::begins(at(0), &options());
        assert_eq!(stalled_until(false, stall), 5);
        assert_eq!(stalled_until(true, stall), 300);
        let (mut slept, after) = (stall, at(3_600_000));
        assert!(!slept.is_over(after, false, &options()), "while this process stood still");
        assert_eq!(stalled_until(false, slept), 3605);
    }

    #[test]
    fn a_set_at_work_looked_at_twice_in_a_moment_is_at_work_both_times() {
        let mut look = None;
        for (now, ticks, runnable, busy) in [
            (0, 5, false, true),
            (1, 5, false, true),
            (1000, 5, false, false),
            (2000, 80, false, true),
            (2001, 80, false, true),
            (3000, 80, false, false),
            (4000, 80, true, true),
            (5000, 80, false, false),
        ] {
            look = Some(Look::next(look, ticks, runnable, at(now)));
            assert_eq!(look.unwrap().busy, busy, "at {now}");
        }
    }
}
