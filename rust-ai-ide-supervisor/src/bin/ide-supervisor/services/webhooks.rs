//! A webhook receiver: what was acknowledged is on the disk, and is listed in the order it came.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::{Answer, Call, serve};
use super::{Listen, say};

/// Most bytes the store grows to; beyond them a hook is refused with 507 and nothing is dropped.
const STORE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most hooks one list holds; the rest is asked for with `?after=`.
const LIST_MAX: usize = 1000;

/// Serves until the process is asked to end; what is posted goes to `store`.
pub(super) fn run(listen: &Listen, store: &Path) -> io::Result<()> {
    let store = Store::open(store)?;
    say(&format!("{} hooks in the store", store.last));
    serve(listen, Mutex::new(store), answer)
}

/// One stored hook, one line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Hook {
    id: u64,
    at: String,
    path: String,
    body: Value,
}

#[derive(Debug)]
struct Store {
    file: File,
    bytes: u64,
    last: u64,
    /// Set when an append failed half-way: the file must be cut back before the next one.
    torn: bool,
}

async fn answer(store: Arc<Mutex<Store>>, call: Call) -> Answer {
    // The disk may take its time; the runtime's workers must not.
    let answered = tokio::task::spawn_blocking(move || {
        // A panic half-way leaves at most a torn line, which the next append cuts off.
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        store.answer(&call)
    });
    answered
        .await
        .unwrap_or_else(|_| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "the store failed"))
}

impl Store {
    /// Opens the file and cuts off a line that a crash left half-written; it was never acknowledged.
    fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut store = Self { file, bytes: 0, last: 0, torn: false };
        let mut reader = BufReader::new(&store.file);
        let mut line = String::new();
        loop {
            line.clear();
            let read = match reader.read_line(&mut line) {
                Ok(read) => read as u64,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => break,
                Err(error) => return Err(error),
            };
            match serde_json::from_str::<Hook>(&line) {
                Ok(hook) if line.ends_with('\n') => {
                    store.last = hook.id;
                    store.bytes += read;
                }
                _ => break,
            }
        }
        store.cut()?;
        Ok(store)
    }

    /// Cuts the file back to what is whole.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        self.torn = false;
        Ok(())
    }

    fn answer(&mut self, call: &Call) -> Answer {
        match (call.method.clone(), call.path.as_str()) {
            (Method::GET, "/health") => Answer::ok(json!({ "status": "ok", "stored": self.last })),
            (Method::GET, "/hooks") => self.list(call),
            (Method::POST, path) if path.starts_with("/hooks/") && path.len() <= 200 => {
                self.store(call)
            }
            (_, "/health" | "/hooks") => {
                Answer::error(StatusCode::METHOD_NOT_ALLOWED, "GET this path")
            }
            _ => Answer::not_found(),
        }
    }

    fn store(&mut self, call: &Call) -> Answer {
        let body = serde_json::from_slice(&call.body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&call.body)));
        let hook =
            Hook { id: self.last + 1, at: Utc::now().to_rfc3339(), path: call.path.clone(), body };
        match self.append(&hook) {
            Ok(()) => Answer(StatusCode::ACCEPTED, json!({ "id": hook.id })),
            Err(error) => {
                self.torn = true;
                let message = format!("not stored: {error}");
                Answer::error(StatusCode::INSUFFICIENT_STORAGE, &message)
            }
        }
    }

    /// Returns once the hook is on the disk.
    fn append(&mut self, hook: &Hook) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        let line = serde_json::to_string(hook)? + "\n";
        if self.bytes + line.len() as u64 > STORE_BYTES_MAX {
            return Err(io::Error::other("the store is full"));
        }
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.bytes += line.len() as u64;
        self.last = hook.id;
        Ok(())
    }

    fn list(&mut self, call: &Call) -> Answer {
        let after = call.query("after").map_or(Some(0), |text| text.parse().ok());
        let Some(after) = after else {
            return Answer::error(StatusCode::BAD_REQUEST, "after is a number");
        };
        match self.read_after(after) {
            Ok(hooks) => Answer::ok(json!({ "stored": self.last, "hooks": hooks })),
            Err(error) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    fn read_after(&mut self, after: u64) -> io::Result<Vec<Hook>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut hooks = Vec::new();
        for line in BufReader::new(&self.file).lines() {
            let hook: Hook = serde_json::from_str(&line?)?;
            if hook.id > after {
                hooks.push(hook);
            }
            if hooks.len() == LIST_MAX {
                break;
            }
        }
        self.file.seek(SeekFrom::Start(self.bytes))?;
        Ok(hooks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(id: u64) -> Hook {
        Hook { id, at: "2026-01-01T00:00:00Z".into(), path: "/hooks/a".into(), body: Value::Null }
    }

    #[test]
    fn a_line_torn_by_a_crash_is_cut_off_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks");
        let mut store = Store::open(&path).unwrap();
        store.append(&hook(1)).unwrap();
        store.append(&hook(2)).unwrap();
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        // Every length the last line can be torn at.
        let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in first_line..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut store = Store::open(&path).unwrap();
            assert_eq!(store.last, 1, "torn at {length}");
            store.append(&hook(2)).unwrap();
            drop(store);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "torn at {length}");
        }
    }

    #[test]
    fn a_list_leaves_the_store_ready_for_the_next_hook() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("hooks")).unwrap();
        for id in 1..=3 {
            store.append(&hook(id)).unwrap();
            assert_eq!(store.read_after(0).unwrap().len() as u64, id);
        }
        let ids: Vec<u64> = store.read_after(1).unwrap().iter().map(|hook| hook.id).collect();
        assert_eq!(ids, [2, 3]);
    }
}
