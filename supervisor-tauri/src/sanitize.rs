//! Judges what a page sends before anything else looks at it.
//!
//! Nothing here knows Tauri: a rule is a function from a JSON value to a typed value or a
//! [`SecurityError`]. A refusal names the argument and the rule, and never repeats the value, because what
//! is refused may be hostile to the log, the terminal or the page that shows it.

use serde_json::Value;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::SecurityError;
use supervisor_core::ports::CheckpointSelector;
use supervisor_core::{CheckpointId, SERVICE_ID_LEN_MAX, Sequence, ServiceId};
use uuid::Uuid;

/// Most rows a page may ask for at once.
pub const LIMIT_MAX: usize = 10_000;
/// Rows a page gets when it does not say how many.
pub const LIMIT_DEFAULT: usize = 200;
/// Largest sequence a page may name: the last whole number that JavaScript counts without gaps.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;
/// Longest name for people, in bytes.
pub const NAME_LEN_MAX: usize = 256;
/// Largest service specification a page may send, in bytes of JSON.
pub const SPEC_LEN_MAX: usize = 256 * 1024;

/// Letters of a checkpoint id: 32 digits and 4 hyphens.
const CHECKPOINT_ID_LEN: usize = 36;
/// Depth to which a specification may be nested; a real one needs 4.
const SPEC_DEPTH_MAX: usize = 16;

/// Turns the arguments of a page into typed values, or refuses them by rule.
///
/// Every command of the plugin goes through it, and applications are invited to use it in their own:
///
/// ```
/// use serde_json::json;
/// use supervisor_tauri::TauriInputSanitizer;
///
/// let id = TauriInputSanitizer::service_id("service", Some(&json!("lsp")))?;
/// assert_eq!(id.as_str(), "lsp");
/// for hostile in [json!("../../etc/passwd"), json!("a\u{1b}[2J"), json!(["lsp"]), json!("x".repeat(1_000_000))] {
///     assert!(TauriInputSanitizer::service_id("service", Some(&hostile)).is_err());
/// }
/// # Ok::<(), supervisor_core::error::SecurityError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TauriInputSanitizer;

impl TauriInputSanitizer {
    /// Accepts a service id.
    ///
    /// # Errors
    /// [`SecurityError::Input`] for anything but 1-64 of `a-z A-Z 0-9 _ - .`, starting with a letter or digit.
    /// A retry does not help.
    pub fn service_id(argument: &str, value: Option<&Value>) -> Result<ServiceId, SecurityError> {
        let text = text(argument, value, SERVICE_ID_LEN_MAX)?;
        let rule = "a service id is 1-64 of a-z A-Z 0-9 _ - . and starts with a letter or digit";
        ServiceId::new(text).map_err(|_| refused(argument, rule))
    }

    /// Accepts a name for people: at most [`NAME_LEN_MAX`] bytes, no path, no control or invisible characters.
    ///
    /// # Errors
    /// [`SecurityError::Input`] naming the rule. A retry does not help.
    pub fn name(argument: &str, value: Option<&Value>) -> Result<String, SecurityError> {
        let text = text(argument, value, NAME_LEN_MAX)?;
        if text.trim().is_empty() {
            return Err(refused(argument, "it is empty"));
        }
        Ok(text.to_owned())
    }

    /// Accepts a number of rows from 1 to [`LIMIT_MAX`]; [`LIMIT_DEFAULT`] when absent.
    ///
    /// # Errors
    /// [`SecurityError::Input`] for anything else, fractions and numbers as text included. A retry does not help.
    pub fn limit(argument: &str, value: Option<&Value>) -> Result<usize, SecurityError> {
        let Some(value) = value else {
            return Ok(LIMIT_DEFAULT);
        };
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (1..=LIMIT_MAX).contains(n))
            .ok_or_else(|| refused(argument, "a limit is a whole number from 1 to 10000"))
    }

    /// Accepts a sequence number from 0 to [`SEQUENCE_MAX`]; nothing when absent.
    ///
    /// # Errors
    /// [`SecurityError::Input`] for anything else. A retry does not help.
    pub fn sequence(
        argument: &str,
        value: Option<&Value>,
    ) -> Result<Option<Sequence>, SecurityError> {
        let Some(value) = value else {
            return Ok(None);
        };
        value
            .as_u64()
            .filter(|n| *n <= SEQUENCE_MAX)
            .map(|n| Some(Sequence(n)))
            .ok_or_else(|| refused(argument, "a sequence is a whole number from 0 to 2^53-1"))
    }

    /// Accepts a checkpoint id in its one form, 8-4-4-4-12 hexadecimal digits; the newest when absent.
    ///
    /// A page names checkpoints by id only, so no path ever reaches the store from a page.
    ///
    /// # Errors
    /// [`SecurityError::Input`] for anything else. A retry does not help.
    pub fn checkpoint(
        argument: &str,
        value: Option<&Value>,
    ) -> Result<CheckpointSelector, SecurityError> {
        if value.is_none() {
            return Ok(CheckpointSelector::Latest);
        }
        let text = text(argument, value, CHECKPOINT_ID_LEN)?;
        let rule = "a checkpoint id is 8-4-4-4-12 hexadecimal digits, as list_checkpoints gives it";
        if text.len() != CHECKPOINT_ID_LEN {
            return Err(refused(argument, rule));
        }
        Uuid::try_parse(text)
            .map(|id| CheckpointSelector::Id(CheckpointId(id)))
            .map_err(|_| refused(argument, rule))
    }

    /// Accepts a whole service specification of at most [`SPEC_LEN_MAX`] bytes, every field checked as registering does.
    ///
    /// It says nothing about whether the command may be run: that is the application's command policy.
    ///
    /// # Errors
    /// [`SecurityError::Input`] naming the field where that is safe to repeat. A retry does not help.
    pub fn spec(argument: &str, value: &Value) -> Result<ServiceSpec, SecurityError> {
        if !fits(value, SPEC_DEPTH_MAX) {
            return Err(refused(argument, "it is nested too deeply"));
        }
        let size = serde_json::to_vec(value).map_or(usize::MAX, |json| json.len());
        if size > SPEC_LEN_MAX {
            return Err(refused(argument, "it is larger than 256 KiB"));
        }
        let spec: ServiceSpec =
            serde::Deserialize::deserialize(value).map_err(|error: serde_json::Error| {
                refused(argument, &shape_problem(&error.to_string()))
            })?;
        spec.validate().map_err(|error| {
            refused(argument, &format!("its field {} is not acceptable", error.field()))
        })?;
        Ok(spec)
    }
}

fn refused(argument: &str, rule: &str) -> SecurityError {
    SecurityError::Input { argument: argument.to_owned(), reason: rule.to_owned() }
}

/// Accepts one line of visible text of at most `len_max` bytes that is no path.
fn text<'a>(
    argument: &str,
    value: Option<&'a Value>,
    len_max: usize,
) -> Result<&'a str, SecurityError> {
    let Some(value) = value else {
        return Err(refused(argument, "it is missing"));
    };
    let Value::String(text) = value else {
        return Err(refused(argument, "it is not a text"));
    };
    // Length first: the other rules read every character, and a page may send megabytes.
    if text.len() > len_max {
        return Err(refused(argument, &format!("it is longer than {len_max} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(refused(argument, "it holds a control character"));
    }
    if text.contains(is_invisible) {
        return Err(refused(argument, "it holds an invisible character"));
    }
    if text.contains(['/', '\\']) || text == "." || text == ".." {
        return Err(refused(argument, "it looks like a path"));
    }
    Ok(text)
}

/// Characters that change how text around them looks without being seen: bidirectional controls, zero-width
/// characters, tags and separators. They make one name look like another.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn fits(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| fits(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|field| fits(field, depth - 1)),
        _ => true,
    }
}

/// Keeps the part of a reader's complaint that holds field names only: values may be secrets.
fn shape_problem(complaint: &str) -> String {
    for (kind, said) in [
        ("unknown field", "it has an unknown field"),
        ("missing field", "it lacks the field"),
        ("duplicate field", "it has a field twice"),
    ] {
        let name = complaint.strip_prefix(kind).and_then(|rest| rest.split('`').nth(1));
        if let Some(name) = name {
            let shown: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
            return format!("{said}: {shown}");
        }
    }
    "a field has the wrong type or an unacceptable value".to_owned()
}
