//! `wrap`: one server behind one client.

use std::path::PathBuf;

use clap::ValueEnum;
use supervisor_core::ServiceId;

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
    /// The server and its arguments, after `--`; with --config those of the service by default.
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "config")]
    pub(crate) command: Vec<String>,
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
}
