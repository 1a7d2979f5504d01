//! Keeping the values of secret variables out of everything that is shown or stored.

use supervisor_core::config::ServiceSpec;

/// Secrets shorter than this are not searched for: they would match everywhere and hide everything.
const LEN_MIN: usize = 4;
/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// Replaces every secret of a service in a text about it.
pub(crate) fn redacted(spec: &ServiceSpec, text: String) -> String {
    // Longest first: a secret that is part of another one must not leave the rest of it behind.
    let mut secrets: Vec<String> = spec
        .secret_environment
        .iter()
        .filter_map(|name| spec.environment.get(name).cloned().or_else(|| std::env::var(name).ok()))
        .filter(|secret| secret.len() >= LEN_MIN && text.contains(secret.as_str()))
        .collect();
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), REDACTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_replaced_the_longer_one_first() {
        let mut spec = ServiceSpec::new("svc", "program").unwrap();
        for (name, value) in [("A", "hunter2"), ("B", "hunter2-and-more"), ("SHORT", "abc")] {
            spec.environment.insert(name.to_owned(), value.to_owned());
            spec.secret_environment.push(name.to_owned());
        }
        let text = "hunter2-and-more hunter2 abc".to_owned();
        assert_eq!(redacted(&spec, text), "[redacted] [redacted] abc");
        assert_eq!(redacted(&spec, "nothing".to_owned()), "nothing");
    }
}
