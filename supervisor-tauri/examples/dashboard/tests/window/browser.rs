//! A real window on a display of its own, driven through WebKitWebDriver.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask};

/// How long anything on the page may take on a machine that is busy building.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The key of an element's handle in every WebDriver answer.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The window's title, from the application's configuration.
const TITLE: &str = "Services";
/// WebDriver's code of the Enter key.
const ENTER: &str = "\u{e007}";

/// A program that ends with the test, whatever comes of it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One session: display, driver and the application that the driver started.
pub(crate) struct Window {
    port: u16,
    session: String,
    number: String,
    driver: Ends,
    _display: Ends,
}

impl Window {
    /// Opens the application; nothing where a program for it is missing, which is said.
    pub(crate) async fn open(state_dir: &Path) -> Option<Self> {
        let (display, number) = display()?;
        // The driver takes no port 0: a port that was free a moment ago has to do, and is tried for until it answers.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let driver = Command::new("WebKitWebDriver")
            .arg(format!("--port={port}"))
            .env("DISPLAY", format!(":{number}"))
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .env("SUPERVISOR_STATE_DIR", state_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(driver) = driver else {
            left_out("WebKitWebDriver");
            return None;
        };
        let mut window =
            Self { port, session: String::new(), number, driver: Ends(driver), _display: display };
        window.session = window.begin().await;
        Some(window)
    }

    async fn begin(&self) -> String {
        let options = json!({ "binary": env!("CARGO_BIN_EXE_supervisor-dashboard"), "args": [] });
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "webkitgtk:browserOptions": options } } });
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.ask(Method::POST, "/session", wanted.clone()).await;
            if let Some(session) =
                answer.as_ref().ok().and_then(|value| value["sessionId"].as_str())
            {
                return session.to_owned();
            }
            assert!(Instant::now() < deadline, "no session: {answer:?}");
            // poll: the driver is not listening yet; a minute at most.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let body = if method == Method::GET { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("127.0.0.1:{}", self.port))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let ok = response.status().is_success();
        let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?;
        connection.abort();
        let value: Value = serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default();
        if ok { Ok(value["value"].clone()) } else { Err(value.to_string()) }
    }

    async fn of_session(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        self.ask(method, &format!("/session/{}{path}", self.session), body).await
    }

    /// Runs a function body in the page and gives what it returns.
    pub(crate) async fn script(&self, body: &str) -> Value {
        let script = json!({ "script": body, "args": [] });
        self.of_session(Method::POST, "/execute/sync", script).await.unwrap()
    }

    /// Polls an expression of the page until it is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + LIMIT;
        while self.script(&format!("return Boolean({expression});")).await != Value::Bool(true) {
            let text = self.script("return document.body.innerText;").await;
            assert!(Instant::now() < deadline, "{what}: {text}");
            // poll: the page changes when an event reaches it; a minute at most.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a service's column says this.
    pub(crate) async fn column(&self, service: &str, column: &str, text: &str) {
        let cell = format!(
            "document.querySelector('[data-service=\"{service}\"] [data-name=\"{column}\"]')"
        );
        let what = format!("{column} of {service} is {text}");
        self.until(&what, &format!("{cell} && {cell}.textContent === '{text}'")).await;
    }

    /// The process that the page shows for a service.
    pub(crate) async fn pid(&self, service: &str) -> u32 {
        let cell = format!("[data-service=\"{service}\"] [data-name=\"pid\"]");
        let text =
            self.script(&format!("return document.querySelector('{cell}').textContent;")).await;
        text.as_str().unwrap().parse().unwrap()
    }

    async fn button(&self, label: &str) -> String {
        let find =
            json!({ "using": "css selector", "value": format!("button[aria-label=\"{label}\"]") });
        let found = self.of_session(Method::POST, "/element", find).await.unwrap();
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Presses a button with the keyboard.
    pub(crate) async fn press(&self, label: &str) {
        let button = self.button(label).await;
        let keys = json!({ "text": ENTER });
        self.of_session(Method::POST, &format!("/element/{button}/value"), keys).await.unwrap();
    }

    /// Gives the role and the name that assistive technology is told of a button.
    pub(crate) async fn told(&self, label: &str) -> (Value, Value) {
        let button = self.button(label).await;
        let ask = async |what: &str| {
            let path = format!("/element/{button}/{what}");
            self.of_session(Method::GET, &path, Value::Null).await.unwrap()
        };
        (ask("computedrole").await, ask("computedlabel").await)
    }

    /// The process in which the page is drawn and its scripts run: a descendant of the driver by way of the application.
    pub(crate) fn page(&self) -> u32 {
        let parent = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
        };
        let ours = |pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let mut ancestors = std::iter::successors(Some(*pid), |pid| parent(*pid));
            // The system cuts names at 15 bytes.
            name.trim() == "WebKitWebProces" && ancestors.any(|pid| pid == self.driver.0.id())
        };
        super::processes().find(ours).unwrap()
    }

    /// Ends the session, for which the driver kills the application.
    pub(crate) async fn kill(self) {
        self.of_session(Method::DELETE, "", Value::Null).await.unwrap();
    }

    /// Asks the window to close as the button of its frame does; the driver itself could only kill the application.
    pub(crate) fn close(&self) {
        let (display, screen) = x11rb::connect(Some(&format!(":{}", self.number))).unwrap();
        let root = display.setup().roots[screen].root;
        let atom =
            |name: &str| display.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
        let (protocols, delete) = (atom("WM_PROTOCOLS"), atom("WM_DELETE_WINDOW"));
        let children = display.query_tree(root).unwrap().reply().unwrap().children;
        for window in children {
            let name = display.get_property(false, window, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 64);
            if name.unwrap().reply().is_ok_and(|name| name.value == TITLE.as_bytes()) {
                let ask = ClientMessageEvent::new(32, window, protocols, [delete, 0, 0, 0, 0]);
                display.send_event(false, window, EventMask::NO_EVENT, ask).unwrap();
            }
        }
        display.flush().unwrap();
    }
}

/// Starts a display whose number the server chooses itself, so that two tests never share one.
fn display() -> Option<(Ends, String)> {
    let started = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut server) = started else {
        left_out("Xvfb");
        return None;
    };
    let output = server.stdout.take().unwrap();
    let server = Ends(server);
    let mut number = String::new();
    BufReader::new(output).read_line(&mut number).unwrap();
    Some((server, number.trim().to_owned()))
}

fn left_out(program: &str) {
    println!("LEFT OUT: {program} is not here, so no window was opened (cargo xtask setup)");
}
