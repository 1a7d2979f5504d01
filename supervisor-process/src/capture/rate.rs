//! How fast a service's output is kept.

use std::time::Instant;

use supervisor_core::text::ByteSize;

/// Keeps so many bytes a second, with one second's worth at once; the rest is dropped, counted and marked.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u64,
    room: u64,
    at: Instant,
    lines: u64,
    bytes: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Kept, after a note about those that were not.
    KeepAfter(String),
    Drop,
}

impl Rate {
    pub(super) const fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, room: per_second, at: now, lines: 0, bytes: 0 }
    }

    pub(super) const fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Makes the room that time gave.
    pub(super) fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_micros();
        let gained = elapsed.saturating_mul(u128::from(self.per_second)) / 1_000_000;
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        if gained > 0 {
            self.room = self.room.saturating_add(gained).min(self.per_second);
            self.at = now;
        }
    }

    /// Decides about a line. A line longer than a second's worth is kept when the room is full.
    pub(super) fn admit(&mut self, length: usize) -> Verdict {
        let length = length as u64 + 1;
        if self.room < length.min(self.per_second) {
            self.lines += 1;
            self.bytes += length;
            return Verdict::Drop;
        }
        self.room = self.room.saturating_sub(length);
        self.note().map_or(Verdict::Keep, Verdict::KeepAfter)
    }

    /// Tells what was dropped since it was told last.
    pub(super) fn note(&mut self) -> Option<String> {
        let (lines, bytes) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.bytes));
        (lines > 0).then(|| {
            let limit = ByteSize(self.per_second);
            format!("{lines} lines ({bytes} bytes) were dropped here: more than {limit} a second")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_above_the_rate_is_dropped_counted_and_told_once() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        assert_eq!(rate.admit(59), Verdict::Keep);
        assert_eq!(rate.admit(39), Verdict::Keep);
        assert_eq!(rate.admit(9), Verdict::Drop);
        assert_eq!(rate.admit(19), Verdict::Drop);
        rate.advance(start + Duration::from_millis(500));
        let Verdict::KeepAfter(note) = rate.admit(39) else { panic!("it fits again") };
        assert!(note.starts_with("2 lines (30 bytes)"), "{note}");
        assert_eq!(rate.admit(5), Verdict::Keep);
    }

    #[test]
    fn a_line_above_a_seconds_worth_is_kept_once_the_room_is_full() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        assert_eq!(rate.admit(1000), Verdict::Keep);
        assert_eq!(rate.admit(1000), Verdict::Drop);
        rate.advance(start + Duration::from_secs(3600));
        assert!(matches!(rate.admit(1000), Verdict::KeepAfter(_)));
        assert_eq!(rate.admit(1000), Verdict::Drop);
    }
}
