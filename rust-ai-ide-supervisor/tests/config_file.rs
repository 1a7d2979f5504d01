//! Every mistake in a configuration file gives one message with its place and what was expected.
//!
//! `tests/data/bad-configs/NAME.toml` is a file with one mistake and `NAME.txt` the whole message. After a deliberate
//! change of wording, `BLESS=1 cargo test -p rust-ai-ide-supervisor --test config_file` writes the messages anew;
//! the difference is read in review.
#![cfg(feature = "config-file")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use rust_ai_ide_supervisor::config_file::{
    CONFIG_BYTES_MAX, ConfigFile, ConfigFileError, config_schema,
};

fn bad_configs() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("tests/data/bad-configs")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn message(path: &Path) -> String {
    let text = match ConfigFile::load(path) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error.to_string(),
    };
    // Absolute paths differ from machine to machine.
    text.replace(env!("CARGO_MANIFEST_DIR"), "<dir>")
}

fn file_with(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ide-supervisor.toml");
    fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn every_mistake_gives_the_message_on_record() {
    let mut wrong = Vec::new();
    for path in bad_configs() {
        let record = path.with_extension("txt");
        let message = message(&path) + "\n";
        if std::env::var_os("BLESS").is_some() {
            fs::write(&record, &message).unwrap();
        }
        if fs::read_to_string(&record).ok().as_ref() != Some(&message) {
            wrong.push(format!("{}:\n{message}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_message_has_a_place_and_what_was_expected() {
    for path in bad_configs() {
        let Err(ConfigFileError::Problems(problems)) = ConfigFile::load(&path) else {
            panic!("{}: no problem with a place", path.display());
        };
        let [problem] = problems.shown() else {
            panic!("{}: one mistake makes several: {problems}", path.display());
        };
        assert!(problem.line() >= 1 && problem.column() >= 1);
        assert!(problem.expected().is_some(), "{problem}");
        let text = problem.to_string();
        let place = format!("{}:{}:{}: ", path.display(), problem.line(), problem.column());
        assert!(text.starts_with(&place), "{text}");
    }
}

#[test]
fn all_mistakes_of_a_kind_are_told_at_once_in_the_order_of_the_file() {
    let shape = "[[service]]\nid = 1\ncomand = \"x\"\n[supervisor]\nzzz = 1\n";
    let text = ConfigFile::parse("f.toml", shape).unwrap_err().to_string();
    let places: Vec<&str> = text.lines().filter(|line| line.starts_with("f.toml:")).collect();
    assert_eq!(places.len(), 3, "{text}");
    assert!(places[0].starts_with("f.toml:2:") && places[2].starts_with("f.toml:5:"), "{text}");
    assert!(text.ends_with("\n\n3 mistakes"), "{text}");

    let meaning = "[supervisor]\nmax_concurrent_services = 0\n\
        [[service]]\nid = \"A B\"\ncommand = \"cargo\"\n\
        [[service]]\nid = \"b\"\ncommand = \"no-such-program\"\ndepends_on = [{ id = \"c\" }]\n";
    let text = ConfigFile::parse("f.toml", meaning).unwrap_err().to_string();
    for told in ["max_concurrent_services", "\"A B\"", "no-such-program", "depends on \"c\""] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn a_file_of_mistakes_shows_twenty_and_counts_the_rest() {
    let text: String = (0..500).map(|n| format!("key{n} = 1\n")).collect();
    let error = ConfigFile::parse("f.toml", &text).unwrap_err();
    let ConfigFileError::Problems(problems) = &error else { panic!("{error}") };
    assert_eq!((problems.shown().len(), problems.more()), (20, 480));
    assert!(error.to_string().ends_with("\n\n500 mistakes, of which 480 are not shown"), "{error}");
}

#[test]
fn no_message_repeats_what_may_be_a_secret() {
    for name in ["secret-wrong-type", "secret-syntax"] {
        let text = message(&Path::new("tests/data/bad-configs").join(name).with_extension("toml"));
        assert!(!text.contains("123456789") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn ten_megabytes_of_noise_are_refused_without_being_parsed() {
    let noise: Vec<u8> =
        (0..10 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (_dir, path) = file_with(&noise);
    let error = ConfigFile::load(&path).unwrap_err();
    assert!(matches!(error, ConfigFileError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains(&CONFIG_BYTES_MAX.to_string()), "{error}");
}

#[cfg(unix)]
#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let error = ConfigFile::load("/dev/zero").unwrap_err();
    assert!(matches!(error, ConfigFileError::TooLarge { .. }), "{error}");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted_and_counted_right() {
    let good = "\u{feff}[[service]]\r\nid = \"a\"\r\ncommand = \"cargo\"\r\n";
    let (_dir, path) = file_with(good.as_bytes());
    ConfigFile::load(&path).unwrap();
    let (_dir, path) = file_with((good.to_owned() + "zzz = 1\r\n").as_bytes());
    let text = ConfigFile::load(&path).unwrap_err().to_string();
    assert!(text.contains("toml:4:1: unknown key `zzz`"), "{text}");
    assert!(text.contains("4 | zzz = 1\n"), "{text}");
}

#[test]
fn binary_below_the_size_limit_is_refused_with_its_place() {
    let (_dir, path) = file_with(b"[supervisor]\n\xff\xfe\x00\x01");
    let text = ConfigFile::load(&path).unwrap_err().to_string();
    assert!(text.contains("toml:2:1: this is not UTF-8 text"), "{text}");
}

#[test]
fn a_million_nested_brackets_are_refused_and_not_a_stack_overflow() {
    let (_dir, path) = file_with(format!("a = {}", "[".repeat(1_000_000)).as_bytes());
    let text = ConfigFile::load(&path).unwrap_err().to_string();
    assert!(text.len() < 2000, "{} characters", text.len());
}

#[test]
fn a_directory_in_place_of_the_file_is_said_to_be_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let error = ConfigFile::load(dir.path()).unwrap_err();
    assert!(matches!(error, ConfigFileError::Read { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn relative_paths_are_relative_to_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let text = "[[service]]\nid = \"a\"\ncommand = \"bin/tool\"\nworking_dir = \"work\"\n";
    let (dir, path) = file_with(text.as_bytes());
    fs::create_dir(dir.path().join("work")).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let tool = dir.path().join("bin/tool");
    fs::write(&tool, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let config = ConfigFile::load(&path).unwrap();
    assert_eq!(Path::new(&config.services[0].command), tool);
    assert_eq!(config.services[0].working_dir, Some(dir.path().join("work")));
    assert_eq!(config.state_dir(), dir.path().join(".ide-supervisor"));
}

#[test]
fn any_damage_to_a_file_gives_short_messages_or_none() {
    let whole = include_str!("data/every-key.toml");
    for at in (0..whole.len()).step_by(3) {
        for put in ["", "\"", "[", "]", "{", "=", "\n", "\0", "9", "-", "\u{1f600}", "\u{7f}"] {
            let damaged = format!("{}{put}{}", &whole[..at], &whole[at + 1..]);
            if let Err(error) = ConfigFile::parse("f.toml", &damaged) {
                let text = error.to_string();
                assert!(text.len() < 2000, "{put:?} at {at}: {text}");
                assert!(!text.contains(['\0', '\u{7f}']), "{put:?} at {at}: {text:?}");
            }
        }
        if let Err(error) = ConfigFile::parse("f.toml", &whole[..at]) {
            assert!(error.to_string().starts_with("f.toml:"), "cut at {at}: {error}");
        }
    }
}

#[test]
fn every_key_of_the_format_is_read() {
    let text = include_str!("data/every-key.toml");
    let config = ConfigFile::parse("ide-supervisor.toml", text).unwrap();
    let written: toml::Table = text.parse().unwrap();
    let service = &written["service"].as_array().unwrap()[0];
    let known = config_schema()["definitions"]["ServiceSpec"]["properties"].as_object().unwrap();
    for key in known.keys() {
        assert!(service.get(key).is_some(), "{key} is not in the example");
    }
    let json = serde_json::to_value(&config.services[0]).unwrap();
    assert_eq!(json["stop_sequence"][0]["signal"], "SIGINT");
    assert_eq!(config.supervisor.max_concurrent_services, 20);
    assert_eq!(config.services[1].id, "webhooks");
}
