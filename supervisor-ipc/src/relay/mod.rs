//! Standing between a client and a server whose crash the client must not notice.
//!
//! A [`Relay`] decides and does nothing: bytes, losses and time go in as [`Input`], and an ordered list of
//! [`Output`] comes out, which a driver carries out without an opinion. One relay serves one client for the whole
//! life of that client; the server behind it may be started many times, and each of its runs is a generation.

mod blame;
mod envelope;
mod frames;
mod letter;
mod report;
mod starts;
mod walk;
mod write;

use std::fmt;

use bytes::Bytes;
use supervisor_core::exit::ExitStatus;
use supervisor_core::{Generation, Monotonic};

pub(crate) use blame::{BLAME_MAX, CRASH};
pub use envelope::{Envelope, Id, MALFORMED_DEPTH, Malformed, Shape};
pub use frames::Frames;
pub use letter::Letter;
pub(crate) use letter::{NOTHING_WAITS, shortened, shown_uri};
pub use report::{Ending, MessageCounts, PhaseTimes, RecoveryReport, telling};
pub(crate) use starts::Starts;
pub(crate) use walk::{member, members};
pub(crate) use write::written;
pub use write::{
    INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, failure, notification, request,
    success, with_id,
};

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The leader of its set ended; its output was read to the end, or for 200 ms when somebody else holds it open.
    Exited(ExitStatus),
    /// It closed its output and lives on.
    EndOfOutput,
    /// What it wrote cannot be cut into messages any more.
    Framing(String),
    /// It took no byte for the write deadline.
    WriteStalled,
    /// It was ended because the relay asked for it with [`Output::RestartServer`].
    Replaced(String),
    /// It could not be started.
    NotStarted(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the server ended: {status}"),
            Self::EndOfOutput => f.write_str("the server closed its output"),
            Self::Framing(reason) => write!(f, "the server's output is not readable: {reason}"),
            Self::WriteStalled => f.write_str("the server takes no more input"),
            Self::Replaced(reason) => f.write_str(reason),
            Self::NotStarted(reason) => write!(f, "the server cannot be started: {reason}"),
        }
    }
}

/// What happens to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The client sent a message: one frame without its framing.
    FromClient(Bytes),
    /// A server sent a message.
    FromServer {
        /// The run it comes from. The message of any run but the newest is dropped.
        generation: Generation,
        /// One frame without its framing.
        message: Bytes,
    },
    /// A server runs and can be written to. Generations only grow.
    ServerStarted {
        /// Its run.
        generation: Generation,
    },
    /// A run is over: its whole set is gone, and everything it wrote was given in before.
    ServerLost {
        /// The run, or the one that was to be, when it could not be started.
        generation: Generation,
        /// Why.
        loss: Loss,
        /// The last lines of its standard error, oldest first, at most 20.
        last_stderr: Vec<String>,
    },
    /// No further start is tried by itself.
    RestartGaveUp {
        /// Why, and what a person can do.
        reason: String,
    },
    /// What the server's set did since the last time it was looked at; the answer to [`Output::LookAtServer`].
    ServerSeen {
        /// The run.
        generation: Generation,
        /// Whether its set used the processor.
        busy: bool,
        /// Whether its leader is stopped, by a signal or a debugger.
        stopped: bool,
    },
    /// Nothing that was to be written to the server before [`Output::TellWhenTaken`] waits any more; the answer to it.
    Taken {
        /// The run.
        generation: Generation,
    },
    /// The client is gone: its end of the input was read.
    ClientGone,
    /// The time given by [`Relay::deadline`] has come. One that is late by more than two seconds blames nobody:
    /// it was this process that stood still.
    Tick,
}

/// What a driver has to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Write a message to the client.
    ToClient(Bytes),
    /// Write a message to the server of this generation; if that one is gone, drop it.
    ToServer {
        /// The run it is meant for.
        generation: Generation,
        /// One frame without its framing.
        message: Bytes,
    },
    /// Kill the set of the running server and start anew; [`Input::ServerLost`] with [`Loss::Replaced`] follows.
    RestartServer {
        /// Why: it hangs, or nothing it writes makes sense any more.
        reason: String,
    },
    /// Start a server now even though none is tried any more: the client asked for something, half-open.
    TryAgain,
    /// Look at the processor time of the server's set and answer with [`Input::ServerSeen`].
    LookAtServer {
        /// The run.
        generation: Generation,
    },
    /// Answer with [`Input::Taken`] once everything written to this server so far is in its pipe, or can no longer be
    /// given to it; at once if that is so already. What is written later does not count.
    TellWhenTaken {
        /// The run.
        generation: Generation,
    },
    /// The server has the client's whole state and answers; restart delays may begin to heal from here.
    Ready {
        /// The run.
        generation: Generation,
    },
    /// The client ended the session politely: whatever happens to the server now, it is not started again.
    EndServer,
    /// End the server: it gets a moment to end by itself, then its set is ended. [`EndServer`](Self::EndServer) came before.
    StopServer,
    /// Servers died of something, and none is given it any more; keep that.
    DeadLetter(Box<Letter>),
    /// An incident is over; tell people.
    Report(Box<RecoveryReport>),
    /// One line for people about something that is no incident, such as a wrongly named protocol.
    Notice(String),
}

/// Recovery of one protocol, without input and output.
///
/// **Invariants** every implementation keeps:
/// every request of the client is answered exactly once, unless the client is gone; an answer of one generation never
/// reaches a request that another generation was asked; nothing is written to a server before its handshake is done but
/// that handshake; when nothing is wrong, what is passed on is what came, byte for byte; memory is bounded whatever
/// either side sends, the client's own documents excepted.
pub trait Relay: Send + fmt::Debug {
    /// Takes one input at the time `now` and appends what has to be done to `out`.
    fn handle(&mut self, input: Input, now: Monotonic, out: &mut Vec<Output>);

    /// Gives the time at which [`Input::Tick`] is wanted, if any.
    fn deadline(&self) -> Option<Monotonic>;

    /// Tells what a person would ask first: is it connecting, ready, suspect, closed.
    fn state(&self) -> supervisor_core::message::ChannelState;

    /// Gives the number of messages that wait for a server.
    fn held(&self) -> usize;

    /// Lets a server have again what lies in the letter of this number, because somebody asked for that.
    ///
    /// # Errors
    /// Why that means nothing (any more). A retry does not help.
    fn requeue(&mut self, letter: u64, now: Monotonic, out: &mut Vec<Output>)
    -> Result<(), String>;

    /// Gives the number of requests the running server was given and has not answered.
    fn owed(&self) -> usize;

    /// Gives when the first of the requests that wait for a server fails because none came, if any waits.
    fn held_until(&self) -> Option<Monotonic>;
}
