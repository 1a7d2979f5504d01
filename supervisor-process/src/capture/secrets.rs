//! Taking secrets out of what services write.

use memchr::memmem::Finder;

/// Secrets shorter than this are not searched for: they would match everywhere and hide everything.
const SECRET_LEN_MIN: usize = 4;
/// Lines of a secret of several lines that are shorter than this are common text.
const SECRET_LINE_MIN: usize = 8;
/// What stands where a secret stood.
const REDACTED: &[u8] = b"[redacted]";

/// The values that must not be kept.
#[derive(Debug)]
pub(super) struct Secrets(Vec<Finder<'static>>);

impl Secrets {
    /// Makes searchers for every secret; one of several lines is searched for line by line, as output is kept.
    pub(super) fn new(secrets: Vec<String>) -> Self {
        let mut wanted: Vec<String> = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SECRET_LEN_MIN) {
            if secret.contains('\n') {
                let lines = secret.lines().filter(|line| line.len() >= SECRET_LINE_MIN);
                wanted.extend(lines.map(str::to_owned));
            } else {
                wanted.push(secret);
            }
        }
        // The longest first: one may be a part of another.
        wanted.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(wanted.iter().map(|secret| Finder::new(secret).into_owned()).collect())
    }

    /// Replaces every secret in a line; nothing if there is none.
    pub(super) fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut redacted: Option<Vec<u8>> = None;
        for secret in &self.0 {
            let line = redacted.as_deref().unwrap_or(text);
            let Some(first) = secret.find(line) else { continue };
            let mut clean = Vec::with_capacity(line.len());
            let (mut rest, mut next) = (line, Some(first));
            while let Some(at) = next {
                clean.extend_from_slice(&rest[..at]);
                clean.extend_from_slice(REDACTED);
                rest = &rest[at + secret.needle().len()..];
                next = secret.find(rest);
            }
            clean.extend_from_slice(rest);
            redacted = Some(clean);
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(secrets: &[&str], text: &str) -> Option<String> {
        let secrets = Secrets::new(secrets.iter().map(|secret| (*secret).to_owned()).collect());
        secrets.redact(text.as_bytes()).map(|clean| String::from_utf8(clean).unwrap())
    }

    #[test]
    fn every_occurrence_of_every_secret_is_replaced() {
        let secrets = ["hunter2", "s3cr3t"];
        assert_eq!(
            clean(&secrets, "a hunter2 b hunter2 s3cr3t").unwrap(),
            "a [redacted] b [redacted] [redacted]"
        );
        assert_eq!(clean(&secrets, "nothing here"), None);
    }

    #[test]
    fn a_secret_of_several_lines_is_replaced_line_by_line() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nab\n";
        assert_eq!(clean(&[key], "x MIIEvQIBADANBg y").unwrap(), "x [redacted] y");
        assert_eq!(clean(&[key], "about"), None);
    }

    #[test]
    fn a_secret_that_is_part_of_another_leaves_nothing_of_it() {
        assert_eq!(clean(&["abcd", "abcd-efgh"], "abcd-efgh").unwrap(), "[redacted]");
    }
}
