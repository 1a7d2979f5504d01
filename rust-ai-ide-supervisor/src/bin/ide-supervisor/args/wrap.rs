//! `wrap`: one server behind one client.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use supervisor_core::ServiceId;
use supervisor_core::text::format_duration;

use super::duration;

/// What a server may be silent for: below, one that a busy machine keeps from working would count as dead.
const SILENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(3600);

/// What client and server speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WrapProtocol {
    /// The language server protocol.
    Lsp,
    /// The Model Context Protocol over standard input and output.
    Mcp,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Wrap {
    /// What client and server speak.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) protocol: WrapProtocol,
    /// What it is called in messages and in the configuration; the program's name by default.
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<ServiceId>,
    /// Configuration file whose service of that name says how to run and restart the server; none is needed.
    #[arg(long, value_name = "FILE", requires = "name")]
    pub(crate) config: Option<PathBuf>,
    /// Directory in which `status`, `channels`, `events`, `logs` and `audit` show the server; wrapped servers share it.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// How long a server that owes an answer and does nothing may be silent before it is replaced, 2s to 1h; five times
    /// as long while it works.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = silence)]
    pub(crate) silence: Duration,
    /// The server and its arguments, after `--` or from the first word on that is no option; with --config those of the
    /// service by default.
    #[arg(trailing_var_arg = true, value_name = "COMMAND", required_unless_present = "config")]
    pub(crate) command: Vec<String>,
}

fn silence(text: &str) -> Result<Duration, String> {
    let silence = duration(text)?;
    if SILENCE.contains(&silence) {
        return Ok(silence);
    }
    let (least, most) = (format_duration(*SILENCE.start()), format_duration(*SILENCE.end()));
    Err(format!("a server may be silent for {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        wrap: Wrap,
    }

    #[test]
    fn what_follows_the_two_dashes_is_the_servers_whatever_it_looks_like() {
        let read = Whole::try_parse_from(["x", "--protocol", "lsp", "--", "srv", "--name", "-x"]);
        let wrap = read.unwrap().wrap;
        assert_eq!(wrap.command, ["srv", "--name", "-x"]);
        assert_eq!(wrap.name, None);
        assert!(Whole::try_parse_from(["x", "--protocol", "lsp"]).is_err());
        assert!(Whole::try_parse_from(["x", "--", "srv"]).is_err());
    }

    #[test]
    fn the_two_dashes_may_be_missing_as_some_clients_swallow_them() {
        let read = |words: &[&str]| Whole::try_parse_from(words).map(|whole| whole.wrap);
        let wrap = read(&["x", "--protocol", "lsp", "srv", "--name", "-x", "--", "y"]).unwrap();
        assert_eq!(wrap.command, ["srv", "--name", "-x", "--", "y"]);
        assert_eq!(wrap.name, None);
        let wrap = read(&["x", "--protocol", "lsp", "--", "srv", "--", "y"]).unwrap();
        assert_eq!(wrap.command, ["srv", "--", "y"]);
        let told = read(&["x", "--protocol", "lsp", "--nam", "a", "srv"]).unwrap_err().to_string();
        assert!(told.contains("--nam"), "a mistake is no server: {told}");
    }

    #[test]
    fn how_long_a_server_may_be_silent_is_kept_within_reason() {
        let read = |silence| {
            let line = ["x", "--protocol", "lsp", "--silence", silence, "--", "srv"];
            Whole::try_parse_from(line).map(|whole| whole.wrap.silence)
        };
        assert_eq!(read("10m").unwrap(), Duration::from_secs(600));
        for bad in ["0s", "1999ms", "61m", "soon", ""] {
            let told = read(bad).unwrap_err().to_string();
            assert!(told.contains("--silence"), "{told}");
        }
        assert!(read("1s").unwrap_err().to_string().contains("2s to 1h"));
    }
}
