//! The program as a person or a script meets it: exit codes, where output goes, what errors say.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn program(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ide-supervisor"))
        .args(args)
        .current_dir(dir)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn init_then_check_is_valid_and_a_second_init_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(program(dir.path(), &["config", "init"]).status.code(), Some(0));
    let checked = program(dir.path(), &["config", "check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("valid (1 service: hello)"));
    let config = dir.path().join("ide-supervisor.toml");
    fs::write(&config, "# mine\n").unwrap();
    let again = program(dir.path(), &["config", "init"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("exists already"));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
}

#[test]
fn a_mistake_ends_with_3_and_its_message_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[[service]]\nid = \"a\"\ncommand = \"sh\"\ncritcal = true\n[supervisor]\nnope = 1\n";
    fs::write(dir.path().join("ide-supervisor.toml"), config).unwrap();
    fs::create_dir(dir.path().join("below")).unwrap();
    // Found upwards, as from a directory of the project.
    let checked = program(&dir.path().join("below"), &["config", "check"]);
    assert_eq!(checked.status.code(), Some(3));
    assert!(checked.stdout.is_empty());
    let said = text(&checked.stderr);
    assert!(said.contains(":4:1: unknown key `critcal` in service \"a\""), "{said}");
    assert!(said.contains("did you mean `critical`?"), "{said}");
    assert!(said.contains(":6:1: unknown key `nope`") && said.contains("2 mistakes"), "{said}");

    let checked = program(dir.path(), &["config", "check", "--json"]);
    assert_eq!(checked.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&report["valid"], &report["line"]), (&false.into(), &4.into()));
    assert_eq!(report["problems"][1]["line"], 6);
}

#[test]
fn no_configuration_ends_with_3_and_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let checked = program(dir.path(), &["config", "check"]);
    assert_eq!(checked.status.code(), Some(3));
    assert!(text(&checked.stderr).contains("config init"));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["nonsense"][..], &[], &["config"], &["config", "check", "--nope"]] {
        assert_eq!(program(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_schema_accepts_the_template_keys_and_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let schema = program(dir.path(), &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["properties"]["service"].is_object());
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn completions_and_the_manual_are_made_for_every_shell_and_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = program(dir.path(), &["completions", shell]);
        let script = text(&script.stdout);
        assert!(script.contains("doctor"), "{shell}");
        assert!(!script.contains("demo-service"), "{shell}: a hidden command is offered");
    }
    let page = text(&program(dir.path(), &["man"]).stdout);
    assert!(
        page.contains(".SH \"EXIT STATUS\"") && page.contains("another supervisor owns"),
        "{page}"
    );
    assert!(page.contains(".SS \"ide\\-supervisor config check\""), "{page}");
    let pages = program(dir.path(), &["man", "--dir", "."]);
    assert_eq!(pages.status.code(), Some(0), "{}", text(&pages.stderr));
    assert!(dir.path().join("ide-supervisor-config-check.1").exists());
}

#[test]
fn output_to_a_file_has_no_colour_unless_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let plain = program(dir.path(), &["doctor"]);
    assert!(!plain.stdout.contains(&0x1b));
    let coloured = program(dir.path(), &["doctor", "--color", "always"]);
    assert!(coloured.stdout.contains(&0x1b));
}

#[test]
fn doctor_names_every_check_with_a_verdict_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), &["config", "init"]);
    let found = program(dir.path(), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() >= 2);
    for check in checks {
        let verdict = check["verdict"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&verdict), "{check}");
        assert!(verdict == "ok" || check["help"].is_string(), "{check}");
    }
    assert_eq!(checks[0]["name"], "configuration");
    assert_eq!(checks[0]["verdict"], "ok");
    assert!(!dir.path().join(".ide-supervisor").exists());
}

#[cfg(unix)]
#[test]
fn doctor_fails_on_a_state_directory_that_is_a_file_and_warns_of_an_open_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let found = program(dir.path(), &["doctor", "--state-dir", "file"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found.stdout).contains("is not a directory"));
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let found = text(&program(dir.path(), &["doctor", "--state-dir", "open"]).stdout);
    assert!(found.contains("others can look inside") && found.contains("chmod 700"), "{found}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"))
        .args(["config", "schema"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything can be written to it.
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(text(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}
