//! The few members of parameters and results that matter, as they stand in a message.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::relay::{Id, members};

/// Longest parameters that become part of the session, in bytes.
pub(super) const PARAMS_MAX: usize = 4096;

/// Members of parameters, as they stand in them; one that is absent or `null` is nothing, and if one is there twice, all
/// are.
///
/// They are walked over and not read: what else is among them, the arguments of a tool above all, may be megabytes.
#[derive(Debug, Default)]
pub(super) struct Fields<'m> {
    meta: Option<&'m str>,
    pub(super) cursor: Option<&'m str>,
    level: Option<&'m str>,
    name: Option<&'m str>,
    pub(super) notifications: Option<&'m str>,
    progress: Option<&'m str>,
    pub(super) token: Option<&'m str>,
    pub(super) revision: Option<&'m str>,
    pub(super) request: Option<&'m str>,
    pub(super) task: Option<&'m str>,
    uri: Option<&'m str>,
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
        let params = params.unwrap_or_default();
        let mut fields = Self::default();
        let mut twice = false;
        let whole = members(params, |name, value| {
            let slot = match name {
                "_meta" => &mut fields.meta,
                "cursor" => &mut fields.cursor,
                "level" => &mut fields.level,
                "name" => &mut fields.name,
                "notifications" => &mut fields.notifications,
                "progress" => &mut fields.progress,
                "progressToken" => &mut fields.token,
                "protocolVersion" => &mut fields.revision,
                "requestId" => &mut fields.request,
                "task" => &mut fields.task,
                "uri" => &mut fields.uri,
                _ => return,
            };
            twice |= slot.replace(value).is_some();
        });
        // What may become part of the session, and is written again, has to be sound throughout.
        let sound = |text| serde_json::from_str::<IgnoredAny>(text).is_ok();
        if !whole || twice || params.len() <= PARAMS_MAX && !sound(params) {
            return Self::default();
        }
        let present = |value: Option<&'m str>| value.filter(|value| *value != "null");
        Self {
            meta: present(fields.meta),
            cursor: present(fields.cursor),
            level: present(fields.level),
            name: present(fields.name),
            notifications: present(fields.notifications),
            progress: present(fields.progress),
            token: present(fields.token),
            revision: present(fields.revision),
            request: present(fields.request),
            task: present(fields.task),
            uri: present(fields.uri),
        }
    }

    fn meta(&self) -> Option<Meta<'m>> {
        serde_json::from_str(self.meta?).ok()
    }

    /// The token under which a request wants its progress told.
    pub(super) fn wanted_token(&self) -> Option<&'m str> {
        self.meta()?.token.map(RawValue::get)
    }

    /// What a request says of its client when there is no handshake; nothing if it is about this one request, too.
    pub(super) fn envelope(&self) -> Option<&'m str> {
        let meta = self.meta().filter(|meta| meta.revision.is_some() && meta.token.is_none());
        meta.and(self.meta)
    }

    /// The listening request a notification belongs to.
    pub(super) fn subscription(&self) -> Option<Id> {
        self.meta()?.subscription.map(RawValue::get).and_then(id)
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
        serde_json::from_str(self.progress?).ok()
    }

    /// The request that is meant, in the one form ids have.
    pub(super) fn request_id(&self) -> Option<Id> {
        self.request.and_then(id)
    }
}

fn text(raw: Option<&str>) -> Option<String> {
    serde_json::from_str(raw?).ok()
}

/// Reads a request's id or a progress token: both are numbers or texts. One that is too long to be kept is none.
pub(super) fn id(raw: &str) -> Option<Id> {
    Some(raw).filter(|raw| raw.len() <= super::ID_MAX).and_then(Id::parse)
}

/// Gives the message with `part`, which must be a piece of it, replaced.
pub(super) fn replaced(message: &Bytes, part: &str, with: &str) -> Bytes {
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
        let null = Fields::read(Some(r#"{"task":null,"name":"a"}"#));
        assert_eq!((null.task, null.name().as_deref()), (None, Some("a")));
    }

    #[test]
    fn what_is_among_the_members_of_a_long_message_is_skipped_and_of_a_short_one_must_be_sound() {
        let call = |length: usize| {
            let text = "x\\\"".repeat(length / 3);
            format!(r#"{{"arguments":{{"name":"no","text":"{text}","broken":01}},"name":"yes"}}"#)
        };
        assert_eq!(Fields::read(Some(&call(9000))).name().as_deref(), Some("yes"));
        assert_eq!(Fields::read(Some(&call(90))).name(), None);
        assert_eq!(Fields::read(Some(&call(90).replace("01", "1"))).name().as_deref(), Some("yes"));
        assert_eq!(Fields::read(Some(&call(9000)[..8999])).name(), None, "cut off");
    }
}
