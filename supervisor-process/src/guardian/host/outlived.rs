//! What the guardian kept of an earlier host: living sets, and records of ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use supervisor_core::error::ProcessError;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::ChildHandle;
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};

use super::super::exits;
use super::super::protocol::{Held, Reply, Request};
use super::GuardianSpawner;
use super::asking::Answer;
use super::child::{GuardianChild, Run};
use super::link::Link;
use crate::os::{self, Entry};

/// A set that outlived the host before this one, or the record of its end.
#[derive(Debug)]
pub struct Outlived {
    /// The service it was started for.
    pub service: ServiceId,
    /// The run.
    pub incarnation: Incarnation,
    /// Its leader.
    pub identity: ProcessIdentity,
    /// How its leader ended, if it has.
    pub status: Option<ExitStatus>,
    /// How runs of its service before it ended, as far as that is recorded and not forgotten; oldest first.
    pub earlier: Vec<(Incarnation, ExitStatus)>,
    run: Arc<Run>,
}

impl Outlived {
    /// Takes it over. Dropping it instead leaves it to the guardian.
    #[must_use]
    pub fn into_child(self) -> Box<dyn ChildHandle> {
        Box::new(GuardianChild(self.run))
    }
}

/// Asks a guardian what it holds; nothing if it is gone.
async fn listed(link: &Link) -> Option<Vec<Held>> {
    match link.ask(&Request::List).await {
        Ok(Answer { reply: Reply::Sets(held), .. }) => Some(held),
        _ => None,
    }
}

impl GuardianSpawner {
    /// Names the sets that outlived the host before this one, those whose end was only recorded included; each run once.
    ///
    /// Identity is proven: what the guardian names is its own child, and pid and start time are compared with the
    /// system's. A set that is left alone ends with the guardian's next loss of its host only if it is to die with it.
    ///
    /// # Errors
    /// [`ProcessError::Os`] when the guardian is gone or its records cannot be read; a retry may help.
    ///
    /// # Cancel safety
    /// Safe; call it again.
    pub async fn outlived(&self) -> Result<Vec<Outlived>, ProcessError> {
        let failed = |source: std::io::Error| ProcessError::Os {
            action: "asking the guardian what it holds".to_owned(),
            source: source.into(),
        };
        let gone = || failed(std::io::Error::other("it is gone; try again"));
        let link = self.link().await?;
        let held = listed(&link).await.ok_or_else(gone)?;
        let (records, read) = exits::read(&self.place.state_dir).map_err(failed)?;
        self.records_read.store(read, Ordering::Release);
        let boot_id = os::boot_id().to_owned();
        let mut found: Vec<Outlived> = Vec::new();
        let mut unproven = Vec::new();
        for held in held {
            let set = held.set;
            match self.take_over(&link, held, &boot_id).await {
                Some(outlived) => found.push(outlived),
                None => unproven.push(set),
            }
        }
        if !unproven.is_empty() {
            // Most likely it ended, and was reaped, since it was named; it is named with its end now.
            let again = listed(&link).await.ok_or_else(gone)?;
            for held in again.into_iter().filter(|held| unproven.contains(&held.set)) {
                let (service, pid) = (held.service.clone(), held.pid);
                match self.take_over(&link, held, &boot_id).await {
                    Some(outlived) => found.push(outlived),
                    None => tracing::error!(
                        %service,
                        pid,
                        "a set's identity is not what the guardian says; it is left alone"
                    ),
                }
            }
        }
        for record in &records {
            let known = |one: &Outlived| {
                one.service == record.service && one.incarnation >= record.incarnation
            };
            if found.iter().any(known) {
                continue;
            }
            found.retain(|one| one.service != record.service);
            let (pid, start_time) = (record.pid, record.start_time);
            let identity = ProcessIdentity { boot_id: boot_id.clone(), pid, start_time };
            let key = self.key(&record.service, record.incarnation);
            found.push(Outlived {
                run: Run::recorded(identity.clone(), key, record.status),
                service: record.service.clone(),
                incarnation: record.incarnation,
                identity,
                status: Some(record.status),
                earlier: Vec::new(),
            });
        }
        for one in &mut found {
            let before = records.iter().filter(|record| {
                record.service == one.service && record.incarnation < one.incarnation
            });
            one.earlier = before.map(|record| (record.incarnation, record.status)).collect();
        }
        Ok(found)
    }

    async fn take_over(&self, link: &Arc<Link>, held: Held, boot_id: &str) -> Option<Outlived> {
        let (pid, start_time) = (held.pid, held.start_time);
        let status = held.exit.as_ref().map(|exit| exit.status);
        let identity = ProcessIdentity { boot_id: boot_id.to_owned(), pid, start_time };
        // A leader that is listed as running and is not what was said has ended since, or somebody lies.
        let proven = status.is_some()
            || Entry::read(pid).is_some_and(|entry| entry.start_time == start_time);
        if !proven {
            return None;
        }
        let (service, incarnation, channel) =
            (held.service.clone(), held.incarnation, held.channel);
        let key = self.key(&service, incarnation);
        let run = Run::held(link, held, identity.clone(), key);
        // Where a set is a job its host holds that too, channel or not.
        if (channel || cfg!(windows))
            && status.is_none()
            && let Ok(answer) = link.ask(&Request::Attach { set: run.set }).await
        {
            run.attach(answer.with);
        }
        Some(Outlived { service, incarnation, identity, status, earlier: Vec::new(), run })
    }

    /// Forgets the records of ends that [`outlived`](Self::outlived) named; what was recorded after it is kept.
    ///
    /// Call it when what they say is stored elsewhere.
    pub fn forget_recorded(&self) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let upto = self.records_read.swap(0, Ordering::AcqRel);
        if let Some(link) = known.filter(|_| upto > 0) {
            link.tell(&Request::ForgetExits { upto });
        }
    }
}
