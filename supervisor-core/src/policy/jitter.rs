//! Spreading delays so that what failed together does not come back together.

use std::time::Duration;

/// Shortens `delay` by a random part of at most `spread` (0.0 to 1.0) of it.
///
/// Only ever shortens, so that a configured maximum stays one; a spread of 1.0 is what is called full jitter.
#[must_use]
pub fn jittered(delay: Duration, spread: f64, random: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what a f64 holds")]
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    delay.mul_f64(1.0 - spread.clamp(0.0, 1.0) * unit)
}

/// A seeded stream of random numbers (SplitMix64), so that a machine gives the same effects for the same seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMix(u64);

impl SplitMix {
    /// Starts the stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Gives the next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_ever_shortens_and_stays_within_its_share() {
        let delay = Duration::from_secs(10);
        let mut random = SplitMix::new(7);
        for _ in 0..1000 {
            let spread = jittered(delay, 0.1, random.next_u64());
            assert!(spread <= delay && spread >= Duration::from_secs(9), "{spread:?}");
        }
        assert_eq!(jittered(delay, 0.0, u64::MAX), delay);
        assert!(jittered(delay, 1.0, u64::MAX) < Duration::from_millis(1));
    }
}
