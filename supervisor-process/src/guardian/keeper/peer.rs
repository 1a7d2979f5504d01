//! One connection, with a bound on what waits in either direction.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::super::protocol::{GREETING_MAX, Reply, RequestId};
use super::super::wire::{FRAME_MAX, Incoming, Malformed};
use crate::os::guardian as os;

/// Bytes that may wait to be sent. At the bound no request is read and no event is added until the peer has read; what
/// happened is kept with its set and told then.
const OUTGOING_MAX: usize = 256 * 1024;
/// Bytes read at a time.
const READ_MAX: usize = 16 * 1024;

/// A frame that waits to be sent, and the descriptors that travel with its first byte.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    with: Vec<OwnedFd>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: OwnedFd,
    incoming: Incoming,
    outgoing: VecDeque<Chunk>,
    waiting: usize,
    /// It does not read any more. What it asked before is still to be read, so that alone is no end.
    deaf: bool,
    /// Set until it has greeted.
    pub(super) greet_by: Option<Instant>,
    /// Ended from its side, by an error or by us; removed at the end of the round.
    pub(super) over: bool,
}

impl Peer {
    pub(super) fn new(socket: OwnedFd, greet_by: Instant) -> Self {
        Self {
            socket,
            incoming: Incoming::default(),
            outgoing: VecDeque::new(),
            waiting: 0,
            deaf: false,
            greet_by: Some(greet_by),
            over: false,
        }
    }

    /// Reads what has come, at most one buffer; the loop comes back for the rest.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; READ_MAX];
        // A host sends no descriptors; whoever does has them closed.
        let mut with = Vec::new();
        match os::receive(&self.socket, &mut buffer, &mut with) {
            Ok(0) => self.over = true,
            Ok(read) => self.incoming.push(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.over = true,
        }
    }

    /// Gives the next frame that has come whole; nothing while too much waits to be sent.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.over || self.is_full() {
            return Ok(None);
        }
        let longest = if self.greet_by.is_some() { GREETING_MAX } else { FRAME_MAX };
        Ok(self.incoming.next(longest)?.map(<[u8]>::to_vec))
    }

    /// Whether no more may be added that can wait.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting > OUTGOING_MAX
    }

    /// Whether something waits to be sent.
    pub(super) fn waits(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(super) fn say(&mut self, reply: &Reply, to: RequestId, with: Vec<OwnedFd>) {
        // Longer than a frame may be: only a list of thousands of sets with their last words could be, and those are
        // left out of it by its maker. Whoever waits for an answer gets one all the same.
        let too_long = Reply::Done { errno: rustix::io::Errno::MSGSIZE.raw_os_error() };
        match reply.encode(to).or_else(|| too_long.encode(to).filter(|_| to != 0)) {
            Some(bytes) => self.queue(bytes, with),
            None => drop(with),
        }
    }

    /// Adds a frame; it is sent at once as far as there is room.
    pub(super) fn queue(&mut self, bytes: Vec<u8>, with: Vec<OwnedFd>) {
        if self.deaf {
            return;
        }
        self.waiting += bytes.len();
        self.outgoing.push_back(Chunk { bytes, sent: 0, with });
        self.flush();
    }

    /// Sends what there is room for.
    pub(super) fn flush(&mut self) {
        while let Some(chunk) = self.outgoing.front_mut() {
            let with: Vec<_> = chunk.with.iter().map(AsFd::as_fd).collect();
            match os::send(&self.socket, &chunk.bytes[chunk.sent..], &with) {
                Ok(sent) => {
                    chunk.sent += sent;
                    self.waiting -= sent;
                    chunk.with.clear();
                    if chunk.sent == chunk.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.deaf = true;
                    self.outgoing.clear();
                    self.waiting = 0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_host_asked_last_is_read_although_it_hears_no_answer_any_more() {
        let (mut host, ours) = UnixStream::pair().unwrap();
        let mut peer = Peer::new(ours.into(), Instant::now());
        peer.greet_by = None;
        let asked = super::super::super::protocol::Request::Ping.encode(7).unwrap();
        host.write_all(&asked).unwrap();
        drop(host);
        peer.queue(vec![0; 8], Vec::new());
        assert!(!peer.over && !peer.waits());
        peer.read();
        assert!(peer.next().unwrap().is_some(), "the last request is carried out");
        peer.read();
        assert!(peer.over, "and then its end is noticed");
    }
}
