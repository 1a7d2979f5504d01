//! What a host and a guardian say to each other.
//!
//! The first frame of either side has a form that never changes: [`MAGIC`], then versions. Everything after it is in
//! the version both understand; a host and a guardian without one part with a sentence that says so.

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::status::DroppedOutput;
use supervisor_core::{Incarnation, ServiceId, Signal};

use super::numbers::{policy, policy_number, signal, signal_number};
pub(super) use super::parts::{Exit, Held, Left};
use super::parts::{counts, dropped, left, service};
use super::wire::{Malformed, Reader, Writer};
use crate::capture::DropCause;

/// The first bytes of a connection in either direction.
const MAGIC: &[u8; 8] = b"IDEGUARD";
/// Oldest version this build speaks.
pub(super) const VERSION_MIN: u16 = 1;
/// Newest version this build speaks.
pub(super) const VERSION_MAX: u16 = 1;
/// Longest greeting: magic, versions, and a build's name.
pub(super) const GREETING_MAX: usize = 256;

/// Names one set within one guardian; never given out twice.
pub(super) type SetId = u32;
/// Names one request within one connection; 0 asks for no answer.
pub(super) type RequestId = u32;

/// The first frame of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) oldest: u16,
    pub(super) newest: u16,
    /// Name and version of the program, for people.
    pub(super) build: String,
}

impl Hello {
    /// The greeting of this build.
    pub(super) fn ours() -> Self {
        let (oldest, newest, build) = (VERSION_MIN, VERSION_MAX, build());
        Self { oldest, newest, build }
    }

    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::new();
        writer.bytes(MAGIC).u16(self.oldest).u16(self.newest).bytes(self.build.as_bytes());
        writer.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = greeted(body)?;
        let (oldest, newest) = (reader.u16()?, reader.u16()?);
        // A newer side may say more after this; what it is, only the version both speak tells.
        Ok(Self { oldest, newest, build: reader.text()? })
    }
}

/// The name of this build.
pub(super) fn build() -> String {
    concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Picks the version a greeting and this build both speak.
pub(super) fn common(hello: &Hello) -> Option<u16> {
    let newest = hello.newest.min(VERSION_MAX);
    (newest >= hello.oldest.max(VERSION_MIN)).then_some(newest)
}

/// The first frame of a guardian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Welcome {
    /// The connection is this host's.
    Accepted { version: u16, pid: u32, start_time: u64, build: String },
    /// It is not.
    Refused { why: Refusal, text: String },
}

/// Why a guardian refuses a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No version is spoken by both.
    Version,
    /// Another host is connected.
    Owned,
    /// Another guardian has this state directory.
    Elsewhere,
    /// It could not make itself ready.
    Unfit,
}

impl Welcome {
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::new();
        writer.bytes(MAGIC);
        match self {
            Self::Accepted { version, pid, start_time, build } => {
                writer.u16(*version).u32(*pid).u64(*start_time).bytes(build.as_bytes());
            }
            Self::Refused { why, text } => {
                writer.u16(0).u8(*why as u8).bytes(text.as_bytes());
            }
        }
        writer.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = greeted(body)?;
        Ok(match reader.u16()? {
            0 => {
                let why = match reader.u8()? {
                    0 => Refusal::Version,
                    1 => Refusal::Owned,
                    2 => Refusal::Elsewhere,
                    _ => Refusal::Unfit,
                };
                Self::Refused { why, text: reader.text()? }
            }
            version => {
                let (pid, start_time) = (reader.u32()?, reader.u64()?);
                Self::Accepted { version, pid, start_time, build: reader.text()? }
            }
        })
    }
}

fn greeted(body: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(body);
    if reader.bytes()? != MAGIC {
        return Err(Malformed("it is no greeting of this protocol"));
    }
    Ok(reader)
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spawn {
    pub(super) service: ServiceId,
    pub(super) incarnation: Incarnation,
    pub(super) policy: HostDeathPolicy,
    pub(super) program: Vec<u8>,
    pub(super) arguments: Vec<Vec<u8>>,
    pub(super) environment: Vec<Vec<u8>>,
    pub(super) working_dir: Vec<u8>,
    /// Standard input and output are a channel; they are handed to the host.
    pub(super) channel: bool,
    /// Resource, soft and hard value.
    pub(super) limits: Vec<(u32, u64, u64)>,
    pub(super) nice: Option<i32>,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) capture: Capture,
}

/// Where and how output is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capture {
    pub(super) directory: Vec<u8>,
    pub(super) max_bytes: u64,
    pub(super) files: u32,
    pub(super) max_line: u64,
    pub(super) max_rate: Option<u64>,
    pub(super) secrets: Vec<Vec<u8>>,
}

/// What a host asks of its guardian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Start a program.
    Spawn(Box<Spawn>),
    /// Signal a whole set.
    Signal { set: SetId, signal: Signal },
    /// Kill a whole set and confirm that it is empty, for at most so long; forget it then, if wanted.
    Kill { set: SetId, confirm_ms: u64, forget: bool },
    /// Name every set; those that are being killed for the loss of the host before are waited for.
    List,
    /// Forget a set that is empty.
    Forget { set: SetId },
    /// Hand over the channel of a set that outlived its host.
    Attach { set: SetId },
    /// Say that you are there.
    Ping,
    /// The first so many bytes of the recorded exits were read and acted upon.
    ForgetExits { upto: u64 },
    /// Say what of each service's output was not kept.
    Dropped,
}

impl Request {
    pub(super) fn encode(&self, id: RequestId) -> Option<Vec<u8>> {
        let mut writer = Writer::new();
        let mut kind = |number: u8| {
            writer.u8(number).u32(id);
        };
        match self {
            Self::Spawn(spawn) => {
                kind(1);
                spawn.encode(&mut writer);
            }
            Self::Signal { set, signal } => {
                kind(2);
                writer.u32(*set).u8(signal_number(*signal));
            }
            Self::Kill { set, confirm_ms, forget } => {
                kind(3);
                writer.u32(*set).u64(*confirm_ms).u8((*forget).into());
            }
            Self::List => kind(4),
            Self::Forget { set } => {
                kind(5);
                writer.u32(*set);
            }
            Self::Attach { set } => {
                kind(6);
                writer.u32(*set);
            }
            Self::Ping => kind(7),
            Self::Dropped => kind(9),
            Self::ForgetExits { upto } => {
                kind(8);
                writer.u64(*upto);
            }
        }
        writer.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<(RequestId, Self), Malformed> {
        let mut reader = Reader::new(body);
        let (kind, id) = (reader.u8()?, reader.u32()?);
        let request = match kind {
            1 => Self::Spawn(Box::new(Spawn::decode(&mut reader)?)),
            2 => Self::Signal { set: reader.u32()?, signal: signal(reader.u8()?)? },
            3 => Self::Kill {
                set: reader.u32()?,
                confirm_ms: reader.u64()?,
                forget: reader.u8()? != 0,
            },
            4 => Self::List,
            5 => Self::Forget { set: reader.u32()? },
            6 => Self::Attach { set: reader.u32()? },
            7 => Self::Ping,
            8 => Self::ForgetExits { upto: reader.u64()? },
            9 => Self::Dropped,
            _ => return Err(Malformed("a request of no known kind")),
        };
        reader.end()?;
        Ok((id, request))
    }
}

impl Spawn {
    fn encode(&self, writer: &mut Writer) {
        let bytes = |writer: &mut Writer, value: &Vec<u8>| {
            writer.bytes(value);
        };
        writer.bytes(self.service.as_str().as_bytes()).u64(self.incarnation.get());
        writer.u8(policy_number(self.policy)).bytes(&self.program);
        writer.list(&self.arguments, bytes);
        writer.list(&self.environment, bytes);
        writer.bytes(&self.working_dir).u8(self.channel.into());
        writer.list(&self.limits, |writer, (resource, soft, hard)| {
            writer.u32(*resource).u64(*soft).u64(*hard);
        });
        for wish in [self.nice, self.oom_score_adj] {
            writer.u8(wish.is_some().into()).i32(wish.unwrap_or(0));
        }
        let capture = &self.capture;
        writer.bytes(&capture.directory).u64(capture.max_bytes).u32(capture.files);
        writer.u64(capture.max_line).u64(capture.max_rate.map_or(0, |rate| rate.max(1)));
        writer.list(&capture.secrets, bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            service: service(reader)?,
            incarnation: Incarnation(reader.u64()?),
            policy: policy(reader.u8()?)?,
            program: reader.bytes()?,
            arguments: reader.list(Reader::bytes)?,
            environment: reader.list(Reader::bytes)?,
            working_dir: reader.bytes()?,
            channel: reader.u8()? != 0,
            limits: reader.list(|reader| Ok((reader.u32()?, reader.u64()?, reader.u64()?)))?,
            nice: wish(reader)?,
            oom_score_adj: wish(reader)?,
            capture: Capture {
                directory: reader.bytes()?,
                max_bytes: reader.u64()?,
                files: reader.u32()?,
                max_line: reader.u64()?,
                max_rate: Some(reader.u64()?).filter(|rate| *rate != 0),
                secrets: reader.list(Reader::bytes)?,
            },
        })
    }
}

fn wish(reader: &mut Reader<'_>) -> Result<Option<i32>, Malformed> {
    let (given, value) = (reader.u8()? != 0, reader.i32()?);
    Ok(given.then_some(value))
}

/// What a guardian says: answers to requests, and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A program runs. Its channel's pipes travel with the frame, if it has one. Niceness and OOM score may have been
    /// refused, each with this number of the system, 0 for none.
    Started { set: SetId, pid: u32, start_time: u64, channel: bool, refused: [i32; 2] },
    /// A program could not be started.
    NotStarted { step: u8, errno: i32 },
    /// It was done, or the system refused.
    Done { errno: i32 },
    /// What a kill achieved.
    Killed { killed: u32, left: Vec<Left> },
    /// Every set.
    Sets(Vec<Held>),
    /// A leader ended.
    Exited { set: SetId, exit: Exit },
    /// A set whose leader had ended is empty.
    Emptied { set: SetId },
    /// Windows: handles of the guardian's that the host takes over with the reply that follows.
    Handles(Vec<u64>),
    /// Output of a set has begun to be dropped.
    Dropping { set: SetId, cause: DropCause },
    /// What of each service's output was not kept.
    Dropped(Vec<(ServiceId, DroppedOutput)>),
}

impl Reply {
    pub(super) fn encode(&self, id: RequestId) -> Option<Vec<u8>> {
        let mut writer = Writer::new();
        let mut kind = |number: u8| {
            writer.u8(number).u32(id);
        };
        match self {
            Self::Started { set, pid, start_time, channel, refused: [nice, score] } => {
                kind(1);
                writer.u32(*set).u32(*pid).u64(*start_time).u8((*channel).into());
                writer.i32(*nice).i32(*score);
            }
            Self::NotStarted { step, errno } => {
                kind(2);
                writer.u8(*step).i32(*errno);
            }
            Self::Done { errno } => {
                kind(3);
                writer.i32(*errno);
            }
            Self::Killed { killed, left } => {
                kind(4);
                writer.u32(*killed);
                writer.list(left, |writer, left| {
                    writer.u32(left.pid).u64(left.start_time).u32(left.state.into());
                });
            }
            Self::Sets(sets) => {
                kind(5);
                writer.list(sets, |writer, held| held.encode(writer));
            }
            Self::Exited { set, exit } => {
                kind(6);
                writer.u32(*set);
                exit.encode(&mut writer);
            }
            Self::Emptied { set } => {
                kind(7);
                writer.u32(*set);
            }
            Self::Handles(handles) => {
                kind(8);
                writer.list(handles, |writer, handle| {
                    writer.u64(*handle);
                });
            }
            Self::Dropping { set, cause } => {
                kind(9);
                writer.u32(*set).u8(*cause as u8);
            }
            Self::Dropped(services) => {
                kind(10);
                writer.list(services, |writer, (service, dropped)| {
                    writer.bytes(service.as_str().as_bytes());
                    for count in counts(dropped) {
                        writer.u64(count);
                    }
                });
            }
        }
        writer.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<(RequestId, Self), Malformed> {
        let mut reader = Reader::new(body);
        let (kind, id) = (reader.u8()?, reader.u32()?);
        let reply = match kind {
            1 => Self::Started {
                set: reader.u32()?,
                pid: reader.u32()?,
                start_time: reader.u64()?,
                channel: reader.u8()? != 0,
                refused: [reader.i32()?, reader.i32()?],
            },
            2 => Self::NotStarted { step: reader.u8()?, errno: reader.i32()? },
            3 => Self::Done { errno: reader.i32()? },
            4 => Self::Killed { killed: reader.u32()?, left: reader.list(left)? },
            5 => Self::Sets(reader.list(Held::decode)?),
            6 => Self::Exited { set: reader.u32()?, exit: Exit::decode(&mut reader)? },
            7 => Self::Emptied { set: reader.u32()? },
            8 => Self::Handles(reader.list(Reader::u64)?),
            9 => {
                let (set, cause) = (reader.u32()?, usize::from(reader.u8()?));
                let cause = DropCause::ALL.get(cause).copied();
                Self::Dropping { set, cause: cause.ok_or(Malformed("a cause of no known kind"))? }
            }
            10 => Self::Dropped(reader.list(|reader| Ok((service(reader)?, dropped(reader)?)))?),
            _ => return Err(Malformed("a reply of no known kind")),
        };
        reader.end()?;
        Ok((id, reply))
    }
}
