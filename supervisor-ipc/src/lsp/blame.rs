//! What a server died of, as far as anybody can tell, and what becomes of that.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use supervisor_core::Generation;

use super::documents::{Body, Document};
use super::uri::UriKey;
use super::{LspRelay, Phase};
use crate::relay::{Letter, Loss, Output, shown_uri};

impl LspRelay {
    /// Blames the document whose text the server was last given and never showed to have survived.
    ///
    /// Only a death in the moment of opening it alone counts as proof; anything else only makes it go last and alone
    /// next time. Somebody else's kill proves nothing once the document was survived.
    pub(super) fn blame(&mut self, generation: Generation, loss: &Loss, out: &mut Vec<Output>) {
        let (killed, weight) = (loss.is_kill(), loss.weight());
        let alone = match &self.phase {
            Phase::Restoring(restore) => restore.trying.clone(),
            _ => None,
        };
        let settling = self.settling.pop().map(|(key, _)| key).filter(|_| !killed);
        let suspect = self.unproven.take();
        let restoring = matches!(self.phase, Phase::Restoring(_));
        self.careful = restoring || (self.careful && !matches!(self.phase, Phase::Ready));
        if let Some(key) = alone.or(settling).filter(|key| self.documents.get(key).is_some()) {
            self.proven(&key, weight, generation, loss, out);
        } else if let Some(document) = suspect.and_then(|key| self.documents.get_mut(&key)) {
            document.suspected(weight, generation);
        }
    }

    fn proven(
        &mut self,
        key: &UriKey,
        weight: u8,
        generation: Generation,
        loss: &Loss,
        out: &mut Vec<Output>,
    ) {
        let number = self.letters + 1;
        let Some(document) = self.documents.get_mut(key) else {
            return;
        };
        document.blamed(weight, generation);
        if !document.quarantined() {
            return;
        }
        document.letter = Some(number);
        let text = format!(
            "the language server dies of {}; it is held back until its text changes",
            document.uri
        );
        let letter = letter(number, document, loss);
        self.letters = number;
        out.push(Output::DeadLetter(Box::new(letter)));
        self.tell(&text, out);
    }

    /// Gives a document that is held back to the server again.
    pub(super) fn try_again(&mut self, number: u64, out: &mut Vec<Output>) -> Result<(), String> {
        let key = self.documents.of_letter(number).cloned();
        let key = key.ok_or("it is not held back any more: its text changed, or it was closed")?;
        if let Some(document) = self.documents.get_mut(&key) {
            document.another_chance();
            let uri = &document.uri;
            let text =
                format!("{uri} is given to the server again, because somebody asked for that");
            out.push(Output::Notice(text));
        }
        // Without a server it is part of what the next one gets.
        if self.live() && self.wants(&key) {
            self.open_now(&key, out);
        }
        Ok(())
    }
}

fn letter(number: u64, document: &Document, loss: &Loss) -> Letter {
    let about = json!({ "uri": shown_uri(&document.uri), "version": document.version });
    let (method, about) = match &document.body {
        Body::Notebook(_) => ("notebookDocument/didOpen", about),
        _ => ("textDocument/didOpen", with_digest(about, &document.text)),
    };
    let deaths = document.deaths.len();
    Letter {
        number,
        method: method.to_owned(),
        about,
        cause: format!("{deaths} servers in a row died of it; the last: {loss}"),
        generations: document.deaths.clone(),
        over: None,
    }
}

/// A digest tells which text it was to whoever has that, and nothing to others.
fn with_digest(mut about: Value, text: &str) -> Value {
    let digest = Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    });
    about["bytes"] = text.len().into();
    about["sha256"] = digest.into();
    about
}
