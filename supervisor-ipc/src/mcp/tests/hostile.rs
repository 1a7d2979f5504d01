//! Peers that are wrong or mean harm.

use super::*;
use crate::mcp::REJECTED;

#[test]
fn what_the_client_says_that_is_no_message_is_answered_and_kept_from_the_server() {
    let deep = "[".repeat(200_000);
    let cases: Vec<(Vec<u8>, i64)> = vec![
        (b"Content-Length: 12".to_vec(), -32700),
        (b"{\"id\":1,\"method\":\"a".to_vec(), -32700),
        (b"\xff\xfe".to_vec(), -32700),
        (format!("{{\"id\":1,\"method\":\"x\",\"params\":{deep}").into_bytes(), -32700),
        (b"{\"id\":{},\"method\":\"a\"}".to_vec(), -32600),
        (b"{\"id\":null,\"method\":\"a\"}".to_vec(), -32600),
        (b"{\"jsonrpc\":\"2.0\"}".to_vec(), -32600),
        (b"[]".to_vec(), -32600),
        (b"[{\"id\":1},".to_vec(), -32700),
        (format!("[{}1]", "1,".repeat(1000)).into_bytes(), -32600),
        (format!("{{\"id\":\"{}\",\"method\":\"a\"}}", "x".repeat(2000)).into_bytes(), -32600),
    ];
    for (message, code) in cases {
        let mut desk = Desk::in_session();
        desk.client(&message);
        let shown = String::from_utf8_lossy(&message[..message.len().min(40)]).into_owned();
        assert!(desk.to_server.is_empty(), "{shown}");
        assert_eq!(desk.told()[0]["error"]["code"], code, "{shown}");
        assert_eq!(desk.told()[0]["id"], Value::Null, "{shown}");
    }
    let mut desk = Desk::in_session();
    desk.client(b"Content-Length: 12");
    desk.client(b"Content-Length: 12");
    assert_eq!(desk.notices.len(), 1, "said once");
    assert!(desk.notices[0].contains("--protocol lsp"));
}

#[test]
fn what_the_server_says_that_is_no_message_is_kept_from_the_client() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    for message in [
        &b"Server is up!\x07"[..],
        b"\xff",
        b"{}",
        b"[]",
        b"[1,2]",
        b"{\"id\":1,\"id\":2,\"result\":1}",
    ] {
        desk.server(message);
    }
    assert!(desk.to_client.is_empty());
    assert_eq!(desk.notices.len(), 1);
    assert!(desk.notices[0].contains("Server is up!\\u{7}"), "{}", desk.notices[0]);
    desk.answer(5, "{}");
    assert_eq!(desk.to_client.len(), 1);
}

#[test]
fn answers_nobody_asked_for_and_second_answers_are_kept_from_the_client() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.answer(99, "{}");
    desk.answer("5", "{}");
    desk.answer("ide-supervisor/1/1", "{}");
    desk.answer(5, "{}");
    desk.answer(5, "{}");
    assert_eq!(desk.to_client.len(), 1);
    assert_eq!(desk.notices.len(), 1);
}

#[test]
fn a_second_request_with_an_id_in_use_is_refused_and_the_first_one_is_answered() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    desk.client(call(5, "add"));
    assert_eq!(desk.to_server.len(), 1);
    assert_eq!(desk.told()[0]["error"]["code"], -32600);
    desk.answer(5, "{}");
    assert_eq!(desk.told()[1]["result"], json!({}));
}

#[test]
fn a_client_that_uses_ids_like_ours_is_not_mistaken_for_us() {
    let mut desk = Desk::in_session();
    desk.pass(31 * SECOND);
    let ours = desk.asked()[0]["id"].clone();
    desk.client(json!({"jsonrpc": "2.0", "id": ours, "method": "resources/read"}).to_string());
    let theirs = desk.asked()[1]["id"].clone();
    assert_ne!(ours, theirs);
    desk.answer(ours.clone(), r#""ping""#);
    assert!(desk.to_client.is_empty());
    desk.answer(theirs, r#""read""#);
    assert_eq!(desk.told(), [json!({"jsonrpc": "2.0", "id": ours, "result": "read"})]);
}

#[test]
fn requests_nobody_answers_are_bounded_and_the_next_one_is_refused_by_name() {
    let mut desk = Desk::in_session();
    for id in 10..1010 {
        desk.client(call(id, "add"));
    }
    assert!(desk.to_client.is_empty());
    desk.client(call(5000, "add"));
    let told = desk.told();
    assert_eq!(
        (told[0]["id"].as_u64(), told[0]["error"]["code"].as_i64()),
        (Some(5000), Some(REJECTED))
    );
    assert_eq!(told[0]["error"]["data"]["sent"], false);
    for _ in 0..61 {
        desk.pass(60 * SECOND);
        desk.server(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
    }
    desk.clear();
    desk.client(call(5001, "add"));
    assert_eq!(desk.methods(), ["tools/call"], "nobody waits for the oldest any more");
}

#[test]
fn bytes_that_wait_are_bounded_and_what_is_beyond_is_refused() {
    let mut options = McpOptions::default();
    options.recovery.max_buffered_bytes = supervisor_core::text::ByteSize::kib(80);
    let mut desk = Desk::in_session_with(options);
    desk.lost();
    let big = |id: u64, tool: &str| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": "x".repeat(30 << 10)}}).to_string()
    };
    for id in 10..20 {
        desk.client(big(id, "add"));
    }
    assert_eq!(desk.to_client.len(), 8);
    assert!(desk.relay.kept_bytes() <= 80 << 10);
    desk.recover();
    assert_eq!(desk.methods(), ["tools/call", "tools/call"]);
    for id in 30..60 {
        desk.client(big(id, "look"));
    }
    assert_eq!(desk.to_server.len(), 32, "a running server gets them all");
    assert!(desk.relay.kept_bytes() <= 80 << 10, "but they are not all kept");
    desk.clear();
    desk.lost();
    assert_eq!(desk.to_client.len(), 30, "what was not kept fails");
    assert_eq!(desk.relay.held(), 2);
}

#[test]
fn notifications_that_wait_are_bounded() {
    let mut desk = Desk::in_session();
    desk.lost();
    for _ in 0..3000 {
        desk.client(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    }
    desk.recover();
    assert_eq!(desk.methods().len(), 1000);
    assert_eq!(desk.reports[0].messages.dropped, 2000);
}

#[test]
fn lists_and_subscriptions_of_any_length_cost_bounded_memory() {
    let mut desk = Desk::in_session();
    for page in 0..100 {
        let tools: Vec<_> =
            (0..1000).map(|n| json!({"name": format!("{page}-{n}-{}", "x".repeat(60))})).collect();
        let cursor = if page == 0 { json!({}) } else { json!({"cursor": page.to_string()}) };
        desk.client(
            json!({"jsonrpc": "2.0", "id": page + 10, "method": "tools/list", "params": cursor})
                .to_string(),
        );
        desk.answer(
            page + 10,
            &json!({"tools": tools, "nextCursor": (page + 1).to_string()}).to_string(),
        );
    }
    for n in 0..5000_u64 {
        desk.client(json!({"jsonrpc": "2.0", "id": n + 1000, "method": "resources/subscribe", "params": {"uri": format!("a:{n}")}}).to_string());
        desk.answer(n + 1000, "{}");
    }
    assert!(desk.relay.kept_bytes() < 4 << 20, "{}", desk.relay.kept_bytes());
    assert!(desk.notices.iter().any(|notice| notice.contains("subscriptions")));
}

#[test]
fn what_waits_in_a_batch_goes_by_itself_and_the_rest_of_a_batch_stays_one() {
    let mut desk = Desk::in_session();
    desk.client(format!("[{},{}]", read(5), call(6, "add")));
    desk.lost();
    assert_eq!(desk.told().len(), 1, "the call fails by itself");
    desk.client(format!("[{},{}]", read(7), r#"{"jsonrpc":"2.0","method":"notifications/x"}"#));
    desk.recover();
    assert_eq!(desk.methods(), ["resources/read", "resources/read", "notifications/x"]);
    desk.clear();
    desk.client(format!("[{},{},7,{}]", read(8), read(7), read(9)));
    assert_eq!(desk.to_server, [format!("[{},{}]", read(8), read(9))]);
    assert_eq!(desk.told().len(), 2, "an id in use and something that is no message");
}
