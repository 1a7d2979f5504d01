//! Which documents a message of the server names places in, and whether those places mean the same to the client.
//!
//! A server started again may count columns in another way than its predecessor had agreed on. In a text of ASCII alone
//! every encoding counts the same; what names a place in any other text is not passed on, because it would mean another
//! place there, and an edit would spoil the text.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde_json::{Value, json};

use super::LspRelay;
use super::asked::{Ask, Refusal};
use super::uri::UriKey;
use crate::relay::{Envelope, Id, Output, success};

/// Documents one message may name; one that names more is not passed on.
const NAMED_MAX: usize = 256;

/// Tells of documents the client has not open.
pub trait Files: Send + fmt::Debug {
    /// Tells whether the text behind this URI is ASCII alone; nothing if that cannot be told.
    fn is_ascii(&self, uri: &str) -> Option<bool>;
}

/// What a message names.
#[derive(Debug, Default)]
struct Named<'m> {
    documents: BTreeSet<&'m str>,
    /// It names columns, too.
    columns: bool,
}

impl<'m> Named<'m> {
    fn of(value: &'m Value) -> Self {
        let mut named = Self::default();
        named.look(value);
        named
    }

    // As deep as a message may be nested, which was checked when it was read.
    fn look(&mut self, value: &'m Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.look(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        ("character", _) => self.columns = true,
                        ("uri" | "targetUri", Value::String(uri)) => _ = self.documents.insert(uri),
                        // Edits and reports stand under the names of their documents.
                        ("changes" | "relatedDocuments", Value::Object(by_uri)) => {
                            self.documents.extend(by_uri.keys().map(String::as_str));
                        }
                        _ => {}
                    }
                    self.look(member);
                }
            }
            _ => {}
        }
    }
}

impl LspRelay {
    /// Lets it look at files the client has not open, which it needs when a server counts columns in another way.
    #[must_use]
    pub fn looking_at(mut self, files: Box<dyn Files>) -> Self {
        self.files = Some(files);
        self
    }

    /// Tells whether the running server counts columns in another way than the client was promised.
    pub(super) fn miscounts(&self) -> bool {
        self.server_encoding != self.session.encoding
    }

    fn is_ascii(&self, uri: &str) -> bool {
        match self.documents.get(&UriKey::new(uri)) {
            Some(document) => document.text.is_ascii(),
            None => self.files.as_ref().and_then(|files| files.is_ascii(uri)).unwrap_or(false),
        }
    }

    /// Tells whether a part of a message names a place that would mean another one to the client.
    pub(super) fn misplaces(&self, part: Option<&str>) -> bool {
        if !self.miscounts() {
            return false;
        }
        let value: Value =
            part.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let named = Named::of(&value);
        named.columns
            && (named.documents.len() > NAMED_MAX
                || named.documents.into_iter().any(|uri| !self.is_ascii(uri)))
    }

    /// Says why a request cannot be asked of a server whose columns count something else than the client was promised.
    pub(super) fn miscounted(&self, ask: &Ask) -> Option<String> {
        let about = ask.about.as_ref().and_then(|(key, _)| self.documents.get(key));
        let elsewhere = self.miscounts() && about.is_some_and(|document| !document.text.is_ascii());
        elsewhere.then(|| self.other_columns())
    }

    fn other_columns(&self) -> String {
        let (theirs, promised) = (self.server_encoding.name(), self.session.encoding.name());
        format!(
            "since it was restarted the language server counts columns in {theirs}, and the editor was promised \
             {promised}; restart the server from the editor to agree anew"
        )
    }

    /// Answers a request whose result would mean other places; gives whether that was so.
    pub(super) fn keeps_back(
        &mut self,
        ask: &Ask,
        result: Option<&str>,
        out: &mut Vec<Output>,
    ) -> bool {
        let kept = self.misplaces(result);
        if kept {
            self.refuse(ask, &Refusal::Misplaced(self.other_columns()), out);
        }
        kept
    }

    /// Answers a question of the server that the client must not be asked, because it would mean other places; gives
    /// whether that was so.
    pub(super) fn refuses_places(
        &mut self,
        envelope: &Envelope<'_>,
        id: &Id,
        out: &mut Vec<Output>,
    ) -> bool {
        let method = envelope.method();
        let moves = method == "workspace/applyEdit" || method == "window/showDocument";
        if !moves || !self.misplaces(envelope.params()) {
            return false;
        }
        let answer = if method == "workspace/applyEdit" {
            json!({ "applied": false, "failureReason": self.other_columns() })
        } else {
            json!({ "success": false })
        };
        self.write(success(id, answer.to_string().as_bytes()), out);
        true
    }
}

/// Takes from a request what makes its answer come in parts, which can be judged only as a whole.
pub(super) fn in_one_piece(message: &Bytes) -> Option<Bytes> {
    let mut request: Value = serde_json::from_slice(message).ok()?;
    request.get_mut("params")?.as_object_mut()?.remove("partialResultToken")?;
    Some(request.to_string().into())
}
