//! What a client and its servers have agreed on.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;

use super::lists::List;
use crate::relay::shortened;

/// Subscriptions that are remembered; what is beyond is not restored.
const SUBSCRIPTIONS_MAX: usize = 1000;
/// Longest description of a client in its requests that is repeated in ours, in bytes.
const ENVELOPE_MAX: usize = 4096;
/// Bytes of their parameters.
const SUBSCRIPTION_BYTES_MAX: usize = 1 << 20;

/// Longest greeting, and longest answer to one, that is remembered, in bytes.
pub(super) const GREETING_MAX: usize = 1 << 20;

/// What both sides said when they met.
#[derive(Debug)]
pub(super) struct Agreed {
    /// The client's own parameters of `initialize`.
    pub(super) params: Bytes,
    pub(super) revision: String,
    capabilities: Value,
    server: Value,
}

/// What a server says of itself when it is greeted.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) revision: String,
    pub(super) capabilities: Value,
    server: Value,
}

impl Offer {
    pub(super) fn read(result: &str) -> Option<Self> {
        if result.len() > GREETING_MAX {
            return None;
        }
        let mut result: Value = serde_json::from_str(result).ok()?;
        let revision = result.get("protocolVersion")?.as_str()?.to_owned();
        Some(Self {
            revision,
            capabilities: result["capabilities"].take(),
            server: result["serverInfo"].take(),
        })
    }

    pub(super) fn has(&self, capability: &str) -> bool {
        self.capabilities.get(capability).is_some_and(|value| !value.is_null())
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        self.capabilities.pointer("/resources/subscribe") == Some(&Value::Bool(true))
    }
}

/// The session as the client believes in it.
#[derive(Debug, Default)]
pub(super) struct Session {
    agreed: Option<Agreed>,
    /// What a client that greets nobody says of itself in every request (revision 2026-07-28), as JSON.
    envelope: Option<Bytes>,
    /// Whether the client said that it is ready.
    pub(super) initialized: bool,
    /// The log level and the parameters that set it.
    level: Option<(Box<str>, Bytes)>,
    /// Parameters of each subscription.
    subscriptions: HashMap<Box<str>, (u64, Bytes)>,
    subscription_bytes: usize,
    last_subscription: u64,
}

impl Session {
    pub(super) const fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// A server accepted the client's own greeting: a session begins.
    pub(super) fn agree(&mut self, params: Bytes, offer: Offer) {
        *self = Self {
            agreed: Some(Agreed {
                params,
                revision: offer.revision,
                capabilities: offer.capabilities,
                server: offer.server,
            }),
            ..Self::default()
        };
    }

    /// Takes what a request says of its client.
    pub(super) fn set_envelope(&mut self, envelope: &str) {
        if self.agreed.is_none() && envelope.len() <= ENVELOPE_MAX {
            self.envelope = Some(Bytes::copy_from_slice(envelope.as_bytes()));
        }
    }

    /// What requests of our own have to say of the client, if there is no handshake that has said it.
    pub(super) const fn envelope(&self) -> Option<&Bytes> {
        self.envelope.as_ref()
    }

    pub(super) fn set_level(&mut self, level: Box<str>, params: Bytes) {
        self.level = Some((level, params));
    }

    pub(super) fn level(&self) -> Option<(&str, &Bytes)> {
        self.level.as_ref().map(|(level, params)| (level.as_ref(), params))
    }

    /// Gives whether the subscription is remembered; at the bound it is not.
    pub(super) fn subscribe(&mut self, uri: Box<str>, params: Bytes) -> bool {
        self.unsubscribe(&uri);
        let bytes = uri.len() + params.len();
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX
            || self.subscription_bytes + bytes > SUBSCRIPTION_BYTES_MAX
        {
            return false;
        }
        self.subscription_bytes += bytes;
        self.last_subscription += 1;
        self.subscriptions.insert(uri, (self.last_subscription, params));
        true
    }

    pub(super) fn unsubscribe(&mut self, uri: &str) {
        if let Some((uri, (_, params))) = self.subscriptions.remove_entry(uri) {
            self.subscription_bytes -= uri.len() + params.len();
        }
    }

    /// Every subscription in the order in which they were made.
    pub(super) fn subscriptions(&self) -> Vec<(Box<str>, Bytes)> {
        let mut all: Vec<_> = self.subscriptions.iter().collect();
        all.sort_unstable_by_key(|(_, (number, _))| *number);
        all.into_iter().map(|(uri, (_, params))| (uri.clone(), params.clone())).collect()
    }

    /// Whether the client was promised that it will be told when `list` changes.
    pub(super) fn expects_changes(&self, list: List) -> bool {
        let capability = self.agreed.as_ref().and_then(|a| a.capabilities.get(list.capability()));
        capability.and_then(|value| value.get("listChanged")) == Some(&Value::Bool(true))
    }

    /// What a new server offers differently from what the client was told.
    pub(super) fn changes(&self, offer: &Offer) -> Vec<String> {
        let Some(agreed) = &self.agreed else { return Vec::new() };
        let mut changes = Vec::new();
        let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (old, new) = (members(&agreed.capabilities), members(&offer.capabilities));
        for name in old.keys().filter(|name| !new.contains_key(*name)).take(16) {
            changes.push(format!("capability {} is gone", shortened(name)));
        }
        let differing = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
        for (name, _) in differing.take(16) {
            let word = if old.contains_key(name) { "differs" } else { "is new" };
            changes.push(format!("capability {} {word}", shortened(name)));
        }
        let version =
            |server: &Value| server.get("version").and_then(Value::as_str).map(str::to_owned);
        let (old, new) = (version(&agreed.server), version(&offer.server));
        if old != new {
            let word = |version: &Option<String>| {
                version.as_deref().map_or_else(|| "none".to_owned(), |v| shortened(v).to_owned())
            };
            changes.push(format!("version {} instead of {}", word(&new), word(&old)));
        }
        changes
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.subscription_bytes
            + self.level.as_ref().map_or(0, |(level, params)| level.len() + params.len())
            + self.agreed.as_ref().map_or(0, |agreed| agreed.params.len())
            + self.envelope.as_ref().map_or(0, Bytes::len)
    }
}
