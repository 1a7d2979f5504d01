//! Reads and checks a configuration file.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use supervisor_core::config::{ServiceSpec, SupervisorConfig};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::document::{entry, tables};
use super::error::{Finding, locate};
use super::os::SEPARATORS;
use super::{ConfigFileError, meaning, shape};
use crate::state_dir::STATE_DIR_NAME;

/// Most bytes of a configuration file that are read: 1 MiB, a thousand times a usual one.
///
/// Ten times more would still be read in a blink; the point is to name a wrong file at once instead of parsing it.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// A configuration file that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    /// Settings of the supervisor itself.
    pub supervisor: SupervisorConfig,
    /// The services in the order of the file; relative directories and programs are made absolute.
    pub services: Vec<ServiceSpec>,
    /// The file.
    pub path: PathBuf,
}

impl ConfigFile {
    /// Reads the file at `path` and checks all of it, the programs on this machine included.
    ///
    /// # Errors
    /// [`ConfigFileError`], whose text is a whole message for a person. A retry helps once the file is changed.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigFileError> {
        let path = path.as_ref();
        let read = |source| ConfigFileError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(read)?;
        if bytes.len() as u64 > CONFIG_BYTES_MAX {
            return Err(ConfigFileError::TooLarge {
                path: path.to_owned(),
                limit: CONFIG_BYTES_MAX,
            });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            // The place is that of the first bad byte, for which a question mark stands in.
            let start = String::from_utf8_lossy(&error.as_bytes()[..valid]) + "?";
            let finding = Finding {
                // What surrounds bytes that are no text is not worth repeating.
                hide_line: true,
                ..Finding::new(valid..valid, "this is not UTF-8 text")
            };
            locate(vec![finding.expected("a TOML file saved as UTF-8")], path, &start)
        })?;
        Self::parse(path, &text)
    }

    /// Checks `text` as the content of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigFileError::Problems`] with every mistake of the first kind there is: what is no TOML hides keys and types
    /// that are wrong, and those hide values that do not fit, which are told one for each service.
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<Self, ConfigFileError> {
        let path = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        let (supervisor, services) =
            read(&path, text).map_err(|findings| locate(findings, &shown(&path), text))?;
        Ok(Self { supervisor, services, path })
    }

    /// Gives the directory of the file, which relative paths in it are relative to.
    #[must_use]
    pub fn dir(&self) -> &Path {
        directory(&self.path)
    }

    /// Gives the state directory used when none is named: `.ide-supervisor` beside the file.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join(STATE_DIR_NAME)
    }
}

/// The path as a person would write it: relative where the file is below the working directory.
fn shown(path: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_owned))
        .unwrap_or_else(|| path.to_owned())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn read(path: &Path, text: &str) -> Result<(SupervisorConfig, Vec<ServiceSpec>), Vec<Finding>> {
    let root = DeTable::parse(text).map_err(|error| vec![syntax(text, &error)])?;
    none(shape::check(&root))?;
    let table = root.get_ref();
    let settings = entry(table, "supervisor");
    let supervisor = match settings {
        Some(settings) => deserialize(settings).map_err(|finding| vec![finding])?,
        None => SupervisorConfig::default(),
    };
    let tables = tables(table, "service");
    let mut found = Vec::new();
    found.extend(meaning::check_supervisor(&supervisor, settings));
    if tables.is_empty() {
        found.push(shape::no_services(root.span()));
    }
    let mut services: Vec<ServiceSpec> = Vec::new();
    for table in &tables {
        match deserialize(table) {
            Ok(service) => services.push(service),
            Err(finding) => found.push(finding),
        }
    }
    if services.len() < tables.len() {
        return Err(found);
    }
    meaning::check_relations(&supervisor, &services, &tables, text, &mut found);
    for (index, (service, table)) in services.iter_mut().zip(&tables).enumerate() {
        let mistake = meaning::check_values(index, service, table);
        absolute_paths(service, directory(path));
        match mistake {
            Some(finding) => found.push(finding),
            None => meaning::check_machine(service, table, &mut found),
        }
    }
    none(found)?;
    Ok((supervisor, services))
}

fn none(found: Vec<Finding>) -> Result<(), Vec<Finding>> {
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn deserialize<T: DeserializeOwned>(value: &Spanned<DeValue<'_>>) -> Result<T, Finding> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value.clone())).map_err(|error| Finding {
        // Reached only by a mistake the shape check does not know, whose place may be anywhere in the table.
        hide_line: true,
        ..Finding::new(error.span().unwrap_or(span), error.message())
    })
}

/// Makes paths relative to the file absolute, so that the working directory of the supervisor does not matter.
fn absolute_paths(service: &mut ServiceSpec, base: &Path) {
    if let Some(dir) = &service.working_dir {
        service.working_dir = Some(base.join(dir));
    }
    let rebase = |program: &mut String| {
        let relative = program.contains(SEPARATORS) && Path::new(program.as_str()).is_relative();
        if relative && let Some(absolute) = base.join(&*program).to_str() {
            *program = absolute.to_owned();
        }
    };
    rebase(&mut service.command);
    for probe in &mut service.probes {
        if let Some(program) = probe.command.first_mut() {
            rebase(program);
        }
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(0..0);
    // The parser's message reads "what is wrong, expected this, or that".
    let message = error.message().replace('\n', ", ");
    let (wrong, expected) =
        message.split_once(", expected ").unwrap_or((&message, "TOML, such as key = \"value\""));
    Finding {
        hide_line: may_hold_secret(text, &span),
        ..Finding::new(span, format!("this is not TOML: {wrong}"))
    }
    .expected(expected)
}

/// Tells whether a place in text that could not be parsed may be inside an `environment` table.
fn may_hold_secret(text: &str, span: &Range<usize>) -> bool {
    let end = text.floor_char_boundary(span.end.min(text.len()));
    let line_end = text[end..].find('\n').map_or(text.len(), |n| end + n);
    let before = &text[..line_end];
    let names_it = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("environment") || line.starts_with("[service.environment")
    };
    // The nearest line that opens a table or an `environment` decides.
    before
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with('[') || names_it(line))
        .is_some_and(|line| names_it(&line))
}
