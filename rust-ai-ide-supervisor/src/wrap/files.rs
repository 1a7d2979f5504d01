//! What is in files an editor has not open, as far as a relay has to know it.

use std::io::Read as _;
use std::path::PathBuf;

use supervisor_ipc::lsp::Files;

/// Largest file that is looked at; of a larger one it is not told what it holds.
const BYTES_MAX: u64 = 4 << 20;

/// The files of this machine, looked at one by one when somebody asks.
#[derive(Debug)]
pub struct LocalFiles;

impl Files for LocalFiles {
    fn is_ascii(&self, uri: &str) -> Option<bool> {
        let path = path_of(uri)?;
        // A pipe or a device is nothing to read: it may never end.
        let size = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?.len();
        if size > BYTES_MAX {
            return None;
        }
        let mut text = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(BYTES_MAX + 1).read_to_end(&mut text).ok()?;
        (text.len() as u64 <= BYTES_MAX).then(|| text.is_ascii())
    }
}

/// Gives the local path a `file:` URI names.
fn path_of(uri: &str) -> Option<PathBuf> {
    let rest = uri.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("file://"))?;
    let (host, path) = uri[rest.len()..].split_at(uri[rest.len()..].find('/')?);
    if !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
        return None;
    }
    let path = String::from_utf8(unescaped(path)?).ok()?;
    // On Windows `/c:/x` is `c:/x`.
    let drive = cfg!(windows) && path.as_bytes().get(2) == Some(&b':');
    Some(PathBuf::from(if drive { &path[1..] } else { path.as_str() }))
}

fn unescaped(path: &str) -> Option<Vec<u8>> {
    let mut bytes = path.bytes();
    let mut plain = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        plain.push(u8::from_str_radix(digits, 16).ok()?);
    }
    // What no path can hold names none.
    (!plain.contains(&0)).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_within_bounds_and_what_is_none_is_not_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
        write("plain name.x", b"text");
        write("emoji", "a\u{1F600}".as_bytes());
        write("large", &vec![b'a'; usize::try_from(BYTES_MAX).unwrap() + 1]);
        let root = dir.path().to_str().unwrap().replace('\\', "/");
        let root = root.trim_start_matches('/');
        let ask = |uri: &str| LocalFiles.is_ascii(&uri.replace("ROOT", root));
        assert_eq!(ask("file:///ROOT/plain%20name.x"), Some(true));
        assert_eq!(ask("FILE://localhost/ROOT/plain name.x"), Some(true));
        assert_eq!(ask("file:///ROOT/emoji"), Some(false));
        for none in [
            "file:///ROOT/large",
            "file:///ROOT",
            "file:///ROOT/none",
            "file:///dev/zero",
            "file:///ROOT/%zz",
            "file:///ROOT/emoji%00",
            "file://elsewhere/ROOT/emoji",
            "untitled:ROOT/emoji",
            "file:",
            "fi\u{e9}e:///x",
            "",
        ] {
            assert_eq!(ask(none), None, "{none}");
        }
    }
}
