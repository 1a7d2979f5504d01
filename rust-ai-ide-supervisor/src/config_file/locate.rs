//! Where the configuration file is.

use std::path::{Path, PathBuf};

use super::ConfigFileError;

/// Name of the configuration file.
pub const CONFIG_FILE_NAME: &str = "ide-supervisor.toml";

/// Finds the configuration file in `start` or the nearest directory above it.
///
/// # Errors
/// [`ConfigFileError::NotFound`]; a retry helps once there is one.
pub fn locate(start: &Path) -> Result<PathBuf, ConfigFileError> {
    let absolute = std::path::absolute(start).unwrap_or_else(|_| start.to_owned());
    absolute
        .ancestors()
        .map(|dir| dir.join(CONFIG_FILE_NAME))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| ConfigFileError::NotFound {
            name: CONFIG_FILE_NAME,
            start: absolute.clone(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_upwards_is_found() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(root.path().join(CONFIG_FILE_NAME), "").unwrap();
        assert_eq!(locate(&deep).unwrap(), root.path().join(CONFIG_FILE_NAME));
        std::fs::write(root.path().join("a").join(CONFIG_FILE_NAME), "").unwrap();
        assert_eq!(locate(&deep).unwrap(), root.path().join("a").join(CONFIG_FILE_NAME));
    }

    #[test]
    fn none_upwards_says_where_it_looked_and_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        // A directory of that name is not a configuration.
        std::fs::create_dir(root.path().join(CONFIG_FILE_NAME)).unwrap();
        let text = locate(root.path()).unwrap_err().to_string();
        assert!(text.contains(&root.path().display().to_string()), "{text}");
        assert!(text.contains("config init"), "{text}");
    }
}
