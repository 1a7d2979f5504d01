//! What services report of themselves, in sd_notify's words.
//!
//! The socket has an abstract name, so there is no file to leave behind and no path that could be too long. Who
//! sends is told by the kernel; a sender that does not carry our mark is not listened to.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, ServiceSpec};
use supervisor_core::lifecycle::{Event, Notification};
use supervisor_core::{Incarnation, ServiceId};

use crate::engine::Shared;
use crate::os;

/// Name of the variable that tells a service where to report.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Name of the variable that tells a service how often its heartbeat is looked for, in microseconds.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";

/// The socket of one engine.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    name: String,
    socket: Arc<os::CredentialSocket>,
}

impl NotifySocket {
    /// Listens under a name that follows from `mark`, so that a service that outlives its supervisor reports to the next
    /// one; under a name of its own if there is no mark or somebody has the name.
    pub(crate) fn open(mark: Option<&str>, random: u64) -> io::Result<Self> {
        let own = || format!("ide-supervisor-{}-{random:016x}", std::process::id());
        let name = mark.map_or_else(own, |mark| format!("ide-supervisor-{:016x}", number(mark)));
        let (name, socket) = match os::CredentialSocket::bind(&name) {
            Ok(socket) => (name, socket),
            Err(_) => (own(), os::CredentialSocket::bind(&own())?),
        };
        Ok(Self { name, socket: Arc::new(socket) })
    }

    /// Gives the variables that tell a service where and how often to report.
    pub(crate) fn variables(
        &self,
        spec: &ServiceSpec,
        default_period: Duration,
    ) -> impl Iterator<Item = (String, String)> {
        let heartbeat = |probe: &&ProbeSpec| {
            probe.kind == ProbeKind::Heartbeat && probe.role == ProbeRole::Liveness
        };
        let period =
            spec.probes.iter().find(heartbeat).map(|it| it.period.unwrap_or(default_period));
        let watchdog =
            period.map(|period| (WATCHDOG_VARIABLE.to_owned(), period.as_micros().to_string()));
        [(VARIABLE.to_owned(), format!("@{}", self.name))].into_iter().chain(watchdog)
    }

    /// Passes reports on until the engine is over.
    pub(crate) fn listen(&self, shared: &Arc<Shared>, mark: Arc<str>) {
        let (socket, over) = (Arc::clone(&self.socket), shared.over.clone());
        let shared = Arc::downgrade(shared);
        // Owned by the engine's token: it ends with the engine, which does not wait for it because nothing is lost.
        drop(tokio::spawn(async move {
            let () = over
                .run_until_cancelled_owned(receive(socket, shared, mark))
                .await
                .unwrap_or_default();
        }));
    }
}

/// FNV-1a: two marks with one number share nothing but a name, and the later one takes another.
fn number(mark: &str) -> u64 {
    mark.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

async fn receive(socket: Arc<os::CredentialSocket>, shared: Weak<Shared>, mark: Arc<str>) {
    loop {
        let Ok((pid, text)) = socket.receive().await else { return };
        let Some(shared) = shared.upgrade() else { return };
        let Some(marking) = os::marking(pid).filter(|marking| marking.mark == *mark) else {
            tracing::debug!(pid, "a report of a stranger was ignored");
            continue;
        };
        let Ok(service) = ServiceId::new(marking.service) else { continue };
        let incarnation = Incarnation(marking.incarnation);
        for notification in parse(&text) {
            let notification = match notification {
                Parsed::Plain(Notification::Status(text)) => {
                    Notification::Status(shared.redacted(&service, text))
                }
                Parsed::Plain(notification) => notification,
                Parsed::MainPid(pid) => match os::marking(pid).zip(os::identity_of(pid)) {
                    Some((other, identity))
                        if other.mark == *mark
                            && other.service == service.as_str()
                            && other.incarnation == incarnation.get() =>
                    {
                        Notification::MainPid(identity)
                    }
                    _ => continue,
                },
            };
            shared.report(&service, Event::Notified { incarnation, notification });
        }
    }
}

#[derive(Debug, PartialEq)]
enum Parsed {
    Plain(Notification),
    MainPid(u32),
}

fn parse(text: &str) -> Vec<Parsed> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some(Parsed::Plain(match (name, value) {
                ("READY", "1") => Notification::Ready,
                ("WATCHDOG", "1") => Notification::Watchdog,
                ("WATCHDOG", "trigger") => Notification::WatchdogTrigger,
                ("STOPPING", "1") => Notification::Stopping,
                ("EXTEND_TIMEOUT_USEC", micros) => {
                    Notification::ExtendTimeout(Duration::from_micros(micros.parse().ok()?))
                }
                ("STATUS", text) => Notification::Status(text.to_owned()),
                ("MAINPID", pid) => return Some(Parsed::MainPid(pid.parse().ok()?)),
                _ => return None,
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_read_and_others_ignored() {
        let parsed = parse(
            "READY=1\nSTATUS=loading 50%\nFDSTORE=1\nMAINPID=7\nEXTEND_TIMEOUT_USEC=x\nWATCHDOG=1\n",
        );
        assert_eq!(
            parsed,
            [
                Parsed::Plain(Notification::Ready),
                Parsed::Plain(Notification::Status("loading 50%".into())),
                Parsed::MainPid(7),
                Parsed::Plain(Notification::Watchdog),
            ]
        );
    }
}
