//! Our own envelope without serde, where that is a large part of what a message costs: written with the same bytes, and read
//! where it has exactly the form in which we write it.
//!
//! **Invariant:** what is read here, serde reads in the same way (but for two levels more of nesting); everything else is left
//! to serde, errors included.

use std::io::{self, Write};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde_json::Value;
use supervisor_core::message::IpcMessage;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::Envelope;

/// Bytes of one piece of a frame whose length is bounded, put together before it is written.
struct Piece {
    bytes: [u8; 128],
    length: usize,
}

impl Piece {
    const fn new() -> Self {
        Self { bytes: [0; 128], length: 0 }
    }

    fn text(&mut self, text: &str) {
        let end = self.length + text.len();
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        let end = self.length + digits.len() - first;
        self.bytes[self.length..end].copy_from_slice(&digits[first..]);
        self.length = end;
    }

    /// Writes so many digits, with zeros in front.
    fn digits(&mut self, mut number: u32, digits: usize) {
        let end = self.length + digits;
        for place in self.bytes[self.length..end].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.length = end;
    }

    fn id(&mut self, id: Uuid) {
        let end = self.length + Hyphenated::LENGTH;
        id.hyphenated().encode_lower(&mut self.bytes[self.length..end]);
        self.length = end;
    }

    /// Writes RFC 3339 with as many groups of three decimals as are needed; false where that has another form.
    fn time(&mut self, time: DateTime<Utc>) -> bool {
        let (year, nanos) = (time.year(), time.nanosecond());
        let (Ok(year @ 0..=9999), 0..=999_999_999) = (u32::try_from(year), nanos) else {
            return false;
        };
        self.digits(year, 4);
        self.text("-");
        self.digits(time.month(), 2);
        self.text("-");
        self.digits(time.day(), 2);
        self.text("T");
        self.digits(time.hour(), 2);
        self.text(":");
        self.digits(time.minute(), 2);
        self.text(":");
        self.digits(time.second(), 2);
        match nanos {
            0 => {}
            _ if nanos % 1_000_000 == 0 => {
                self.text(".");
                self.digits(nanos / 1_000_000, 3);
            }
            _ if nanos % 1000 == 0 => {
                self.text(".");
                self.digits(nanos / 1000, 6);
            }
            _ => {
                self.text(".");
                self.digits(nanos, 9);
            }
        }
        self.text("Z");
        true
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.bytes[..self.length])
    }
}

pub(super) fn write_message(s: u64, message: &IpcMessage, to: &mut impl Write) -> io::Result<()> {
    let mut piece = Piece::new();
    piece.text(r#"{"k":"m","s":"#);
    piece.number(s);
    piece.text(r#","m":{"id":""#);
    piece.id(message.id);
    piece.text(r#"","message_type":"#);
    piece.write(to)?;
    write_text(&message.message_type, to)?;
    to.write_all(br#","payload":"#)?;
    write_value(&message.payload, to)?;
    let mut piece = Piece::new();
    piece.text(r#","timestamp":""#);
    if piece.time(message.timestamp) {
        piece.text(r#"","retry_count":"#);
    } else {
        to.write_all(br#","timestamp":"#)?;
        serde_json::to_writer(&mut *to, &message.timestamp)?;
        piece.length = 0;
        piece.text(r#","retry_count":"#);
    }
    piece.number(message.retry_count.into());
    piece.text("}}");
    piece.write(to)
}

pub(super) fn write_ack(s: u64, duplicate: bool, to: &mut impl Write) -> io::Result<()> {
    let mut piece = Piece::new();
    piece.text(r#"{"k":"a","s":"#);
    piece.number(s);
    piece.text(if duplicate { r#","d":true}"# } else { r#","d":false}"# });
    piece.write(to)
}

pub(super) fn write_reply(s: u64, reply: &Value, to: &mut impl Write) -> io::Result<()> {
    let mut piece = Piece::new();
    piece.text(r#"{"k":"r","s":"#);
    piece.number(s);
    piece.text(r#","p":"#);
    piece.write(to)?;
    write_value(reply, to)?;
    to.write_all(b"}")
}

fn write_text(text: &str, to: &mut impl Write) -> io::Result<()> {
    if plain_length(text.as_bytes()) < text.len() {
        return Ok(serde_json::to_writer(to, text)?);
    }
    to.write_all(b"\"")?;
    to.write_all(text.as_bytes())?;
    to.write_all(b"\"")
}

fn write_value(value: &Value, to: &mut impl Write) -> io::Result<()> {
    match value {
        Value::String(text) => write_text(text, to),
        Value::Array(items) => {
            to.write_all(b"[")?;
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    to.write_all(b",")?;
                }
                write_value(item, to)?;
            }
            to.write_all(b"]")
        }
        Value::Object(fields) => {
            to.write_all(b"{")?;
            for (at, (name, item)) in fields.iter().enumerate() {
                if at > 0 {
                    to.write_all(b",")?;
                }
                write_text(name, to)?;
                to.write_all(b":")?;
                write_value(item, to)?;
            }
            to.write_all(b"}")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(serde_json::to_writer(to, value)?),
    }
}

/// Counts the bytes at the beginning that stand for themselves inside of a JSON string.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    // The high bit of the first byte that is zero; bytes beyond it may have theirs, too, those before it have not.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut length = 0;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let escape = zero(word ^ (ONES * u64::from(b'\\')));
        let special = control | quote | escape;
        if special != 0 {
            return length + (special.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let rest = words.remainder();
    length + rest.iter().position(special).unwrap_or(rest.len())
}

/// Reads a message, an acknowledgement or an answer; nothing when it is anything else, or written in another way.
pub(super) fn read(frame: &[u8]) -> Option<Envelope> {
    let mut text = Text(frame.strip_prefix(br#"{"k":""#)?);
    let kind = text.byte()?;
    text.skip(br#"","s":"#)?;
    let s = text.number()?;
    let envelope = match kind {
        b'm' => Envelope::Message { s, m: text.message()? },
        b'a' => {
            text.skip(br#","d":"#)?;
            let d = text.skip(b"true").is_some();
            if !d {
                text.skip(b"false")?;
            }
            Envelope::Ack { s, d }
        }
        b'r' => {
            text.skip(br#","p":"#)?;
            Envelope::Reply { s, p: text.value()? }
        }
        _ => return None,
    };
    (text.0 == b"}").then_some(envelope)
}

/// What is left to be read.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn skip(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = self.take(length)?;
        // Nineteen digits always fit.
        if !(1..20).contains(&length) || (length > 1 && digits[0] == b'0') {
            return None;
        }
        Some(decimal(digits))
    }

    /// A string without anything escaped.
    fn text(&mut self) -> Option<&'a str> {
        self.skip(b"\"")?;
        let text = self.take(plain_length(self.0))?;
        self.skip(b"\"")?;
        std::str::from_utf8(text).ok()
    }

    fn value(&mut self) -> Option<Value> {
        let before = self.0;
        if let Some(text) = self.text() {
            return Some(Value::String(text.to_owned()));
        }
        self.0 = before;
        let mut values = serde_json::Deserializer::from_slice(before).into_iter();
        let value = values.next()?.ok()?;
        self.take(values.byte_offset())?;
        Some(value)
    }

    fn message(&mut self) -> Option<IpcMessage> {
        self.skip(br#","m":{"id":""#)?;
        let id = Uuid::try_parse_ascii(self.take(Hyphenated::LENGTH)?).ok()?;
        self.skip(br#"","message_type":"#)?;
        let message_type = self.text()?.to_owned();
        self.skip(br#","payload":"#)?;
        let payload = self.value()?;
        self.skip(br#","timestamp":"#)?;
        let timestamp = time(self.text()?.as_bytes())?;
        self.skip(br#","retry_count":"#)?;
        let retry_count = self.number()?.try_into().ok()?;
        self.skip(b"}")?;
        Some(IpcMessage { id, message_type, payload, timestamp, retry_count })
    }
}

/// Gives the number that these digits are.
fn decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Reads `2026-01-01T00:00:00Z`, with up to nine decimals.
fn time(text: &[u8]) -> Option<DateTime<Utc>> {
    let part = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        u32::try_from(decimal(digits)).ok()
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) || text.last() != Some(&b'Z') {
        return None;
    }
    let nanos = match text.len() {
        20 => 0,
        length @ 22..=30 if text[19] == b'.' => {
            part(20, length - 1)? * 10_u32.pow(u32::try_from(30 - length).ok()?)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(part(0, 4)?.try_into().ok()?, part(5, 7)?, part(8, 10)?)?;
    let time = date.and_hms_nano_opt(part(11, 13)?, part(14, 16)?, part(17, 19)?, nanos)?;
    Some(time.and_utc())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::MessageFrame;
    use super::*;

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{0,40}", any::<String>(), "[a-z\"\\\\\u{1}\u{1f}\u{7f}\u{80}ü✓]{0,20}"]
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            texts().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(texts(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn times() -> impl Strategy<Value = DateTime<Utc>> {
        let common = 0_i64..4_102_444_800;
        let seconds = prop_oneof![4 => common, 1 => -100_000_000_000_i64..400_000_000_000];
        let nanos = prop_oneof![
            Just(0_u32),
            (0_u32..1000).prop_map(|ms| ms * 1_000_000),
            (0_u32..1_000_000).prop_map(|us| us * 1000),
            0_u32..1_000_000_000,
        ];
        let leap = NaiveDate::from_ymd_opt(2016, 12, 31)
            .and_then(|date| date.and_hms_nano_opt(23, 59, 59, 1_500_000_000))
            .unwrap()
            .and_utc();
        prop_oneof![
            20 => (seconds, nanos).prop_map(|(seconds, nanos)| {
                DateTime::UNIX_EPOCH + TimeDelta::new(seconds, nanos).unwrap()
            }),
            1 => Just(leap),
        ]
    }

    fn messages() -> impl Strategy<Value = IpcMessage> {
        let all = (any::<u128>(), texts(), values(), times(), any::<u32>());
        all.prop_map(|(id, message_type, payload, timestamp, retry_count)| IpcMessage {
            id: Uuid::from_u128(id),
            message_type,
            payload,
            timestamp,
            retry_count,
        })
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        bytes
    }

    /// Whatever is read here is read the same by serde; what serde refuses is not read here.
    fn agree(frame: &[u8]) {
        if let Some(envelope) = read(frame) {
            let wanted = serde_json::from_slice::<Envelope>(frame).map_err(|e| e.to_string());
            assert_eq!(wanted, Ok(envelope), "{}", String::from_utf8_lossy(frame));
        }
    }

    /// Changes, removes, inserts or cuts at one place.
    fn spoilt(frame: &[u8], at: usize, byte: u8, how: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        match how % 4 {
            0 => frame[at] = byte,
            1 => drop(frame.remove(at)),
            2 => frame.insert(at, byte),
            _ => frame.truncate(at),
        }
        frame
    }

    proptest! {
        #[test]
        fn a_message_is_written_as_serde_would_and_read_as_it_was(s in any::<u64>(), m in messages()) {
            let bytes = written(|to| write_message(s, &m, to));
            let serde = serde_json::to_vec(&MessageFrame { k: "m", s, m: &m }).unwrap();
            prop_assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&serde));
            agree(&bytes);
        }

        #[test]
        fn an_acknowledgement_and_an_answer_are_written_as_serde_would(s in any::<u64>(), d in any::<bool>(), p in values()) {
            let ack = written(|to| write_ack(s, d, to));
            prop_assert_eq!(&ack, &serde_json::to_vec(&Envelope::Ack { s, d }).unwrap());
            agree(&ack);
            let reply = written(|to| write_reply(s, &p, to));
            agree(&reply);
            prop_assert_eq!(reply, serde_json::to_vec(&Envelope::Reply { s, p }).unwrap());
        }

        #[test]
        fn a_frame_that_is_spoilt_anywhere_is_read_as_serde_reads_it_or_left_to_serde(
            m in messages(),
            spoils in prop::collection::vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..40),
        ) {
            let bytes = written(|to| write_message(7, &m, to));
            let marks = [b'"', b'\\', b'}', b',', b'0', b'9', b'Z', b'.', b'-', b' '];
            for (at, byte, how) in spoils {
                let byte = if how < 128 { marks[byte as usize % marks.len()] } else { byte };
                agree(&spoilt(&bytes, at.index(bytes.len()), byte, how));
            }
        }
    }

    #[test]
    fn what_we_write_ourselves_is_read_without_serde() {
        let time = DateTime::UNIX_EPOCH + TimeDelta::new(1_800_000_000, 123_456_789).unwrap();
        for payload in [serde_json::json!("text"), serde_json::json!({ "a": [1, "ü\n"] })] {
            let m = IpcMessage {
                id: Uuid::from_u128(7),
                message_type: "index".into(),
                payload: payload.clone(),
                timestamp: time,
                retry_count: 3,
            };
            let bytes = written(|to| write_message(u64::MAX / 10, &m, to));
            assert_eq!(read(&bytes), Some(Envelope::Message { s: u64::MAX / 10, m }));
            let reply = written(|to| write_reply(9, &payload, to));
            assert_eq!(read(&reply), Some(Envelope::Reply { s: 9, p: payload }));
        }
        let ack = written(|to| write_ack(8, true, to));
        assert_eq!(read(&ack), Some(Envelope::Ack { s: 8, d: true }));
    }
}
