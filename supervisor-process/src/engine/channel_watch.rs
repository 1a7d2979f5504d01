//! What channels over services' own pipes ask the engine, and tell it.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use supervisor_core::lifecycle::Event;
use supervisor_core::ports::ChannelWatch;
use supervisor_core::{Incarnation, ServiceId};
use tokio::sync::oneshot;

use super::shared::Message;
use super::{Engine, Inner};

/// Holds its engine weakly: the engine holds those who take over its pipes, and they hold this.
#[derive(Debug)]
struct Watch(Weak<Inner>);

impl Engine {
    /// Gives what channels over services' own pipes report to. It does not keep the engine; without one it does nothing.
    #[must_use]
    pub fn channel_watch(&self) -> Arc<dyn ChannelWatch> {
        Arc::new(Watch(Arc::downgrade(&self.inner)))
    }
}

#[async_trait]
impl ChannelWatch for Watch {
    async fn excuse(&self, service: &ServiceId, incarnation: Incarnation) -> Option<String> {
        let answer = {
            let engine = Engine { inner: self.0.upgrade()? };
            let (reply, answer) = oneshot::channel();
            // A mailbox that is full answers nothing, as a run that is over does.
            engine.mailbox(service).ok()?.try_send(Message::Excuse { incarnation, reply }).ok()?;
            answer
        };
        answer.await.ok().flatten()
    }

    fn lost(&self, service: &ServiceId, incarnation: Incarnation, silent: bool, reason: &str) {
        let Some(inner) = self.0.upgrade() else { return };
        let reason = reason.to_owned();
        inner.shared.tell(service, Event::ChannelLost { incarnation, silent, reason });
    }
}
