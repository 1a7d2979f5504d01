//! What requests and replies are made of.

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::ExitStatus;
use supervisor_core::status::DroppedOutput;
use supervisor_core::{Incarnation, ServiceId};

use super::numbers::{policy, policy_number};
use super::protocol::SetId;
use super::wire::{Malformed, Reader, Writer};

/// A process a kill left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) state: char,
}

/// A set as a guardian knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) set: SetId,
    pub(super) service: ServiceId,
    pub(super) incarnation: Incarnation,
    pub(super) policy: HostDeathPolicy,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) channel: bool,
    pub(super) exit: Option<Exit>,
}

/// How a leader ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// Nothing of the set is left.
    pub(super) empty: bool,
    /// Its last words.
    pub(super) lines: Vec<String>,
}

impl Held {
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u32(self.set).bytes(self.service.as_str().as_bytes());
        writer.u64(self.incarnation.get()).u8(policy_number(self.policy));
        writer.u32(self.pid).u64(self.start_time).u8(self.channel.into());
        writer.u8(self.exit.is_some().into());
        if let Some(exit) = &self.exit {
            exit.encode(writer);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            set: reader.u32()?,
            service: service(reader)?,
            incarnation: Incarnation(reader.u64()?),
            policy: policy(reader.u8()?)?,
            pid: reader.u32()?,
            start_time: reader.u64()?,
            channel: reader.u8()? != 0,
            exit: if reader.u8()? != 0 { Some(Exit::decode(reader)?) } else { None },
        })
    }
}

impl Exit {
    pub(super) fn encode(&self, writer: &mut Writer) {
        let (kind, number) = match self.status {
            ExitStatus::Code(code) => (0, code),
            ExitStatus::Signal(signal) => (1, signal),
            ExitStatus::Unknown => (2, 0),
        };
        writer.u8(kind).i32(number).u8(self.empty.into());
        writer.list(&self.lines, |writer, line| {
            writer.bytes(line.as_bytes());
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let status = match (reader.u8()?, reader.i32()?) {
            (0, code) => ExitStatus::Code(code),
            (1, signal) => ExitStatus::Signal(signal),
            _ => ExitStatus::Unknown,
        };
        Ok(Self { status, empty: reader.u8()? != 0, lines: reader.list(Reader::text)? })
    }
}

pub(super) const fn counts(dropped: &DroppedOutput) -> [u64; 6] {
    let DroppedOutput { rate_lines, rate_bytes, cut_lines, cut_bytes, unwritten_lines, aged_bytes } =
        *dropped;
    [rate_lines, rate_bytes, cut_lines, cut_bytes, unwritten_lines, aged_bytes]
}

pub(super) fn dropped(reader: &mut Reader<'_>) -> Result<DroppedOutput, Malformed> {
    Ok(DroppedOutput {
        rate_lines: reader.u64()?,
        rate_bytes: reader.u64()?,
        cut_lines: reader.u64()?,
        cut_bytes: reader.u64()?,
        unwritten_lines: reader.u64()?,
        aged_bytes: reader.u64()?,
    })
}

pub(super) fn left(reader: &mut Reader<'_>) -> Result<Left, Malformed> {
    Ok(Left {
        pid: reader.u32()?,
        start_time: reader.u64()?,
        state: char::from_u32(reader.u32()?).unwrap_or('?'),
    })
}

pub(super) fn service(reader: &mut Reader<'_>) -> Result<ServiceId, Malformed> {
    ServiceId::new(reader.text()?).map_err(|_| Malformed("a service has no valid name"))
}
