//! The configuration file `config init` writes.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::ConfigFileError;

/// A commented configuration file that is valid as it stands and shows the settings most people need.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Writes [`TEMPLATE`] to `path`, which must not exist.
///
/// # Errors
/// [`ConfigFileError::AlreadyExists`], which leaves the file there untouched, or [`ConfigFileError::Write`].
pub fn write_template(path: &Path) -> Result<(), ConfigFileError> {
    let written =
        OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
            file.write_all(TEMPLATE.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| {
        let path = path.to_owned();
        if source.kind() == ErrorKind::AlreadyExists {
            ConfigFileError::AlreadyExists { path }
        } else {
            ConfigFileError::Write { path, source }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file::ConfigFile;

    #[test]
    fn the_template_is_valid_as_it_stands() {
        let config = ConfigFile::parse("ide-supervisor.toml", TEMPLATE).unwrap();
        assert_eq!(config.services.len(), 1);
    }

    #[test]
    fn the_template_is_valid_with_every_example_uncommented() {
        // Lines that start with `#` and no space are examples; those with a space are prose.
        let all: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(example) if !example.starts_with(' ') => format!("{example}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let error = ConfigFile::parse("ide-supervisor.toml", &all)
            .map(|config| config.services.len())
            .map_err(|error| error.to_string());
        // Only the example programs may be missing on this machine.
        match error {
            Ok(services) => assert_eq!(services, 3),
            Err(text) => assert!(text.contains("cannot be run"), "{text}"),
        }
    }

    #[test]
    fn a_file_that_exists_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ide-supervisor.toml");
        write_template(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(write_template(&path), Err(ConfigFileError::AlreadyExists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
