//! Prints measurements as one aligned table.

use super::measurement::{Better, Measurement, Verdict};

const HEAD: [&str; 7] = ["bench", "value", "floor", "ratio", "target", "", "note"];

pub(crate) fn render(measurements: &[Measurement]) -> String {
    if measurements.is_empty() {
        return "no benchmark was found: a crate adds one as a [[bench]] with `harness = false`"
            .to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(measurements.iter().map(row));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(move |row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    let missed = measurements.iter().filter(|m| m.verdict() == Verdict::Missed).count();
    let aimed = measurements.iter().filter(|m| m.verdict() != Verdict::NoTarget).count();
    format!("{}\n\n{} of {aimed} targets met", lines.join("\n"), aimed - missed)
}

/// One measurement on a line of its own, while the others are still running.
pub(crate) fn one_line(measurement: &Measurement) -> String {
    let cells = row(measurement);
    cells.into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ")
}

fn row(measurement: &Measurement) -> [String; 7] {
    let Measurement { bench, value, unit, floor, ratio, target, better, note } = measurement;
    let bound = match better {
        Better::Lower => "<=",
        Better::Higher => ">=",
    };
    let verdict = match measurement.verdict() {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::NoTarget => "",
    };
    [
        bench.clone(),
        format!("{} {unit}", figure(*value)),
        floor.map(|floor| format!("{} {unit}", figure(floor))).unwrap_or_default(),
        ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
        target.map(|target| format!("{bound} {}", figure(target))).unwrap_or_default(),
        verdict.to_owned(),
        note.clone(),
    ]
}

/// Three significant digits, and no more places than that needs.
fn figure(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 4,
    };
    format!("{value:.places$}")
}

fn line(row: &[String; 7], widths: &[usize]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.chars().count());
        // Names and notes read from the left, figures line up at the right.
        let padded = match column {
            0 | 5 | 6 => format!("{cell}{padding}"),
            _ => format!("{padding}{cell}"),
        };
        text.push_str(&padded);
        text.push_str("  ");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::measurement::parse;
    use super::*;

    #[test]
    fn the_table_is_aligned_and_ends_with_a_count() {
        let lines = [
            r#"{"bench":"crash_to_running","value":1.2,"unit":"ms","floor":1.1,"ratio":1.09,"target":1.15}"#,
            r#"{"bench":"stop","value":250.0,"unit":"ms","target":100,"note":"1,000 services"}"#,
            r#"{"bench":"idle","value":0,"unit":"ticks"}"#,
        ];
        let measurements: Vec<_> = lines.iter().map(|line| parse(line).unwrap().unwrap()).collect();
        let expected = "\
bench               value    floor  ratio   target          note
crash_to_running  1.20 ms  1.10 ms  1.09x  <= 1.15  met
stop               250 ms                   <= 100  MISSED  1,000 services
idle              0 ticks

1 of 2 targets met";
        assert_eq!(render(&measurements), expected);
    }
}
