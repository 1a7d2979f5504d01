//! macOS: the variables a process was started with, as `KERN_PROCARGS2` gives them.
//!
//! The system hides them of programs it restricts, its own above all (`/bin/sh`, `/bin/sleep`), from everybody, root
//! included. Such a process shows whose it is by its group, its session or its living parent only.

use crate::os::unix::{marking_in, variable};

/// Looks at a process that is just being replaced by another program and has no arguments for that moment.
#[cfg(target_os = "macos")]
const TRIES: usize = 20;

/// Finds the variables in what the system gives: the number of arguments, the program's path, padding, the arguments,
/// the variables up to an empty one, and what the loader is told; each ended by a NUL.
fn variables(buffer: &[u8]) -> &[u8] {
    const NONE: &[u8] = &[];
    let Some((count, rest)) = buffer.split_first_chunk::<4>() else { return NONE };
    let Ok(count) = usize::try_from(i32::from_ne_bytes(*count)) else { return NONE };
    let skip_text = |bytes: &mut &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0);
        *bytes = end.map_or(NONE, |end| &bytes[end + 1..]);
    };
    let mut rest = rest;
    skip_text(&mut rest);
    let padding = rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
    rest = &rest[padding..];
    for _ in 0..count {
        if rest.is_empty() {
            return NONE;
        }
        skip_text(&mut rest);
    }
    let mut end = 0;
    while let Some(length) = rest[end..].iter().position(|byte| *byte == 0) {
        if length == 0 {
            break;
        }
        end += length + 1;
    }
    &rest[..end]
}

/// Reads the marks of a process; nothing if it has none or hides them.
#[cfg(target_os = "macos")]
pub(crate) fn marking(pid: u32) -> Option<crate::os::unix::Marking> {
    look(pid, marking_in)
}

/// Reads whose guardian a process is, or was about to stop being: between fork and exec it still says so.
#[cfg(target_os = "macos")]
pub(crate) fn guardian_mark(pid: u32) -> Option<String> {
    look(pid, |variables| variable(variables, crate::command::GUARDIAN_VARIABLE).map(str::to_owned))
}

#[cfg(target_os = "macos")]
fn look<T>(pid: u32, find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    for _ in 0..TRIES {
        match super::info::arguments(pid) {
            Ok(buffer) => return find(variables(&buffer)),
            // A stranger's, or gone; or between two programs, which lasts a moment.
            Err(_) if super::Entry::read(pid).is_some_and(|entry| entry.is_alive()) => {
                std::thread::yield_now();
            }
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(count: i32, texts: &[&[u8]]) -> Vec<u8> {
        let mut buffer = count.to_ne_bytes().to_vec();
        for text in texts {
            buffer.extend_from_slice(text);
        }
        buffer
    }

    #[test]
    fn variables_are_found_behind_the_path_its_padding_and_the_arguments() {
        let given = buffer(
            2,
            &[b"/bin/svc\0\0\0\0", b"svc\0--a=A=1\0", b"A=2\0B=3\0", b"\0executable_path=/x\0"],
        );
        assert_eq!(variables(&given), b"A=2\0B=3\0");
        assert_eq!(variable(variables(&given), "A"), Some("2"), "an argument is no variable");
        assert_eq!(variable(variables(&given), "executable_path"), None);
    }

    #[test]
    fn marks_are_read_out_of_what_the_system_gives() {
        let given = buffer(
            1,
            &[
                b"/bin/svc\0\0",
                b"svc\0",
                b"IDE_SUPERVISOR_INCARNATION=7\0IDE_SUPERVISOR_MARK=m\0IDE_SUPERVISOR_SERVICE=s\0\0",
            ],
        );
        let found = marking_in(variables(&given)).unwrap();
        assert_eq!((&*found.mark, &*found.service, found.incarnation), ("m", "s", 7));
    }

    #[test]
    fn what_hides_its_variables_or_is_cut_off_has_none() {
        let hidden = buffer(2, &[b"/bin/sleep\0\0\0", b"sleep\0", b"600\0"]);
        assert_eq!(variables(&hidden), b"");
        for end in 0..hidden.len() {
            assert_eq!(variables(&hidden[..end]), b"", "{end}");
        }
        assert_eq!(variables(&buffer(-1, &[b"/x\0", b"A=1\0"])), b"");
        assert_eq!(variables(&buffer(i32::MAX, &[b"/x\0", b"A=1\0"])), b"");
        let cut = buffer(1, &[b"/x\0", b"x\0", b"A=1\0B=2"]);
        assert_eq!(variables(&cut), b"A=1\0", "a variable without its end is none");
    }
}
