"""The service's side of a channel, in Python 3.8 and newer, without anything to install.

An ``Endpoint`` speaks the wire protocol of docs/wire-protocol.md over two byte streams: it greets, acknowledges, answers,
gives signs of life, handles each id once, and says things of its own account with ``push``. It has no clock: however long
it is stopped, or its host is silent, only the end of the stream is the end. Run as a program it is the service that the
conformance test drives:

    python3 endpoint.py MEMORY-FILE
"""

import collections
import datetime
import json
import os
import struct
import sys
import threading
import time
import uuid

VERSION = 1
FRAME_MAX = 64 * 1024 * 1024
PUSHED_MAX = 1000
PUSHED_BYTES_MAX = 8 * 1024 * 1024


class ProtocolError(Exception):
    """The peer broke the protocol; the connection is over."""


class BufferFull(Exception):
    """More is waiting to be pushed than may; later there may be room."""


class Memory:
    """Ids with the answers they got, and what was pushed and not acknowledged, in a file that outlives the process.

    A line is written together with the effect it stands for; a line cut off by a kill is no line.
    """

    def __init__(self, path=None, keep=16384):
        self.keep = keep
        self.answers = {}
        self.pushed = {}
        self.file = None
        if path is None:
            return
        self.file = open(path, "a+b", buffering=0)
        self.file.seek(0)
        whole = self.file.read()
        for line in whole[: whole.rfind(b"\n") + 1].splitlines():
            line = json.loads(line)
            if isinstance(line, list):
                self.remember(line[0], line[1], write=False)
            elif "pushed" in line:
                self.pushed[line["pushed"]["id"]] = line["pushed"]
            else:
                self.pushed.pop(line["acknowledged"], None)
        if not whole.endswith(b"\n") and whole:
            self.file.truncate(whole.rfind(b"\n") + 1)

    def remember(self, id, answer, write=True):
        if write:
            self._write([id, answer])
        self.answers[id] = answer
        while len(self.answers) > self.keep:
            del self.answers[next(iter(self.answers))]

    def push(self, message):
        self.pushed[message["id"]] = message
        self._write({"pushed": message})

    def acknowledged(self, id):
        del self.pushed[id]
        self._write({"acknowledged": id})

    def _write(self, line):
        if self.file is not None:
            self.file.write(json.dumps(line).encode() + b"\n")


class _Pushed:
    """A message on its way to the host; ``number`` is that of the connection it is written in."""

    def __init__(self, message):
        self.message = message
        self.number = None
        self.attempts = 0
        self.length = 64 + len(json.dumps(message))


class _Host:
    """A connection: what is written to it, whole, and what it takes of what is pushed."""

    def __init__(self, target):
        self.target = target
        self.window = 0
        self.bytes = 0
        self.unacknowledged = 0


class Endpoint:
    """Serves one connection after the other. ``handle(message)`` gives an answer in a list, ``[answer]``, or ``None``."""

    def __init__(self, handle, memory=None):
        self.handle = handle
        self.memory = memory or Memory()
        self._lock = threading.RLock()
        self._session = str(uuid.uuid4())
        self._last = 0
        self._host = None
        # What an earlier process kept is said again, with the same ids.
        self._pushed = collections.deque(_Pushed(message) for message in self.memory.pushed.values())

    def push(self, message_type, payload, id=None):
        """Says something to the subscribers of the host's channel; gives the id.

        It is kept, in the memory's file if there is one, until the host has acknowledged it. Any thread may push, also
        while nobody is connected. ``BufferFull`` at 1000 messages or 8 MiB.
        """
        message = {
            "id": id or str(uuid.uuid4()),
            "message_type": message_type,
            "payload": payload,
            "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "retry_count": 0,
        }
        with self._lock:
            if message["id"] in self.memory.pushed:
                return message["id"]
            pushed = _Pushed(message)
            waiting = sum(other.length for other in self._pushed)
            if len(self._pushed) >= PUSHED_MAX or waiting + pushed.length > PUSHED_BYTES_MAX:
                raise BufferFull("%d messages of %d bytes wait" % (len(self._pushed), waiting))
            self.memory.push(message)
            self._pushed.append(pushed)
            try:
                self._pump()
            except OSError:
                # Who reads from this connection sees its end; the next one gets the message.
                self._host = None
        return message["id"]

    def unacknowledged(self):
        """Tells how many messages that were pushed the host has not acknowledged."""
        with self._lock:
            return len(self._pushed)

    def serve(self, source, target):
        """Serves until the peer closes the connection.

        ``source.read1(n)``, ``target.write(bytes)`` and ``target.flush()`` are all it needs of the streams.
        """
        host = _Host(target)
        try:
            self._serve(source, host)
        finally:
            with self._lock:
                if self._host is host:
                    self._host = None

    def _serve(self, source, host):
        out = bytearray()
        buffered = bytearray()
        greeted = False
        acknowledge = None
        while True:
            frame = self._cut(buffered)
            if frame is None:
                # Nothing whole is left: say what is to be said, then wait for more.
                if acknowledge is not None:
                    self._say(out, {"k": "a", "s": acknowledge, "d": False})
                    acknowledge = None
                self._write(host, out)
                read = source.read1(65536)
                if not read:
                    return
                buffered += read
                continue
            kind = frame.get("k")
            if kind == "hello":
                greeted = True
                hello = {"k": "hello", "version": VERSION, "push": {"session": self._session}}
                if "session" in frame:
                    hello["session"] = frame["session"]
                self._say(out, hello)
                self._write(host, out)
                if frame.get("version") != VERSION:
                    raise ProtocolError("the peer speaks version %r" % frame.get("version"))
                if isinstance(frame.get("push"), dict) and self._host is not host:
                    self._begin(host, frame["push"])
            elif not greeted:
                raise ProtocolError("the peer did not greet first")
            elif kind == "ping":
                self._say(out, {"k": "pong", "s": frame["s"]})
            elif kind == "m":
                s, message = frame["s"], frame["m"]
                known = message["id"] in self.memory.answers
                if known:
                    answer = self.memory.answers[message["id"]]
                else:
                    answer = self.handle(message)
                    self.memory.remember(message["id"], answer)
                if answer is not None:
                    self._say(out, {"k": "r", "s": s, "p": answer[0]})
                elif known:
                    if acknowledge is not None:
                        self._say(out, {"k": "a", "s": acknowledge, "d": False})
                        acknowledge = None
                    self._say(out, {"k": "a", "s": s, "d": True})
                else:
                    # One acknowledgement stands for all messages up to it.
                    acknowledge = s
            elif kind == "a":
                with self._lock:
                    if self._host is host:
                        self._acknowledged(frame["s"])
                        self._pump()
            elif kind not in ("r", "pong"):
                raise ProtocolError("a frame of kind %r" % (kind,))

    def _begin(self, host, takes):
        """From now on this is the host that is pushed to; what it has not handled is sent again."""
        with self._lock:
            if takes.get("session") == self._session:
                self._acknowledged(takes.get("handled", 0))
            for pushed in self._pushed:
                pushed.number = None
            host.window, host.bytes = takes.get("window", 0), takes.get("bytes", 0)
            host.unacknowledged = 0
            self._host = host
            self._pump()

    def _acknowledged(self, s):
        if s > self._last:
            raise ProtocolError("it speaks of number %d, which was never given" % s)
        while self._pushed and self._pushed[0].number is not None and self._pushed[0].number <= s:
            pushed = self._pushed.popleft()
            if self._host is not None:
                self._host.unacknowledged -= 1
            self.memory.acknowledged(pushed.message["id"])

    def _pump(self):
        """Writes what the host takes; the ones that are written stand before the ones that are not."""
        host, out = self._host, bytearray()
        if host is None:
            return
        size = sum(self._pushed[at].length for at in range(host.unacknowledged))
        while host.unacknowledged < min(host.window, len(self._pushed)):
            pushed = self._pushed[host.unacknowledged]
            size += pushed.length
            if host.unacknowledged > 0 and size > host.bytes:
                break
            self._last += 1
            pushed.number, pushed.message["retry_count"] = self._last, pushed.attempts
            pushed.attempts += 1
            host.unacknowledged += 1
            self._say(out, {"k": "m", "s": pushed.number, "m": pushed.message})
        self._write(host, out)

    def _write(self, host, out):
        if out:
            with self._lock:
                host.target.write(bytes(out))
                host.target.flush()
            out.clear()

    @staticmethod
    def _cut(buffered):
        """Takes the first whole frame out of what was read."""
        if len(buffered) < 4:
            return None
        (length,) = struct.unpack_from(">I", buffered)
        if length > FRAME_MAX:
            raise ProtocolError("a frame of %d bytes" % length)
        if len(buffered) < 4 + length:
            return None
        content = bytes(buffered[4 : 4 + length])
        del buffered[: 4 + length]
        try:
            frame = json.loads(content)
        except ValueError as error:
            raise ProtocolError("a frame that is no JSON: %s" % error) from error
        if not isinstance(frame, dict):
            raise ProtocolError("a frame that is no object")
        return frame

    @staticmethod
    def _say(out, frame):
        content = json.dumps(frame, separators=(",", ":")).encode()
        out += struct.pack(">I", len(content)) + content


def main():
    """The service of the conformance test."""
    memory = Memory(sys.argv[1] if len(sys.argv) > 1 else None)

    def handle(message):
        kind, payload = message["message_type"], message["payload"]
        if kind == "echo":
            return [payload]
        if kind == "count":
            return [sum(1 for answer in memory.answers.values() if answer is None)]
        if kind == "slow":
            time.sleep(payload / 1000)
            return [payload]
        if kind == "die":
            os._exit(9)
        if kind == "push":
            for one in payload:
                endpoint.push("pushed", one)
            return [endpoint.unacknowledged()]
        return None

    endpoint = Endpoint(handle, memory)
    try:
        endpoint.serve(sys.stdin.buffer, sys.stdout.buffer)
    except ProtocolError as error:
        print("endpoint: %s" % error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
