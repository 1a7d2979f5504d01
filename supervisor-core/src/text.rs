//! Text forms of durations, sizes and rates, used by serde, config files and error messages alike.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ConfigError;

/// Longest duration any setting accepts: 365 days.
///
/// Beyond it a value is a typing mistake, and adding it to a clock could overflow downstream.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses `"5s"`, `"1m 30s"`, `"250ms"` into a duration of at most [`DURATION_MAX`].
///
/// # Errors
/// [`ConfigError::Invalid`] naming `field` for anything else, negative and huge values included.
pub fn parse_duration(field: &str, text: &str) -> Result<Duration, ConfigError> {
    const ACCEPTED: &str =
        "a duration from \"0s\" to \"365days\" such as \"250ms\", \"5s\" or \"1m 30s\"";
    let duration =
        humantime::parse_duration(text).map_err(|_| ConfigError::invalid(field, text, ACCEPTED))?;
    if duration > DURATION_MAX {
        return Err(ConfigError::invalid(field, text, ACCEPTED));
    }
    Ok(duration)
}

/// Formats a duration the way [`parse_duration`] reads it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Serde form of a [`Duration`] as text such as `"5s"`.
pub mod duration_text {
    use super::*;

    /// Writes the duration as text.
    ///
    /// # Errors
    /// Only what the serializer itself reports.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*duration))
    }

    /// Reads a duration from text.
    ///
    /// # Errors
    /// A message that says what is accepted.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration as text such as \"5s\" or \"1m 30s\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
                parse_duration("duration", text).map_err(E::custom)
            }
        }
        from.deserialize_str(Text)
    }
}

/// Serde form of an optional [`Duration`] as text or nothing.
pub mod optional_duration_text {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Wrapped(#[serde(with = "duration_text")] Duration);

    /// Writes the duration as text, or null.
    ///
    /// # Errors
    /// Only what the serializer itself reports.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(Wrapped).serialize(to)
    }

    /// Reads a duration from text, or null.
    ///
    /// # Errors
    /// A message that says what is accepted.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(from)?.map(|wrapped| wrapped.0))
    }
}

/// Stands for a duration's text form in JSON Schemas; readers of the schema know it by the name `Duration`.
#[cfg(feature = "schema")]
pub(crate) struct DurationText;

#[cfg(feature = "schema")]
impl schemars::JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration from \"0s\" to \"365days\", such as \"250ms\", \"5s\" or \"1m 30s\".",
            "pattern": "^\\s*([0-9]+\\s*[A-Za-zµ]+\\s*)+$|^0$",
        })
    }
}

/// A number of bytes, written `"16MiB"` in text (binary and decimal units are both read).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Makes a size of `n` KiB.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n * 1024)
    }

    /// Makes a size of `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }

    /// Gives the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library's own display rounds; a value that is written out and read back must not change.
        for (unit, name) in
            [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytesize::ByteSize::from_str(text).map(|size| Self(size.as_u64())).map_err(|_| {
            ConfigError::invalid("size", text, "a size such as \"64KiB\", \"16MiB\" or \"2GiB\"")
        })
    }
}

/// A share of processor time in percent of one core, written `"150%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuPercent(pub u32);

impl fmt::Display for CpuPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for CpuPercent {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| (1..=102_400).contains(percent))
            .map(Self)
            .ok_or_else(|| {
                ConfigError::invalid(
                    "cpu",
                    text,
                    "a percentage of one core from \"1%\" to \"102400%\", such as \"150%\"",
                )
            })
    }
}

macro_rules! serde_as_text {
    ($name:ty, $title:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(ByteSize, "ByteSize");
serde_as_text!(CpuPercent, "CpuPercent");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_out_of_range_names_the_field_and_what_is_accepted() {
        for bad in ["-5s", "99999999999999999999s", "400days", "5", "soon", ""] {
            let error = parse_duration("shutdown_timeout", bad).expect_err(bad);
            assert_eq!(error.field(), "shutdown_timeout");
            assert!(error.to_string().contains("250ms"), "{error}");
        }
        assert_eq!(parse_duration("x", "1m 30s").unwrap(), Duration::from_secs(90));
    }

    #[test]
    fn a_size_survives_being_written_and_read() {
        for bytes in [0, 1, 1023, 1024, 1025, 16 << 20, (16 << 20) + 1, 3 << 40] {
            let size = ByteSize(bytes);
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size, "{size}");
        }
        assert_eq!("2GB".parse::<ByteSize>().unwrap().bytes(), 2_000_000_000);
        assert!("-1MiB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn a_percentage_needs_its_sign_and_a_range() {
        assert_eq!("150%".parse::<CpuPercent>().unwrap(), CpuPercent(150));
        for bad in ["0%", "150", "-1%", "1e9%"] {
            assert!(bad.parse::<CpuPercent>().is_err(), "{bad}");
        }
    }
}
