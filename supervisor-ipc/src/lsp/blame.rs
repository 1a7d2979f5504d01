//! What a server died of, as far as anybody can tell, and what becomes of that.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use supervisor_core::Generation;

use super::asked::{Ask, Refusal};
use super::documents::{Body, Document};
use super::methods::Kind;
use super::uri::UriKey;
use super::{LspRelay, Phase};
use crate::relay::{Letter, Loss, NOTHING_WAITS, Output, shortened, shown_uri};

impl LspRelay {
    /// Blames the document whose text the server was last given and never showed to have survived.
    ///
    /// Only a death in the moment of opening it alone counts as proof; anything else only makes it go last and alone
    /// next time. Somebody else's kill proves nothing once the document was survived.
    ///
    /// Gives whether a document is to blame and nothing else can be.
    pub(super) fn blame(
        &mut self,
        generation: Generation,
        loss: &Loss,
        out: &mut Vec<Output>,
    ) -> bool {
        let (killed, weight) = (loss.is_kill(), loss.weight());
        let alone = match &self.phase {
            Phase::Restoring(restore) => restore.trying.clone(),
            _ => None,
        };
        self.settled_before = self.settling.is_empty();
        let settling = self.settling.pop().map(|(key, _)| key).filter(|_| !killed);
        // A request that was asked again meanwhile may be what it died of: they are tried apart the next time.
        let (settling, either) =
            if self.asked.any_blamed() { (None, settling) } else { (settling, None) };
        let suspect = either.or(self.unproven.take());
        let restoring = matches!(self.phase, Phase::Restoring(_));
        self.careful = restoring || (self.careful && !matches!(self.phase, Phase::Ready));
        if let Some(key) = alone.or(settling).filter(|key| self.documents.get(key).is_some()) {
            self.proven(&key, weight, generation, loss, out);
            return true;
        }
        if let Some(document) = suspect.and_then(|key| self.documents.get_mut(&key)) {
            document.suspected(weight, generation);
        }
        false
    }

    /// Tells whether a request has to wait so that it can be told from others whether the server dies of it.
    pub(super) fn must_wait(&self, ask: &Ask) -> bool {
        let quiet = matches!(self.phase, Phase::Ready) && self.settling.is_empty();
        ask.suspect() && (!quiet || self.asked.any_alone())
    }

    /// Says of a request what is kept of it.
    fn bury(&mut self, ask: &Ask, loss: &Loss, out: &mut Vec<Output>) {
        self.letters += 1;
        let about = ask.about.as_ref().and_then(|(key, version)| {
            Some(json!({ "uri": shown_uri(&self.documents.get(key)?.uri), "version": version }))
        });
        let deaths = ask.deaths.len();
        let letter = Letter {
            number: self.letters,
            method: shortened(&ask.method).to_owned(),
            about: about.unwrap_or_else(|| json!({})),
            cause: format!(
                "{deaths} servers in a row died before they answered it; the last: {loss}"
            ),
            generations: ask.deaths.clone(),
            over: Some(NOTHING_WAITS),
        };
        out.push(Output::DeadLetter(Box::new(letter)));
    }

    /// Keeps what can be asked again, and fails the rest at once.
    ///
    /// What was unanswered may be what the server died of, unless that is known to be a document: `weight` says how much
    /// it is blamed then.
    pub(super) fn settle_written(
        &mut self,
        generation: Generation,
        weight: Option<u8>,
        loss: &Loss,
        out: &mut Vec<Output>,
    ) {
        let asks = self.asked.take_written();
        // A document that was just opened may be to blame as well.
        let only = asks.len() == 1 && self.settled_before;
        for mut ask in asks {
            let partial =
                ask.partial.as_ref().is_some_and(|token| self.progress.was_partial(token));
            let again =
                ask.kind == Kind::Read && ask.message.is_some() && !ask.cancelled && !partial;
            let holds = ask.still_holds(&self.documents);
            if let Some(weight) = weight.filter(|_| again && holds) {
                let proven = only || ask.alone;
                ask.blamed(weight, proven, generation);
            }
            if ask.deadly() {
                self.bury(&ask, loss, out);
                self.refuse(&ask, &Refusal::Deadly(generation), out);
            } else if again && holds {
                // The time that is waited for a server begins with its loss.
                ask.deadline = self.now + self.hold();
                if let Some(incident) = &mut self.incident {
                    incident.report.messages.asked_again += 1;
                }
                self.asked.hold(ask);
            } else {
                let why = if again { Refusal::Changed } else { Refusal::Died(generation) };
                self.refuse(&ask, &why, out);
            }
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
