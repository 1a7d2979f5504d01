//! Short digests over the columns of a row, stored beside them and compared when it is read.

use supervisor_core::error::DatabaseError;

/// Collects the columns of one row.
#[derive(Debug)]
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// Begins a row of a table; the same columns in another table give another digest.
    pub(crate) fn of(table: &str) -> Self {
        let digest = Self(blake3::Hasher::new());
        digest.text(table)
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        // Length first, or a byte that moves to the next column would change nothing.
        self.0.update(&(value.len() as u64).to_be_bytes());
        self.0.update(value);
        self
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn int(mut self, value: i64) -> Self {
        self.0.update(&value.to_be_bytes());
        self
    }

    /// A column that may be empty.
    pub(crate) fn maybe(self, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.int(1).int(value),
            None => self.int(0),
        }
    }

    pub(crate) fn finish(&self) -> i64 {
        let hash = self.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        i64::from_be_bytes(first)
    }

    /// Finishes a row whose number is given by the database when it is inserted.
    pub(crate) fn numbered(&self, number: i64) -> i64 {
        with_number(self.finish(), number)
    }
}

/// Adds a row's number to the digest of its other columns. The number is spread over all bits (SplitMix64's finish), so
/// that one flipped bit in it never cancels against one in the digest.
pub(crate) fn with_number(digest: i64, number: i64) -> i64 {
    let mut spread = number.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    spread = (spread ^ (spread >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    spread = (spread ^ (spread >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    digest.wrapping_add((spread ^ (spread >> 31)).cast_signed())
}

/// Compares a row's digest with the stored one; a row from before there were digests has none.
pub(crate) fn check(
    subject: impl FnOnce() -> String,
    stored: Option<i64>,
    wanted: i64,
) -> Result<(), DatabaseError> {
    match stored {
        Some(stored) if stored != wanted => Err(DatabaseError::Corrupt {
            subject: subject(),
            reason: "its digest does not fit its content".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_number_changes_the_digest() {
        for number in [0, 1, 77, i64::MAX] {
            for bit in 0..64 {
                assert_ne!(with_number(5, number), with_number(5, number ^ (1 << bit)));
            }
        }
    }

    #[test]
    fn bytes_that_move_to_the_next_column_change_the_digest() {
        let one = Digest::of("t").text("ab").text("c").finish();
        assert_ne!(one, Digest::of("t").text("a").text("bc").finish());
        assert_ne!(Digest::of("t").maybe(None).finish(), Digest::of("t").maybe(Some(0)).finish());
    }
}
