//! The few members of parameters and results that matter, as they stand in a message.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::relay::Id;

/// Members of parameters, read in one pass; one that is absent, `null` or there twice is nothing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fields<'m> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'m RawValue>,
    #[serde(borrow)]
    pub(super) cursor: Option<&'m RawValue>,
    #[serde(borrow)]
    level: Option<&'m RawValue>,
    #[serde(borrow)]
    name: Option<&'m RawValue>,
    #[serde(borrow)]
    pub(super) notifications: Option<&'m RawValue>,
    #[serde(borrow)]
    progress: Option<&'m RawValue>,
    #[serde(borrow, rename = "progressToken")]
    pub(super) token: Option<&'m RawValue>,
    #[serde(borrow, rename = "protocolVersion")]
    pub(super) revision: Option<&'m RawValue>,
    #[serde(borrow, rename = "requestId")]
    pub(super) request: Option<&'m RawValue>,
    #[serde(borrow)]
    pub(super) task: Option<&'m RawValue>,
    #[serde(borrow)]
    uri: Option<&'m RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta<'m> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'m RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    revision: Option<&'m RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'m RawValue>,
}

impl<'m> Fields<'m> {
    pub(super) fn read(params: Option<&'m str>) -> Self {
        params.and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default()
    }

    fn meta(&self) -> Option<Meta<'m>> {
        serde_json::from_str(self.meta?.get()).ok()
    }

    /// The token under which a request wants its progress told.
    pub(super) fn wanted_token(&self) -> Option<&'m RawValue> {
        self.meta()?.token
    }

    /// What a request says of its client when there is no handshake; nothing if it is about this one request, too.
    pub(super) fn envelope(&self) -> Option<&'m str> {
        let meta = self.meta().filter(|meta| meta.revision.is_some() && meta.token.is_none());
        meta.and(self.meta).map(RawValue::get)
    }

    /// The listening request a notification belongs to.
    pub(super) fn subscription(&self) -> Option<Id> {
        self.meta()?.subscription.and_then(id)
    }

    pub(super) fn level(&self) -> Option<String> {
        text(self.level)
    }

    pub(super) fn name(&self) -> Option<String> {
        text(self.name)
    }

    pub(super) fn uri(&self) -> Option<String> {
        text(self.uri)
    }

    pub(super) fn progress(&self) -> Option<f64> {
        serde_json::from_str(self.progress?.get()).ok()
    }

    /// The request that is meant, in the one form ids have.
    pub(super) fn request_id(&self) -> Option<Id> {
        self.request.and_then(id)
    }
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Reads a request's id or a progress token: both are numbers or texts. One that is too long to be kept is none.
pub(super) fn id(raw: &RawValue) -> Option<Id> {
    Some(raw.get()).filter(|raw| raw.len() <= super::ID_MAX).and_then(Id::parse)
}

/// Gives the message with `part`, which must be a piece of it, replaced.
pub(super) fn replaced(message: &Bytes, part: &RawValue, with: &str) -> Bytes {
    let part = part.get();
    let start = (part.as_ptr() as usize).wrapping_sub(message.as_ptr() as usize);
    let (Some(before), Some(after)) =
        (message.get(..start), message.get(start.saturating_add(part.len())..))
    else {
        return message.clone();
    };
    let mut new = BytesMut::with_capacity(before.len() + with.len() + after.len());
    new.put_slice(before);
    new.put_slice(with.as_bytes());
    new.put_slice(after);
    new.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Envelope;

    #[test]
    fn a_member_is_replaced_and_every_other_byte_stays() {
        let message = Bytes::from_static(
            br#"{"method":"x", "params" : {"a":"requestId","requestId" : 7 ,"_meta":{"progressToken":"t"}}}"#,
        );
        let envelope = Envelope::read(&message).unwrap();
        let fields = Fields::read(envelope.params());
        assert_eq!(fields.request_id(), Some(Id::number(7)));
        let new = replaced(&message, fields.request.unwrap(), "\"w\"");
        assert_eq!(new, String::from_utf8_lossy(&message).replace(" 7 ", " \"w\" "));
        let new = replaced(&message, fields.wanted_token().unwrap(), "12");
        assert_eq!(new, String::from_utf8_lossy(&message).replace("\"t\"", "12"));
    }

    #[test]
    fn parameters_of_another_kind_have_no_members() {
        for params in ["[1]", "null", "7", "{\"name\":1,\"name\":2}", "{\"name\":{}}"] {
            assert_eq!(Fields::read(Some(params)).name(), None, "{params}");
        }
        assert_eq!(Fields::read(Some(r#"{"na\u006de":"\u0061"}"#)).name().as_deref(), Some("a"));
    }
}
