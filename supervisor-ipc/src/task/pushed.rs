//! What the peer says on its own account.

use supervisor_core::message::IpcMessage;

use super::Task;
use crate::machine::Event;
use crate::protocol::Envelope;

impl Task {
    /// Gives a message that nobody waits to hear about to whoever subscribes.
    pub(super) fn deliver(&mut self, message: IpcMessage) {
        self.mailbox.with(|inbox| inbox.tell(message));
        self.mailbox.arrived();
        self.step(Event::Alive);
    }

    /// Takes one that is acknowledged: by [`acknowledge`](Self::acknowledge) once it is handled, or at once if the peer does
    /// not number what it says.
    pub(super) fn on_pushed(&mut self, s: u64, message: IpcMessage, bytes: usize) {
        if !self.pushes {
            self.say_taken(s, false);
            return self.deliver(message);
        }
        let now = self.now();
        match self.mailbox.with(|inbox| inbox.arrive(now, s, message, bytes)) {
            Ok(()) => {
                self.mailbox.arrived();
                self.step(Event::Alive);
            }
            Err(reason) => {
                let reason = format!("the peer broke the protocol: {reason}");
                self.step(Event::Lost { reason });
            }
        }
    }

    /// Tells the peer up to where everything it said was handled.
    pub(super) fn acknowledge(&mut self) {
        if !self.pushes || self.wire.is_none() || !self.machine.connected() {
            return;
        }
        if let Some((s, twice)) = self.mailbox.with(crate::inbox::Inbox::owed) {
            self.say_taken(s, twice);
        }
    }

    fn say_taken(&mut self, s: u64, d: bool) {
        match serde_json::to_vec(&Envelope::Ack { s, d }) {
            Ok(frame) => self.write(frame.into()),
            Err(error) => {
                tracing::error!(channel = %self.name, %error, "an acknowledgement cannot be written");
            }
        }
    }
}
