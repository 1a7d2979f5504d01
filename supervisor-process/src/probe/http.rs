//! One GET over a connection of its own; only the status counts.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Asks for `http://host:port/path`. The body is never read, so its size does not matter.
pub(super) async fn check(target: &str) -> Result<String, String> {
    let rest = target.strip_prefix("http://").ok_or("only http:// is asked")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let stream =
        TcpStream::connect(&address).await.map_err(|error| format!("{address}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, "ide-supervisor-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{target}: {error}"))?;
    let response =
        sender.send_request(request).await.map_err(|error| format!("{address}: {error}"))?;
    drop(connection);
    let status = response.status();
    // The same range kubelet accepts; a redirect is an answer and is not followed.
    if (200..400).contains(&status.as_u16()) {
        Ok(status.to_string())
    } else {
        Err(status.to_string())
    }
}
