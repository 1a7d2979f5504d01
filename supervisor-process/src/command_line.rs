//! Windows: the one text that a program's arguments become, the block that its environment becomes, and what a name may
//! stand for. Pure, so that it is tested wherever the rest is.

use std::io;

/// Longest command line `CreateProcessW` takes, its end included.
const LENGTH_MAX: usize = 32_767;
/// Endings of what can be started, in the order in which the system's own shell tries them.
const ENDINGS: [&str; 4] = ["com", "exe", "bat", "cmd"];
/// Characters beside letters and digits that `cmd.exe` takes as they are, outside quotes.
const PLAIN: &str = r"#$*+-./:?@\_";

const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;
const SPACE: u16 = b' ' as u16;

/// The text cannot be had; how long it was is said where that is why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A character that would end the text or a part of it.
    Character(&'static str),
    /// Longer than the system takes.
    TooLong,
}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Character(text) => Self::new(io::ErrorKind::InvalidInput, text),
            Unfit::TooLong => Self::new(
                io::ErrorKind::ArgumentListTooLong,
                "a command line has at most 32,767 characters",
            ),
        }
    }
}

/// Gives the names a command may stand for, most likely first: a name without an ending of a program gets each of them.
pub(crate) fn spellings(command: &str) -> Vec<String> {
    if is(command, &ENDINGS) {
        return vec![command.to_owned()];
    }
    let ended = ENDINGS.iter().map(|ending| format!("{command}.{ending}"));
    ended.chain([command.to_owned()]).collect()
}

/// Tells whether a file is run by `cmd.exe`, which takes arguments apart in a way of its own.
pub(crate) fn is_batch(program: &str) -> bool {
    is(program, &["bat", "cmd"])
}

fn is(name: &str, endings: &[&str]) -> bool {
    // The system drops dots and spaces at the end of a name.
    let name = name.trim_end_matches(['.', ' ']);
    let ending = name.rsplit(['/', '\\']).next().and_then(|file| file.rsplit_once('.'));
    ending.is_some_and(|(_, ending)| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Gives the command line of a program, as the C runtime takes it apart, with its end.
///
/// # Errors
/// [`Unfit`] when an argument holds a NUL, the program's name a quote, or all of it is too long.
pub(crate) fn of_program(program: &[u16], arguments: &[Vec<u16>]) -> Result<Vec<u16>, Unfit> {
    let mut line = Vec::new();
    push_name(&mut line, program)?;
    for argument in arguments {
        line.push(SPACE);
        let quote = argument.is_empty()
            || argument.iter().any(|unit| *unit == SPACE || *unit == u16::from(b'\t'));
        push_argument(&mut line, argument, quote, |line, backslashes| {
            // Every backslash before the quote doubled, and one that escapes it.
            line.extend(std::iter::repeat_n(BACKSLASH, backslashes + 1));
        });
    }
    finish(line)
}

/// Gives the command line by which `cmd.exe` runs a batch file, so that no argument becomes a command or a variable.
///
/// The quoting is the standard library's: whatever is not known to be harmless is quoted, quotes are doubled, and a
/// percent sign is taken apart.
///
/// # Errors
/// As for [`of_program`]; also when an argument holds a line end, which no quoting gets through `cmd.exe`.
pub(crate) fn of_batch(script: &[u16], arguments: &[Vec<u16>]) -> Result<Vec<u16>, Unfit> {
    let mut line = wide("cmd.exe /e:ON /v:OFF /d /c \"");
    push_name(&mut line, script)?;
    for argument in arguments {
        line.push(SPACE);
        if argument.iter().any(|unit| [u16::from(b'\r'), u16::from(b'\n')].contains(unit)) {
            return Err(Unfit::Character("an argument of a batch file holds a line end"));
        }
        push_batch_argument(&mut line, argument);
    }
    line.push(QUOTE);
    finish(line)
}

/// Gives the block of an environment: sorted as the system wants it, names compared without regard to case.
///
/// # Errors
/// [`Unfit`] when a name is empty, or one holds an equals sign or anything a NUL.
pub(crate) fn environment_block(
    mut variables: Vec<(Vec<u16>, Vec<u16>)>,
) -> Result<Vec<u16>, Unfit> {
    variables.sort_by_cached_key(|(name, _)| upper(name));
    let mut block = Vec::new();
    for (name, value) in &variables {
        // A first equals sign belongs to the name: the system keeps the directories of drives so.
        if name.is_empty() || name[1..].contains(&u16::from(b'=')) {
            return Err(Unfit::Character(
                "the name of a variable is empty or holds an equals sign",
            ));
        }
        if name.contains(&0) || value.contains(&0) {
            return Err(Unfit::Character("a variable holds a NUL"));
        }
        block.extend_from_slice(name);
        block.push(u16::from(b'='));
        block.extend_from_slice(value);
        block.push(0);
    }
    if variables.is_empty() {
        block.push(0);
    }
    block.push(0);
    Ok(block)
}

/// Gives the units of a text.
pub(crate) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn upper(name: &[u16]) -> Vec<u16> {
    let text = String::from_utf16_lossy(name);
    // One character for one, as the system does it.
    let upper = text.chars().map(|c| {
        let mut changed = c.to_uppercase();
        changed.next().filter(|_| changed.len() == 0).unwrap_or(c)
    });
    wide(&upper.collect::<String>())
}

fn push_name(line: &mut Vec<u16>, name: &[u16]) -> Result<(), Unfit> {
    if name.contains(&QUOTE) || name.last() == Some(&BACKSLASH) {
        return Err(Unfit::Character("a program's name holds a quote or ends with a backslash"));
    }
    line.push(QUOTE);
    line.extend_from_slice(name);
    line.push(QUOTE);
    Ok(())
}

/// Adds an argument: `escape` is asked to write what stands before a quote, with the backslashes that did already.
fn push_argument(
    line: &mut Vec<u16>,
    argument: &[u16],
    quote: bool,
    escape: impl Fn(&mut Vec<u16>, usize),
) {
    if quote {
        line.push(QUOTE);
    }
    let mut backslashes = 0;
    for unit in argument {
        if *unit == BACKSLASH {
            backslashes += 1;
        } else {
            if *unit == QUOTE {
                escape(line, backslashes);
            }
            backslashes = 0;
        }
        line.push(*unit);
    }
    if quote {
        // What stands before the closing quote must not escape it.
        line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
        line.push(QUOTE);
    }
}

fn push_batch_argument(line: &mut Vec<u16>, argument: &[u16]) {
    let harmless = |unit: &u16| match char::from_u32(u32::from(*unit)) {
        Some(c) if c.is_ascii() => c.is_ascii_alphanumeric() || PLAIN.contains(c),
        Some(c) => !c.is_control(),
        None => true,
    };
    // One that ends with a backslash is quoted for the sake of scripts that put quotes around it themselves.
    let quote = argument.is_empty()
        || argument.last() == Some(&BACKSLASH)
        || !argument.iter().all(harmless);
    let mut apart = Vec::with_capacity(argument.len());
    for unit in argument {
        if *unit == u16::from(b'%') {
            // An expression that is empty, so that no two percent signs enclose a name.
            apart.extend(wide("%%cd:~,"));
        }
        apart.push(*unit);
    }
    push_argument(line, &apart, quote, |line, backslashes| {
        line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
        line.push(QUOTE);
    });
}

fn finish(mut line: Vec<u16>) -> Result<Vec<u16>, Unfit> {
    if line.contains(&0) {
        return Err(Unfit::Character("an argument holds a NUL"));
    }
    line.push(0);
    if line.len() > LENGTH_MAX { Err(Unfit::TooLong) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line as a text, made by `of` from a program and its arguments.
    fn line(
        of: impl Fn(&[u16], &[Vec<u16>]) -> Result<Vec<u16>, Unfit>,
        arguments: &[&str],
    ) -> String {
        let arguments: Vec<_> = arguments.iter().map(|text| wide(text)).collect();
        let mut line = of(&wide(r"C:\a b\x"), &arguments).unwrap();
        assert_eq!(line.pop(), Some(0));
        String::from_utf16(&line).unwrap()
    }

    /// Takes a line apart as the C runtime is documented to.
    fn taken_apart(line: &str) -> Vec<String> {
        let mut rest =
            line.strip_prefix('"').unwrap().split_once('"').unwrap().1.chars().peekable();
        let mut found = Vec::new();
        while rest.next() == Some(' ') {
            let (mut text, mut quoted) = (String::new(), false);
            while let Some(next) = rest.peek().copied().filter(|c| quoted || *c != ' ') {
                let mut backslashes = 0;
                while rest.next_if_eq(&'\\').is_some() {
                    backslashes += 1;
                }
                if backslashes == 0 {
                    rest.next();
                    match next {
                        '"' => quoted = !quoted,
                        next => text.push(next),
                    }
                } else if rest.peek() == Some(&'"') {
                    text.push_str(&"\\".repeat(backslashes / 2));
                    if backslashes % 2 == 1 {
                        text.push('"');
                        rest.next();
                    }
                } else {
                    text.push_str(&"\\".repeat(backslashes));
                }
            }
            found.push(text);
        }
        found
    }

    #[test]
    fn arguments_come_back_as_they_were_given() {
        let pieces = ["a", " ", "\"", "\\", "\t", "%PATH%", "&", "ü", ""];
        for seed in 0..pieces.len().pow(4) {
            let piece = |n: u32| pieces[seed / pieces.len().pow(n) % pieces.len()];
            let text = [piece(0), piece(1), piece(2), piece(3)].concat();
            let given = [text.as_str(), "", "last"];
            assert_eq!(taken_apart(&line(of_program, &given)), given, "{text:?}");
        }
    }

    #[test]
    fn a_batch_files_arguments_become_neither_commands_nor_variables() {
        let given = ["a&del b", "100%PATH%", "q\"r", r"d\", "plain"];
        let expected = concat!(
            r#"cmd.exe /e:ON /v:OFF /d /c ""C:\a b\x" "a&del b" "#,
            r#""100%%cd:~,%PATH%%cd:~,%" "q""r" "d\\" plain""#
        );
        assert_eq!(line(of_batch, &given), expected);
        assert!(of_batch(&wide("x.cmd"), &[wide("a\nb")]).is_err());
    }

    #[test]
    fn what_would_end_a_text_early_is_refused() {
        assert!(of_program(&wide("a\"b"), &[]).is_err());
        assert!(of_program(&wide("a"), &[wide("x\0y")]).is_err());
        assert_eq!(of_program(&wide("a"), &[wide(&"x".repeat(40_000))]), Err(Unfit::TooLong));
        assert!(environment_block(vec![(wide("A=B"), wide("c"))]).is_err());
        assert!(environment_block(vec![(wide(""), wide("c"))]).is_err());
        assert!(environment_block(vec![(wide("A"), wide("c\0D=e"))]).is_err());
    }

    #[test]
    fn an_environment_is_sorted_without_regard_to_case_and_ends_twice() {
        let given = [("b", "2"), ("A", "1"), ("=C:", "x"), ("C", "")];
        let given = given.map(|(name, value)| (wide(name), wide(value))).to_vec();
        let block = String::from_utf16(&environment_block(given).unwrap()).unwrap();
        assert_eq!(block, "=C:=x\0A=1\0b=2\0C=\0\0");
        assert_eq!(environment_block(Vec::new()).unwrap(), [0, 0]);
    }

    #[test]
    fn a_name_without_an_ending_stands_for_every_kind_of_program() {
        assert_eq!(spellings("node.exe"), ["node.exe"]);
        assert_eq!(spellings("npm"), ["npm.com", "npm.exe", "npm.bat", "npm.cmd", "npm"]);
        assert_eq!(spellings("python3.11")[1], "python3.11.exe");
        assert!(is_batch(r"C:\x.y\tsc.CMD") && is_batch("a.bat. ") && !is_batch(r"C:\x.cmd\tsc"));
    }
}
