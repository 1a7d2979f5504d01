//! `ide-supervisor.toml`: found, read, checked, and every mistake explained where it stands.
//!
//! The file is checked in three passes, each over the spans of the source, so that a mistake is always shown at its
//! line: syntax (the TOML parser), shape (the JSON Schema of the configuration types, which is also what
//! `config schema` prints; there is no second list of keys to keep in step), and meaning (the validation of the types,
//! the relations between services, the programs on this machine).
//!
//! **Invariant:** no error repeats a value out of an `environment` table; it may be a secret.

mod document;
mod error;
mod load;
mod locate;
mod meaning;
mod os;
mod program;
mod schema;
mod shape;
mod template;
mod wording;

pub use error::{ConfigFileError, Problem, Problems};
pub use load::{CONFIG_BYTES_MAX, ConfigFile};
pub use locate::{CONFIG_FILE_NAME, locate};
pub use program::find_program;
pub use schema::config_schema;
pub use template::{TEMPLATE, write_template};
