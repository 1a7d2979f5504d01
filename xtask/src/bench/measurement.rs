//! One line of a benchmark: a value, its floor, and what was aimed at.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// What a benchmark prints, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measurement {
    /// What was measured, in `snake_case`.
    pub(crate) bench: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The least this could cost, measured in the same run, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<f64>,
    /// `value / floor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// The bound on the ratio, or on the value where there is no floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<f64>,
    /// Which side of the target is good.
    #[serde(default)]
    pub(crate) better: Better,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    #[default]
    Lower,
    Higher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// Measured for its own sake.
    NoTarget,
}

impl Measurement {
    pub(crate) fn verdict(&self) -> Verdict {
        let Some(target) = self.target else {
            return Verdict::NoTarget;
        };
        let figure = self.ratio.unwrap_or(self.value);
        let met = match self.better {
            Better::Lower => figure <= target,
            Better::Higher => figure >= target,
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

/// Reads a line: `None` when it is ordinary output, an error when it is a broken measurement.
pub(crate) fn parse(line: &str) -> Option<anyhow::Result<Measurement>> {
    line.starts_with("{\"bench\"").then(|| read(line))
}

fn read(line: &str) -> anyhow::Result<Measurement> {
    let mut measurement: Measurement = serde_json::from_str(line)?;
    let Some(floor) = measurement.floor else {
        return Ok(measurement);
    };
    ensure!(floor > 0.0, "the floor must be above zero");
    let ratio = measurement.value / floor;
    // A ratio that contradicts its own value and floor would be believed: refuse it. The allowance
    // is for figures rounded to two digits.
    let said = measurement.ratio.unwrap_or(ratio);
    ensure!(
        (said - ratio).abs() <= 0.01 + ratio * 0.05,
        "the ratio is {said}, but value / floor is {ratio:.3}"
    );
    measurement.ratio = Some(said);
    Ok(measurement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(line: &str) -> Measurement {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn the_documented_line_is_read() {
        let line = r#"{"bench":"crash_to_running","value":1.2,"unit":"ms","floor":1.1,"ratio":1.09,"target":1.15,"note":"p50"}"#;
        let measurement = good(line);
        assert_eq!(measurement.bench, "crash_to_running");
        assert_eq!(measurement.verdict(), Verdict::Met);
    }

    #[test]
    fn the_verdict_follows_the_side_that_is_better() {
        let slow = good(r#"{"bench":"a","value":2.0,"unit":"ms","floor":1.0,"target":1.15}"#);
        assert_eq!(slow.verdict(), Verdict::Missed);
        let many = good(r#"{"bench":"a","value":31,"unit":"x","target":30,"better":"higher"}"#);
        assert_eq!(many.verdict(), Verdict::Met);
        let few = good(r#"{"bench":"a","value":29,"unit":"x","target":30,"better":"higher"}"#);
        assert_eq!(few.verdict(), Verdict::Missed);
        assert_eq!(good(r#"{"bench":"a","value":1,"unit":"x"}"#).verdict(), Verdict::NoTarget);
    }

    #[test]
    fn a_missing_ratio_is_computed_and_a_false_one_is_refused() {
        let line = r#"{"bench":"a","value":3.0,"unit":"ms","floor":2.0}"#;
        assert_eq!(good(line).ratio, Some(1.5));
        let line = r#"{"bench":"a","value":3.0,"unit":"ms","floor":2.0,"ratio":1.0}"#;
        assert!(parse(line).unwrap().unwrap_err().to_string().contains("1.500"));
    }

    #[test]
    fn other_output_is_passed_over_and_a_broken_line_is_not() {
        assert!(parse("warming up").is_none());
        assert!(parse("{\"other\":1}").is_none());
        assert!(parse(r#"{"bench":"a","value":"fast"}"#).unwrap().is_err());
        assert!(parse(r#"{"bench":"a","value":1,"unit":"x","flor":1}"#).unwrap().is_err());
    }
}
