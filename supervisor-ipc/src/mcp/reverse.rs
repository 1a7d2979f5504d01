//! What the server asks of the client: sampling, elicitation, roots, and signs of life.

use std::collections::HashMap;

use bytes::Bytes;
use supervisor_core::Generation;

use super::OWN_PREFIX;
use super::fields::{Fields, replaced};
use crate::relay::{Envelope, Id, with_id};

/// One request of the running server that the client has not answered.
#[derive(Debug)]
struct Ask {
    /// The id the server gave it.
    server: Id,
    /// The token the client tells progress under, and the one the server knows.
    token: Option<(Id, Id)>,
}

/// The unanswered requests of the running server.
///
/// The first server's go by the ids it gave them. A later server counts from the same beginning, so its requests get
/// ids of ours: else a client that answers late would answer the wrong question.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// By the id the client knows, with their order.
    open: HashMap<Id, (u64, Ask)>,
    by_server: HashMap<Id, Id>,
    by_token: HashMap<Id, Id>,
    /// Whether a server that is gone has used ids of its own.
    renames: bool,
    used: bool,
    last: u64,
}

impl Asks {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_asked(&self, server: &Id) -> bool {
        self.by_server.contains_key(server)
    }

    /// Takes a request in; gives it as the client shall see it, or nothing if that is as it came.
    pub(super) fn ask(
        &mut self,
        generation: Generation,
        server: Id,
        message: &Bytes,
        fields: &Fields<'_>,
    ) -> Option<Bytes> {
        self.used = true;
        self.last += 1;
        let wanted = fields.wanted_token();
        let token = wanted.and_then(super::fields::id);
        let mut seen = None;
        let mut client = server.clone();
        let mut tokens = None;
        if self.renames {
            client = Id::text(&format!("{OWN_PREFIX}{generation}/ask/{}", self.last));
            let renamed = match (wanted, token) {
                (Some(raw), Some(token)) => {
                    tokens = Some((client.clone(), token));
                    replaced(message, raw, client.as_str())
                }
                _ => message.clone(),
            };
            seen = Some(with_id(&renamed, &client));
        } else if let Some(token) = token {
            tokens = Some((token.clone(), token));
        }
        if let Some((known, _)) = &tokens {
            self.by_token.insert(known.clone(), client.clone());
        }
        self.by_server.insert(server.clone(), client.clone());
        self.open.insert(client, (self.last, Ask { server, token: tokens }));
        seen
    }

    fn close(&mut self, client: &Id) -> Option<Ask> {
        let (_, ask) = self.open.remove(client)?;
        self.by_server.remove(&ask.server);
        if let Some((token, _)) = &ask.token {
            self.by_token.remove(token);
        }
        Some(ask)
    }

    /// The client answered: gives the id the server waits for, or nothing if no server waits.
    pub(super) fn answered(&mut self, client: &Id) -> Option<Id> {
        self.close(client).map(|ask| ask.server)
    }

    /// The server takes a request back: gives the id the client knows.
    pub(super) fn taken_back(&mut self, server: &Id) -> Option<Id> {
        let client = self.by_server.get(server)?.clone();
        self.close(&client);
        Some(client)
    }

    /// Whether a token the client tells progress under belongs to the running server: what it is called there.
    pub(super) fn token(&self, known: &Id) -> Option<&Id> {
        let (_, ask) = self.open.get(self.by_token.get(known)?)?;
        ask.token.as_ref().map(|(_, server)| server)
    }

    /// Whether the client may still hold ids of a server that is gone.
    pub(super) const fn has_past(&self) -> bool {
        self.renames
    }

    /// The server is gone: gives the ids the client shall forget, oldest first.
    pub(super) fn lost(&mut self) -> Vec<Id> {
        self.renames |= self.used;
        self.by_server.clear();
        self.by_token.clear();
        let mut ids: Vec<_> = self.open.drain().map(|(id, (number, _))| (number, id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

/// Gives an answer of the client as the server waits for it.
pub(super) fn answer_for(envelope: &Envelope<'_>, message: &Bytes, server: &Id) -> Option<Bytes> {
    (envelope.id().as_ref() != Some(server)).then(|| with_id(message, server))
}
