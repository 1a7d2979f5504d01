//! The little of an HTTP server that the model manager and the webhook receiver share.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::fault::Fault;
use super::{Listen, notify_ready, say};
use crate::os;

/// Connections served at once; one more waits in the kernel's queue until another ends.
const CONNECTIONS_MAX: usize = 256;
/// Largest request body, in bytes; a larger one is answered with 413.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a client may take to send its request head before its connection is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer: a status and a JSON document.
pub(super) struct Answer(pub(super) StatusCode, pub(super) Value);

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self(StatusCode::OK, body)
    }

    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self(status, json!({ "error": message }))
    }

    pub(super) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "there is nothing at this path")
    }
}

/// A request whose body was read.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    query: String,
    pub(super) body: Bytes,
}

impl Call {
    /// Gives the value of a query parameter; percent escapes are not undone, as no parameter here needs them.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// Serves `answer` on `listen` until the process is asked to end.
pub(super) fn serve<S, F, A>(listen: &Listen, state: S, answer: F) -> io::Result<()>
where
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, Call) -> A + Copy + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(accept(listen, Arc::new(state), answer))
}

async fn accept<S, F, A>(listen: &Listen, state: Arc<S>, answer: F) -> io::Result<()>
where
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, Call) -> A + Copy + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen.port)).await?;
    let port = listener.local_addr()?.port();
    if let Some(file) = &listen.port_file {
        // Renamed into place, so that whoever waits for the file never reads half a number.
        let partial = file.with_extension("partial");
        fs::write(&partial, format!("{port}\n"))?;
        fs::rename(&partial, file)?;
    }
    say(&format!("listening on 127.0.0.1:{port}"));
    notify_ready();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let end = os::asked_to_end()?;
    tokio::pin!(end);
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return Ok(());
        };
        let stream = tokio::select! {
            () = &mut end => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The client left before it was served, or descriptors ran out; the next may do better.
                Err(error) => {
                    say(&format!("a connection could not be accepted: {error}"));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| respond(Arc::clone(&state), request, answer));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is the client's affair.
            drop(served.await);
            drop(slot);
        });
    }
}

async fn respond<S, F, A>(
    state: Arc<S>,
    request: Request<Incoming>,
    answer: F,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Arc<S>, Call) -> A,
    A: Future<Output = Answer>,
{
    let Answer(status, body) = match read(request).await {
        Ok(call) if call.path == "/fault" => fault(&call),
        Ok(call) => answer(state, call).await,
        Err(refused) => refused,
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string() + "\n")));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

async fn read(request: Request<Incoming>) -> Result<Call, Answer> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| {
        Answer::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body could not be read, or is larger than 256 KiB",
        )
    })?;
    Ok(Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: body.to_bytes(),
    })
}

fn fault(call: &Call) -> Answer {
    if call.method != Method::POST {
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "POST a fault");
    }
    let Some(fault) = call.query("kind").and_then(Fault::parse) else {
        return Answer::error(StatusCode::BAD_REQUEST, "kind is one of hang, crash, leak, flood");
    };
    match fault {
        // Every worker must hang for the whole service to: each gets a task that never gives it back.
        Fault::Hang => {
            for _ in 0..8 {
                drop(tokio::spawn(async { Fault::Hang.commit() }));
            }
        }
        other => other.commit(),
    }
    Answer(StatusCode::ACCEPTED, json!({ "fault": format!("{fault:?}") }))
}
