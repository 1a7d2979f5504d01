//! Paths that come from outside: every trick refused by a rule that is named, what was checked is what is opened.

use std::fs;
use std::io::Read;
use std::path::Path;

use supervisor_persist::{create_secure_file, open_secure_file, validate_secure_path};

#[test]
fn every_trick_with_a_path_is_refused_by_the_rule_it_breaks() {
    let root = tempfile::tempdir().unwrap();
    let roots = [root.path().to_owned()];
    let long = "x/".repeat(3000);
    let cases: [(&str, &str); 44] = [
        ("", "empty"),
        ("..", ".."),
        ("a/..", ".."),
        ("../../etc/passwd", ".."),
        ("a/b/../../..", ".."),
        (".", ". segment"),
        ("./a", ". segment"),
        ("a/./b", ". segment"),
        ("/etc/passwd", "outside"),
        ("/", "outside"),
        ("a\0b", "NUL"),
        ("\0", "NUL"),
        ("a\nb", "control"),
        ("a\u{7f}", "control"),
        ("a\u{1b}[2J", "control"),
        ("a\u{85}b", "control"),
        ("con", "reserved"),
        ("CON", "reserved"),
        ("CoN.tXt", "reserved"),
        ("dir/NUL.tar.gz", "reserved"),
        ("aux .txt", "reserved"),
        ("com¹", "reserved"),
        ("LPT³.log", "reserved"),
        ("CONIN$", "reserved"),
        ("clock$", "reserved"),
        ("a ", "space or a dot"),
        ("a.", "space or a dot"),
        ("...", "space or a dot"),
        ("a. /b", "space or a dot"),
        ("file:stream", "colon"),
        ("C:/x", "colon"),
        ("a\\b", "backslash"),
        ("..\\..\\x", "backslash"),
        ("\\\\server\\share", "backslash"),
        ("a\u{202e}gpj.exe", "not seen"),
        ("a\u{200b}", "not seen"),
        (".\u{200d}./x", "not seen"),
        ("\u{feff}a", "not seen"),
        ("a\u{ad}b", "not seen"),
        ("\u{ff0e}\u{ff0e}/x", "looks like"),
        ("a\u{2215}etc", "looks like"),
        ("a\u{ff0f}b", "looks like"),
        ("a\u{2026}", "looks like"),
        (long.as_str(), "longer"),
    ];
    for (path, rule) in cases {
        let refused =
            validate_secure_path(path, &roots).expect_err(&format!("{path:?} was accepted"));
        assert!(refused.to_string().contains(rule), "{path:?}: {refused} does not name {rule}");
        assert!(!refused.to_string().chars().any(char::is_control), "{refused:?}");
        assert!(open_secure_file(path, &roots).is_err());
        assert!(create_secure_file(path, &roots).is_err());
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    for good in
        ["a", "ä", "日本語.txt", "e\u{301}", "a b", "a..b", ".hidden", "console", "com10", "x$"]
    {
        assert!(validate_secure_path(good, &roots).is_ok(), "{good:?} was refused");
    }
}

#[test]
fn without_a_root_and_with_a_root_that_is_not_there_nothing_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    assert!(validate_secure_path("a", &[]).is_err());
    assert!(validate_secure_path("a", &[root.path().join("missing")]).is_err());
    // A sibling whose name begins like the root's is not in it.
    let sibling = root.path().join("state-evil");
    fs::create_dir(&sibling).unwrap();
    fs::create_dir(root.path().join("state")).unwrap();
    assert!(validate_secure_path(sibling.join("x"), &[root.path().join("state")]).is_err());
}

// Elsewhere a pipe is made in another way; the rules are the same.
#[cfg(target_os = "linux")]
#[test]
fn links_devices_pipes_and_sockets_are_not_opened() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let roots = [root.path().to_owned()];
    let at = |name: &str| root.path().join(name);
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path().join("secret"), at("file-link")).unwrap();
    symlink(outside.path(), at("dir-link")).unwrap();
    symlink("../../../../../etc", at("up-link")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::create_dir(at("directory")).unwrap();
    for path in [
        "file-link",
        "dir-link/secret",
        "dir-link/new",
        "up-link/passwd",
        "loop",
        "loop/x",
        "zero",
        "dangling",
        "socket",
        "pipe",
        "directory",
    ] {
        assert!(open_secure_file(path, &roots).is_err(), "{path} was opened");
        assert!(create_secure_file(path, &roots).is_err(), "{path} was made");
    }
    for path in ["socket", "pipe", "zero"] {
        let refused = validate_secure_path(path, &roots);
        assert!(refused.is_err(), "{path} was accepted");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // A link that stays inside is resolved, and what is opened is the file itself.
    fs::write(at("real"), "mine").unwrap();
    symlink("real", at("inside")).unwrap();
    let (mut file, real) = open_secure_file("inside", &roots).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), real.file_name().unwrap().to_str()), ("mine", Some("real")));
}

#[cfg(unix)]
#[test]
fn a_link_swapped_in_while_files_are_opened_never_leads_outside() {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let roots = [root.path().to_owned()];
    fs::create_dir(root.path().join("dir")).unwrap();
    fs::write(root.path().join("dir/file"), "inside").unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    symlink(outside.path(), root.path().join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, dir) = (Arc::clone(&stop), root.path().to_owned());
    let swapper = std::thread::spawn(move || {
        let name = |n: &str| dir.join(n);
        let swap = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
        let mut swaps = 0_u32;
        while !stopped.load(Ordering::Relaxed) {
            swap(&name("dir"), &name("away"));
            swap(&name("link"), &name("dir"));
            swap(&name("dir"), &name("link"));
            swap(&name("away"), &name("dir"));
            swaps += 1;
        }
        swaps
    });
    let mut opened = 0_u32;
    for _ in 0..20_000 {
        if let Ok((mut file, _)) = open_secure_file("dir/file", &roots) {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
            opened += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    assert!(opened > 0 && swaps > 0, "{opened} opened, {swaps} swaps");
}
