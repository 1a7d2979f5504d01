//! The application's say over services that a page describes itself.

use supervisor_core::config::ServiceSpec;

/// Decides whether a page may register a service it describes itself.
///
/// Without one, a page may only name services that the application declared. A page that may register any
/// service may run any program, so a policy names what it accepts and refuses the rest:
///
/// ```
/// use supervisor_core::config::ServiceSpec;
/// use supervisor_tauri::CommandPolicy;
///
/// let policy = |spec: &ServiceSpec| match spec.command.as_str() {
///     "/usr/lib/my-editor/language-server" if spec.args == ["--stdio"] => Ok(()),
///     _ => Err("only the bundled language server may be registered".to_owned()),
/// };
/// assert!(policy.judge(&ServiceSpec::new("lsp", "/bin/sh")?).is_err());
/// # Ok::<(), supervisor_core::error::ConfigError>(())
/// ```
pub trait CommandPolicy: Send + Sync + 'static {
    /// Accepts a specification, or says for people why not.
    ///
    /// # Errors
    /// The reason, which the page is shown.
    fn judge(&self, spec: &ServiceSpec) -> Result<(), String>;
}

impl<F> CommandPolicy for F
where
    F: Fn(&ServiceSpec) -> Result<(), String> + Send + Sync + 'static,
{
    fn judge(&self, spec: &ServiceSpec) -> Result<(), String> {
        self(spec)
    }
}
