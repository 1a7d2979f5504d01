//! Writing to either side what it takes now.

use tokio::io::AsyncWrite;

use super::drive::Driver;
use supervisor_ipc::relay::Input;

impl Driver<'_> {
    /// Writes what either side takes now, so that a message that came needs no second turn to go on.
    pub(super) async fn write_at_once(
        &mut self,
        client_out: &mut (impl AsyncWrite + Unpin + Send),
    ) {
        if let Some(running) = &mut self.running
            && let Some(stdin) = &mut running.stdin
            && !running.outbox.is_empty()
            && let Some(written) = at_once(running.outbox.write(stdin)).await
        {
            self.server_written(&written);
            self.carry_out().await;
        }
        if !self.to_client.is_empty() {
            match at_once(self.to_client.write(client_out)).await {
                Some(Ok(())) => self.client_written(),
                Some(Err(_)) => {
                    self.client_gone();
                    self.carry_out().await;
                }
                None => {}
            }
        }
    }

    /// A client that has its answer may ask the next thing at once.
    pub(super) fn client_written(&mut self) {
        if self.to_client.is_empty() && self.wrap.relay.owed() == 0 {
            let now = self.now();
            self.client_spin.asked(now);
        }
    }

    /// Tells the relay, if it wants to know, that the server has taken what it was given until it was asked.
    pub(super) fn tell_taken(&mut self) {
        if let Some(running) = &mut self.running
            && running.tell_when_taken.is_some_and(|place| running.outbox.is_past(place))
        {
            running.tell_when_taken = None;
            let generation = running.generation;
            self.tell(Input::Taken { generation });
        }
    }
}

/// Gives what a future has now, without waiting for it.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
