//! Signals by name, so that configuration and events read the same on every system.

use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;
use crate::text::serde_as_text;

macro_rules! signals {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A signal that can be sent to a service's set, written `"SIGTERM"`.
        ///
        /// **Windows:** `Term`, `Int`, `Hup` and `Quit` become a console control event or a close request, `Kill` ends the
        /// job object, the rest is refused when the service is registered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Signal {
            $(#[doc = $doc] $variant,)*
        }

        impl Signal {
            /// Every signal, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Gives the conventional name, `"SIGTERM"` for instance.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

signals! {
    Hup = "SIGHUP", "Reload, by convention.";
    Int = "SIGINT", "Interrupt, what Ctrl-C sends.";
    Quit = "SIGQUIT", "Quit with a core dump or a stack dump.";
    Abrt = "SIGABRT", "Abort; many runtimes dump their stacks.";
    Usr1 = "SIGUSR1", "Whatever the service says it means.";
    Usr2 = "SIGUSR2", "Whatever the service says it means.";
    Kill = "SIGKILL", "Ends the process at once; cannot be caught.";
    Stop = "SIGSTOP", "Suspends the process; cannot be caught.";
    Cont = "SIGCONT", "Resumes a suspended process.";
    Term = "SIGTERM", "Asks the process to end.";
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Signal {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        Self::ALL
            .iter()
            .copied()
            .find(|signal| signal.name() == upper || signal.name()[3..] == upper)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|signal| signal.name()).collect();
                ConfigError::invalid("signal", text, format!("one of {}", names.join(", ")))
            })
    }
}

serde_as_text!(Signal, "Signal");
