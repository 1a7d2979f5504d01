//! Whether the program of a service exists on this machine.

use std::env;
use std::path::{Path, PathBuf};

use supervisor_core::config::ServiceSpec;

use super::os::{SEPARATORS, runnable, with_extensions};

/// Where programs are looked for when a service has no PATH at all (the list of execvp(3) without the directory itself).
const PATH_FALLBACK: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program of `spec` the way the service will: in its own PATH, or relative to its working directory.
///
/// # Errors
/// What was looked for and where, as a clause for people.
pub fn find_program(spec: &ServiceSpec, command: &str) -> Result<PathBuf, String> {
    if command.contains(SEPARATORS) {
        let path = spec.working_dir.as_deref().unwrap_or(Path::new(".")).join(command);
        return runnable(&path)
            .map(|()| path.clone())
            .map_err(|reason| format!("{} {reason}", path.display()));
    }
    let path = search_path(spec);
    let mut refused = None;
    for dir in env::split_paths(&path) {
        // An empty or relative entry means the directory the service runs in.
        let base = spec.working_dir.as_deref().unwrap_or(Path::new("."));
        let candidate = base.join(dir).join(command);
        for candidate in with_extensions(&candidate) {
            match runnable(&candidate) {
                Ok(()) => return Ok(candidate),
                Err("does not exist") => {}
                Err(reason) => refused = Some(format!("{} {reason}", candidate.display())),
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        format!(
            "there is no program {command:?} in the service's PATH ({})",
            path.to_string_lossy()
        )
    }))
}

fn search_path(spec: &ServiceSpec) -> std::ffi::OsString {
    if let Some(own) = spec.environment.get("PATH") {
        return own.into();
    }
    let inherited =
        spec.inherit_environment.inherits("PATH").then(|| env::var_os("PATH")).flatten();
    inherited.unwrap_or_else(|| PATH_FALLBACK.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_in_the_path_of_the_service() {
        let spec = ServiceSpec::new("a", "sh").unwrap();
        assert!(find_program(&spec, "sh").is_ok());
        let elsewhere =
            ServiceSpec { environment: [("PATH".into(), "/nonexistent".into())].into(), ..spec };
        let reason = find_program(&elsewhere, "sh").unwrap_err();
        assert!(reason.contains("/nonexistent"), "{reason}");
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tool"), "").unwrap();
        let spec = ServiceSpec {
            working_dir: Some(dir.path().to_owned()),
            ..ServiceSpec::new("a", "sh").unwrap()
        };
        let reason = find_program(&spec, "./tool").unwrap_err();
        assert!(reason.contains("x permission"), "{reason}");
        assert!(find_program(&spec, "./other").unwrap_err().contains("does not exist"));
    }
}
