//! Runs test programs, passes on what they print, and adds up what they report.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::report;
use crate::shell::Cmd;

/// How long the output may stay open after the tests have ended. A process that a test left behind
/// holds it open for as long as it lives; an hour-long wait in CI would say less than an error.
const STRAGGLER_WAIT: Duration = Duration::from_secs(5);

/// Lines on their way from the tests to the terminal; the tests wait when the terminal is slow.
const LINES_MAX: usize = 256;

/// What the test programs of one run reported, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; others add nothing.
    fn add(&mut self, line: &str) {
        let result = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "));
        let Some((_, counts)) = result else { return };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs the tests; the second value is how they ended.
pub(crate) fn run(command: &Cmd) -> anyhow::Result<(Tally, anyhow::Result<()>)> {
    run_within(command, STRAGGLER_WAIT)
}

fn run_within(command: &Cmd, wait: Duration) -> anyhow::Result<(Tally, anyhow::Result<()>)> {
    report::command(&command.to_string());
    let mut child = command.command().stdout(Stdio::piped()).spawn()?;
    let lines = lines(child.stdout.take().context("the tests have no stdout")?);
    let mut tally = Tally::default();
    let mut status = None;
    loop {
        match lines.recv_timeout(wait) {
            Ok(line) => {
                tally.add(&line);
                report::result(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if status.is_some() => {
                let left = "a process that a test started still holds the tests' output open";
                return Ok((tally, Err(anyhow!("{left}: find it and end it in that test"))));
            }
            // Quiet, and perhaps over: the next silence decides.
            Err(RecvTimeoutError::Timeout) => status = child.try_wait()?,
        }
    }
    let status = child.wait()?;
    let outcome = match status.success() {
        true => Ok(()),
        false => Err(anyhow!("some tests failed ({status}); their names are listed above")),
    };
    Ok((tally, outcome))
}

/// The lines of a pipe, read on a thread that ends with the pipe.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    // Not joined: it ends when the pipe is closed or nobody listens, and holds nothing else.
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            // A test may print what is not UTF-8.
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_all_test_programs_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "said test result: ok. 9 passed; 9 failed",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 8, failed: 2, skipped: 1 });
        assert_eq!(tally.to_string(), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    #[cfg(unix)]
    fn a_failing_program_is_counted_and_reported() {
        let program =
            Cmd::new("sh").args(["-c", "echo 'test result: FAILED. 1 passed; 2 failed'; exit 1"]);
        let (tally, outcome) = run(&program).unwrap();
        assert_eq!(tally.to_string(), "1 passed, 2 failed");
        assert!(outcome.unwrap_err().to_string().contains("some tests failed"));
    }

    #[test]
    #[cfg(unix)]
    fn a_process_left_behind_is_an_error_and_not_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        let program =
            Cmd::new("sh").args(["-c", "sleep 600 & echo $! > pid"]).dir(directory.path());
        let outcome = run_within(&program, Duration::from_millis(100)).unwrap().1;
        let pid = std::fs::read_to_string(directory.path().join("pid")).unwrap();
        assert!(Cmd::new("kill").arg(pid.trim()).succeeds());
        assert!(outcome.unwrap_err().to_string().contains("still holds"));
    }
}
