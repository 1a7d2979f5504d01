//! Where probes and channels ask.

use supervisor_core::config::{
    ChannelBinding, FramingKind, ProbeKind, ProbeRole, ProbeSpec, TransportKind,
};

use super::{KIB, bounds, set};

#[test]
fn probes_ask_where_something_can_answer() {
    let of = |kind, target: &str| {
        let probe = ProbeSpec::new(ProbeRole::Readiness, kind).with_target(target);
        set(move |spec| spec.probes = vec![probe.clone()])
    };
    let tcp = |target: &str| of(ProbeKind::Tcp, target);
    bounds(
        "probe[0].target",
        vec![tcp("localhost:1"), tcp("127.0.0.1:65535"), tcp("[::1]:80"), tcp("a-b_c.d:80")],
        [
            "",
            "localhost",
            ":80",
            "h:0",
            "h:65536",
            "h:-1",
            "h:x",
            "a b:80",
            "[::1",
            "[x]:80",
            "h:80/path",
            "u@h:80",
        ]
        .map(tcp)
        .into(),
    );
    let http = |target: &str| of(ProbeKind::Http, target);
    let long = |n: usize| format!("http://h/{}", "x".repeat(n - 9));
    let mut refused: Vec<_> = [
        "",
        "h",
        "https://h/",
        "ftp://h/",
        "http://",
        "http:///x",
        "http://u@h/",
        "http://h:0/",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://h:x/",
    ]
    .map(http)
    .into();
    refused.push(http(&long(2049)));
    bounds(
        "probe[0].target",
        vec![http("http://h"), http("http://h:1/?q=1"), http(&long(2048))],
        refused,
    );
    bounds(
        "probe[0].target",
        vec![],
        [ProbeKind::Process, ProbeKind::Heartbeat, ProbeKind::Ipc]
            .map(|kind| of(kind, "h:1"))
            .into(),
    );
    let exec = |kind, words: Vec<String>| {
        let probe = ProbeSpec { command: words, ..ProbeSpec::new(ProbeRole::Readiness, kind) };
        set(move |spec| spec.probes = vec![probe.clone()])
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    bounds(
        "probe[0].command",
        vec![
            exec(ProbeKind::Exec, words(&["true"])),
            exec(ProbeKind::Exec, vec!["x".into(); 4096]),
        ],
        vec![
            exec(ProbeKind::Exec, vec![]),
            exec(ProbeKind::Exec, words(&[""])),
            exec(ProbeKind::Exec, words(&["true", "a\0"])),
            exec(ProbeKind::Exec, vec!["x".into(); 4097]),
            exec(ProbeKind::Exec, vec!["true".into(), "x".repeat(128 * KIB + 1)]),
            exec(ProbeKind::Process, words(&["true"])),
        ],
    );
}

#[test]
fn a_channel_says_where_it_listens() {
    let of = |transport, path: Option<&str>, address: Option<&str>| {
        let binding = ChannelBinding {
            path: path.map(Into::into),
            address: address.map(str::to_owned),
            ..ChannelBinding::new(transport, FramingKind::Lsp)
        };
        set(move |spec| spec.channel = Some(binding.clone()))
    };
    let (stdio, unix, pipe, tcp) =
        (TransportKind::Stdio, TransportKind::Unix, TransportKind::Pipe, TransportKind::Tcp);
    let path = |path: &str| of(unix, Some(path), None);
    bounds(
        "channel.path",
        vec![
            of(stdio, None, None),
            path("socket"),
            path(&"x".repeat(4095)),
            of(pipe, Some("p"), None),
        ],
        vec![
            of(unix, None, None),
            of(pipe, None, None),
            path(""),
            path("a\0b"),
            path("a\nb"),
            path(&"x".repeat(4096)),
            of(stdio, Some("socket"), None),
            of(tcp, Some("socket"), Some("h:1")),
        ],
    );
    let address = |address: &str| of(tcp, None, Some(address));
    bounds(
        "channel.address",
        vec![address("127.0.0.1:1"), address("[::1]:65535")],
        vec![
            of(tcp, None, None),
            address(""),
            address("h"),
            address("h:0"),
            address("h:65536"),
            address("a b:1"),
            address("h\0:1"),
            address(&format!("{}:1", "x".repeat(300))),
            of(stdio, None, Some("h:1")),
            of(unix, Some("socket"), Some("h:1")),
        ],
    );
}
