//! What a server left standing at the client: diagnostics and progress.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use supervisor_core::{Generation, Monotonic};

use crate::relay::notification;

/// Documents whose diagnostics are tracked; those of more cannot be cleared when a server dies.
const DIAGNOSTICS_MAX: usize = 65_536;
/// Progress tracked; more cannot be ended when a server dies.
const PROGRESS_MAX: usize = 4096;

/// Diagnostics the client shows, by the document as the server spelled it.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    shown: HashMap<Box<str>, Generation>,
    /// When those of older generations are cleared.
    clear_at: Option<Monotonic>,
}

#[derive(Debug, Deserialize)]
struct Published<'a> {
    #[serde(borrow)]
    uri: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    diagnostics: &'a serde_json::value::RawValue,
}

impl Diagnostics {
    pub(crate) fn published(&mut self, params: Option<&str>, generation: Generation) {
        let Some(published) =
            params.and_then(|text| serde_json::from_str::<Published<'_>>(text).ok())
        else {
            return;
        };
        let empty =
            published.diagnostics.get().trim_matches(['[', ']', ' ', '\n', '\r', '\t']).is_empty();
        if empty {
            self.shown.remove(published.uri.as_ref());
        } else if self.shown.len() < DIAGNOSTICS_MAX
            || self.shown.contains_key(published.uri.as_ref())
        {
            self.shown.insert(published.uri.as_ref().into(), generation);
        }
    }

    /// Says when what no server renewed is cleared.
    pub(crate) fn clear_at(&mut self, at: Monotonic) {
        self.clear_at = (!self.shown.is_empty()).then_some(at);
    }

    pub(crate) const fn deadline(&self) -> Option<Monotonic> {
        self.clear_at
    }

    /// Clears what is not of `current`, if it is time.
    pub(crate) fn clear(&mut self, current: Option<Generation>, now: Monotonic) -> Vec<Bytes> {
        if self.clear_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.clear_at = None;
        let mut stale: Vec<_> = self
            .shown
            .extract_if(|_, generation| Some(*generation) != current)
            .map(|(uri, _)| uri)
            .collect();
        stale.sort_unstable();
        let clear = |uri: Box<str>| {
            let params = json!({ "uri": uri, "diagnostics": [] }).to_string();
            notification("textDocument/publishDiagnostics", params.as_bytes())
        };
        stale.into_iter().map(clear).collect()
    }
}

/// Progress that began and has not ended, by its token as JSON.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    open: HashSet<Box<str>>,
    /// Tokens that carried results instead: who asked with one cannot be answered a second time.
    partial: HashSet<Box<str>>,
}

#[derive(Debug, Deserialize)]
struct Step {
    token: Value,
    #[serde(default)]
    value: Value,
}

impl Progress {
    pub(crate) fn seen(&mut self, params: Option<&str>) {
        let Some(step) = params.and_then(|text| serde_json::from_str::<Step>(text).ok()) else {
            return;
        };
        let token: Box<str> = step.token.to_string().into();
        match step.value.get("kind").and_then(Value::as_str) {
            Some("begin") if self.open.len() < PROGRESS_MAX => _ = self.open.insert(token),
            Some("end") => _ = self.open.remove(&token),
            Some(_) => {}
            None if self.partial.len() < PROGRESS_MAX => _ = self.partial.insert(token),
            None => {}
        }
    }

    /// Tells whether the server said that something takes long.
    pub(crate) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// Tells whether a part of the answer went out already under this token.
    pub(crate) fn was_partial(&self, token: &str) -> bool {
        self.partial.contains(token)
    }

    /// The request that named this token is answered; the client may use it again.
    pub(crate) fn answered(&mut self, token: &str) {
        self.partial.remove(token);
    }

    /// Ends everything, because who reported it is gone.
    pub(crate) fn end_all(&mut self) -> Vec<Bytes> {
        self.partial.clear();
        let mut tokens: Vec<_> = self.open.drain().collect();
        tokens.sort_unstable();
        let end = |token: Box<str>| {
            let params = format!(r#"{{"token":{token},"value":{{"kind":"end"}}}}"#);
            notification("$/progress", params.as_bytes())
        };
        tokens.into_iter().map(end).collect()
    }
}
