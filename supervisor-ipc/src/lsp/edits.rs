//! What the client says of its documents.

use bytes::Bytes;

use super::LspRelay;
use super::documents::{Document, subject};
use super::notebooks::notebook;
use super::uri::UriKey;
use crate::relay::Output;

impl LspRelay {
    pub(super) fn did_open(
        &mut self,
        message: &Bytes,
        params: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        let before = subject(params).and_then(|key| self.documents.get(&key)?.open_in);
        let Some(key) = self.documents.opened(params) else {
            // What cannot be read here may still mean something to the server.
            return self.state_changed(message, out);
        };
        let open_already = before == Some(self.generation);
        if !self.live() {
            return self.folded();
        }
        self.unproven = Some(key.clone());
        if let Some(document) = self.documents.get_mut(&key) {
            document.open_in = Some(self.generation);
            // A second open without a close between breaks strict servers; the text is what matters.
            let message = if open_already { document.whole_change() } else { message.clone() };
            self.write(message, out);
        }
    }

    pub(super) fn did_change(
        &mut self,
        message: &Bytes,
        params: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        let was_held_back = subject(params)
            .and_then(|key| self.documents.get(&key))
            .is_some_and(Document::quarantined);
        let Some(key) = self.documents.changed(params, self.session.encoding) else {
            return self.state_changed(message, out);
        };
        if !self.live() {
            return self.folded();
        }
        let generation = self.generation;
        let Some(document) = self.documents.get(&key) else {
            return;
        };
        if document.open_in == Some(generation) {
            // Its columns count what the client's do, or the whole text is sent.
            let message =
                if self.server_takes_edits() { message.clone() } else { document.whole_change() };
            self.unproven = Some(key);
            return self.write(message, out);
        }
        if was_held_back {
            let uri = document.uri.clone();
            self.open_now(&key, out);
            let report = format!("{uri} changed and was given to the server again");
            out.push(Output::Notice(report));
        } else {
            self.folded();
        }
    }

    pub(super) fn notebook_opened(
        &mut self,
        message: &Bytes,
        params: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        let generation = self.generation;
        let open = |document: &Document| document.open_in == Some(generation);
        let before = notebook(params)
            .filter(|key| self.documents.get(key).is_some_and(open))
            .and_then(|key| self.documents.close_notebook(&key));
        let Some(key) = self.documents.notebook_opened(params) else {
            return self.state_changed(message, out);
        };
        if !self.live() {
            return self.folded();
        }
        // A second open without a close between breaks strict servers.
        if let Some(close) = before {
            self.write(close, out);
        }
        self.documents.opened_in(&key, generation);
        self.unproven = Some(key);
        self.write(message.clone(), out);
    }

    pub(super) fn notebook_changed(
        &mut self,
        message: &Bytes,
        params: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        let was_held_back = notebook(params).is_some_and(|key| self.documents.held_back(&key));
        let Some(key) = self.documents.notebook_changed(params, self.session.encoding) else {
            return self.state_changed(message, out);
        };
        if !self.live() {
            return self.folded();
        }
        let open = self.documents.get(&key).and_then(|document| document.open_in);
        if open == Some(self.generation) {
            // New cells are open by that.
            self.documents.opened_in(&key, self.generation);
            let whole = || self.documents.whole_notebook_change(params);
            let whole = if self.server_takes_edits() { None } else { whole() };
            self.unproven = Some(key);
            self.write(whole.unwrap_or_else(|| message.clone()), out);
        } else if was_held_back {
            self.open_now(&key, out);
            let text = "a notebook that was held back changed and was given to the server again";
            out.push(Output::Notice(text.to_owned()));
        } else {
            self.folded();
        }
    }

    pub(super) fn did_close(
        &mut self,
        message: &Bytes,
        params: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        let known = self.documents.closed(params);
        self.closed(known, message, out);
    }

    pub(super) fn closed(
        &mut self,
        known: Option<Document>,
        message: &Bytes,
        out: &mut Vec<Output>,
    ) {
        match known {
            Some(document) if document.open_in != Some(self.generation) => self.folded(),
            Some(_) | None => self.state_changed(message, out),
        }
    }

    pub(super) fn did_save(&mut self, key: Option<UriKey>, message: &Bytes, out: &mut Vec<Output>) {
        let live = self.live();
        let generation = self.generation;
        let document = key.and_then(|key| self.documents.get_mut(&key));
        match document {
            Some(document) if !live || document.open_in != Some(generation) => {
                document.saved = true;
                self.folded();
            }
            _ => self.state_changed(message, out),
        }
    }
}
