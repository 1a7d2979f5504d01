//! Numbers that stand for policies and signals in frames.

use supervisor_core::Signal;
use supervisor_core::config::HostDeathPolicy;

use super::wire::Malformed;

pub(super) const fn policy_number(policy: HostDeathPolicy) -> u8 {
    match policy {
        HostDeathPolicy::Die => 0,
        HostDeathPolicy::Outlive => 1,
    }
}

pub(super) const fn policy(number: u8) -> Result<HostDeathPolicy, Malformed> {
    match number {
        0 => Ok(HostDeathPolicy::Die),
        1 => Ok(HostDeathPolicy::Outlive),
        _ => Err(Malformed("a policy of no known kind")),
    }
}

pub(super) fn signal_number(signal: Signal) -> u8 {
    let at = Signal::ALL.iter().position(|known| *known == signal).unwrap_or(usize::MAX);
    u8::try_from(at).unwrap_or(u8::MAX)
}

pub(super) fn signal(number: u8) -> Result<Signal, Malformed> {
    let known = Signal::ALL.get(usize::from(number)).copied();
    known.ok_or(Malformed("a signal of no known kind"))
}
