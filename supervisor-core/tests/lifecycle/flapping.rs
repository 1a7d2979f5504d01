//! Many services that fail together, under one budget: they must not come back together for ever.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::exit::ExitStatus;
use supervisor_core::lifecycle::{Command, Effect, Event, Lifecycle, Now};
use supervisor_core::policy::RestartBudget;
use supervisor_core::state::Phase;
use supervisor_core::{CommandId, Monotonic, ProcessIdentity};

/// Services that share one broken dependency.
const SERVICES: usize = 50;
/// How long each lives before it dies of it.
const LIFE: Duration = Duration::from_millis(1100);

struct Fleet {
    now: Duration,
    machines: Vec<Lifecycle>,
    budget: RestartBudget,
    /// When each service dies next.
    dies: Vec<Option<Duration>>,
    cured: bool,
    starts: Vec<Duration>,
}

impl Fleet {
    fn new(spec: &ServiceSpec) -> Self {
        let now = at(Duration::ZERO);
        let machine = |n: usize| {
            let id = format!("svc-{n}");
            let spec = Arc::new(ServiceSpec { id, ..spec.clone() });
            Lifecycle::new(spec, Duration::from_secs(5), n as u64, now).unwrap()
        };
        Self {
            now: Duration::ZERO,
            machines: (0..SERVICES).map(machine).collect(),
            budget: RestartBudget::new(SERVICES, now.monotonic),
            dies: vec![None; SERVICES],
            cured: false,
            starts: Vec::new(),
        }
    }

    fn feed(&mut self, n: usize, event: Event) {
        let mut queue = vec![event];
        while let Some(event) = queue.pop() {
            for effect in self.machines[n].step(at(self.now), event) {
                match effect {
                    Effect::AcquireBudget => {
                        let taken = self.budget.take(at(self.now).monotonic);
                        queue.push(match taken {
                            Ok(()) => Event::BudgetGranted,
                            Err(wait) => Event::BudgetDelayed { wait },
                        });
                    }
                    Effect::Spawn { incarnation } => {
                        self.starts.push(self.now);
                        self.dies[n] = (!self.cured).then(|| self.now + LIFE);
                        let identity =
                            ProcessIdentity { boot_id: "boot".into(), pid: 7, start_time: 7 };
                        queue.push(Event::Spawned { incarnation, identity });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Lets time pass, going from one thing that is due to the next.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let due = |n: usize| {
                let timer = self.machines[n].next_deadline().map(Monotonic::since_origin);
                [timer, self.dies[n]].into_iter().flatten().min()
            };
            let next = (0..SERVICES).filter_map(|n| due(n).map(|at| (at, n))).min();
            let Some((time, n)) = next.filter(|(time, _)| *time <= until) else { break };
            self.now = self.now.max(time);
            let incarnation = self.machines[n].incarnation();
            let event = match self.dies[n].take_if(|at| *at <= self.now) {
                Some(_) => Event::Exited {
                    incarnation,
                    status: ExitStatus::Code(1),
                    set_empty: true,
                    last_lines: Vec::new(),
                },
                None => Event::Tick,
            };
            self.feed(n, event);
        }
        self.now = until;
    }

    fn started_between(&self, from: Duration, to: Duration) -> usize {
        self.starts.iter().filter(|at| (from..to).contains(*at)).count()
    }
}

fn at(time: Duration) -> Now {
    let wall = DateTime::UNIX_EPOCH + chrono::TimeDelta::from_std(time).unwrap();
    Now { monotonic: Monotonic::from_origin(time), wall }
}

fn flapping(spec: ServiceSpec) -> Fleet {
    let mut fleet = Fleet::new(&spec);
    for n in 0..SERVICES {
        let command = Command::Start;
        fleet.feed(n, Event::Commanded { id: CommandId(1), command });
    }
    fleet
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn fifty_services_that_live_a_moment_and_die_slow_down_spread_out_and_heal_within_one_cap() {
    let spec = ServiceSpec {
        restart_policy: RestartPolicy::ExponentialBackoff {
            base_delay: secs(1),
            max_delay: secs(60),
            max_attempts: u32::MAX,
        },
        restart_intensity: supervisor_core::config::RestartIntensity::UNLIMITED,
        restart_jitter: Some(0.5),
        ..ServiceSpec::new("svc", "program").unwrap()
    };
    let mut fleet = flapping(spec);
    fleet.pass(secs(600));
    // Growing: living longer than a moment is no stability.
    let attempts: Vec<_> = fleet.machines.iter().map(|machine| machine.state().attempt).collect();
    assert!(attempts.iter().all(|attempt| *attempt >= 8), "{attempts:?}");
    let (early, late) =
        (fleet.started_between(secs(1), secs(61)), fleet.started_between(secs(540), secs(600)));
    assert!(late * 3 < early, "{early} starts in the first minute, {late} in the last");
    // Spread: no tenth of a second sees many of them again.
    let busiest = (5400..6000)
        .map(|tenth| {
            fleet.started_between(
                Duration::from_millis(tenth * 100),
                Duration::from_millis(tenth * 100 + 100),
            )
        })
        .max();
    assert!(busiest <= Some(10), "{busiest:?} of {SERVICES} came back at once");
    fleet.cured = true;
    fleet.pass(secs(62));
    let phases: Vec<_> = fleet.machines.iter().map(Lifecycle::phase).collect();
    assert!(phases.iter().all(|phase| *phase == Phase::Running), "{phases:?}");
    fleet.pass(secs(61));
    assert!(fleet.machines.iter().all(|machine| machine.state().attempt == 0), "stable at last");
}

#[test]
fn restarts_of_all_services_together_never_exceed_the_budget() {
    let spec = ServiceSpec {
        restart_policy: RestartPolicy::Always,
        restart_intensity: supervisor_core::config::RestartIntensity::UNLIMITED,
        ..ServiceSpec::new("svc", "program").unwrap()
    };
    let mut fleet = flapping(spec);
    fleet.pass(secs(60));
    for second in 1..59 {
        let within = fleet.started_between(secs(second), secs(second + 1));
        // A full bucket of fifty, and ten a second.
        assert!(within <= 60, "{within} starts in second {second}");
    }
    let sustained = fleet.started_between(secs(20), secs(60));
    assert!((350..=450).contains(&sustained), "{sustained} restarts in 40 s at ten a second");
}

#[test]
fn services_that_gave_up_together_try_again_through_the_budget_and_heal_after_the_cure() {
    let spec = ServiceSpec {
        restart_policy: RestartPolicy::ExponentialBackoff {
            base_delay: secs(1),
            max_delay: secs(2),
            max_attempts: 3,
        },
        half_open_after: Some(secs(30)),
        ..ServiceSpec::new("svc", "program").unwrap()
    };
    let mut fleet = flapping(spec);
    fleet.pass(secs(25));
    let failed = |fleet: &Fleet| {
        fleet.machines.iter().filter(|machine| machine.phase() == Phase::Failed).count()
    };
    assert_eq!(failed(&fleet), SERVICES);
    fleet.pass(secs(300));
    assert!(failed(&fleet) > SERVICES / 2, "they try and fail");
    fleet.cured = true;
    // One pause, one life that was still cut short, and the budget.
    fleet.pass(secs(30) + LIFE + secs(30));
    assert_eq!(failed(&fleet), 0);
}
