//! Errors that tell a client what became of a request no server answered.

use bytes::Bytes;
use serde_json::json;
use supervisor_core::Generation;

use crate::relay::{Id, failure, shortened};

/// Code of the error for a request a lost server was given: it may have been carried out, and is not repeated.
pub const INDETERMINATE: i64 = -32070;
/// Code of the error for a request no server was given.
pub const NOT_SENT: i64 = -32071;
/// Code of the error for a request whose time was up before a server could take it.
pub const EXPIRED: i64 = -32072;
/// Code of the error for a request that a bound refused.
pub const REJECTED: i64 = -32073;
/// Code of the error for a request that two servers in a row died of.
pub const DEAD_LETTERED: i64 = -32074;

/// How a request ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Indeterminate,
    NotSent,
    Expired,
    Rejected,
    DeadLettered,
}

impl Fate {
    const fn code(self) -> i64 {
        match self {
            Self::Indeterminate => INDETERMINATE,
            Self::NotSent => NOT_SENT,
            Self::Expired => EXPIRED,
            Self::Rejected => REJECTED,
            Self::DeadLettered => DEAD_LETTERED,
        }
    }

    /// The word [`supervisor_core::message::Outcome`] has for it.
    const fn outcome(self) -> &'static str {
        match self {
            Self::Indeterminate => "indeterminate",
            Self::NotSent => "not_sent",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Which request failed, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'c> {
    pub(super) id: &'c Id,
    pub(super) method: &'c str,
    pub(super) tool: Option<&'c str>,
    /// The server that had it last.
    pub(super) sent: Option<Generation>,
    /// Whether carrying it out twice does no harm.
    pub(super) repeatable: bool,
}

/// Answers a request with an error.
pub(super) fn failed(subject: &Subject<'_>, fate: Fate, reason: &str) -> Bytes {
    let sent = subject.sent.is_some();
    let what = subject.tool.map_or_else(
        || format!("`{}`", shortened(subject.method)),
        |tool| format!("the call of tool `{}`", shortened(tool)),
    );
    let fate_text = match fate {
        Fate::DeadLettered => "was given up, because the server died of it again and again",
        Fate::Expired if sent => "was interrupted, and its time was up before it could be repeated",
        Fate::Expired => "was not carried out: its time was up; trying again is safe",
        _ if sent && !subject.repeatable => {
            "may have been carried out and was not repeated; check before trying again"
        }
        _ if sent => "was interrupted; trying again is safe",
        _ => "was not carried out; trying again is safe",
    };
    let data = json!({
        "outcome": fate.outcome(),
        "sent": sent,
        "method": shortened(subject.method),
        "tool": subject.tool.map(shortened),
        "generation": subject.sent.map(Generation::get),
        "retryable": !sent || subject.repeatable,
        "reason": reason,
    });
    failure(Some(subject.id), fate.code(), &format!("{what} {fate_text} ({reason})"), Some(&data))
}
