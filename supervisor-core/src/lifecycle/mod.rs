//! The lifecycle of one service as a pure machine: `(state, now, event) -> effects`, plus the next deadline.
//!
//! ```text
//!                 start                 spawned, startup passed
//!  registered ───────────▶ starting ───────────────────────────▶ running ◀──▶ unhealthy
//!      ▲                     │  ▲                                  │              │
//!      │ start (needs        │  └───────────── backoff ◀───────────┤ exit         │ liveness lost
//!      │ dependencies)       │ exit, startup lost │                │              │
//!   stopped ◀────────────────┴────── stopping ◀───┼────────────────┴──────────────┘
//!      ▲                                 │        │ attempts or intensity used up
//!      └───────────── stop ──────────────┴────▶ failed ──(half-open retry, start)──▶ starting
//! ```
//!
//! Two axes are kept apart: what was asked for ([`Desired`](crate::state::Desired)) and what is
//! ([`Phase`](crate::state::Phase)). Every event has a meaning in every phase, if only "ignored".
//!
//! **Invariant:** no effect starts a run before the set of the one before it is known to be empty.
//! **Invariant:** an event of another incarnation changes nothing but [`Lifecycle::stale_events`].
//! **Invariant:** every change of a counter is stored by the step that made it.

mod commands;
mod effect;
mod event;
mod health;
mod machine;
mod probes;
mod running;
mod stopping;
mod timers;
mod turn;

pub use effect::{CommandFailure, Effect};
pub use event::{Ceiling, Command, Event, Notification, Now};
pub use machine::{DUMP_WAIT, KILL_CONFIRM, KILL_RETRY, LATE_MAX, Lifecycle, PENDING_COMMANDS_MAX};
