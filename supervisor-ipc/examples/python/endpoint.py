"""The service's side of a channel, in Python 3.8 and newer, without anything to install.

An ``Endpoint`` speaks the wire protocol of docs/wire-protocol.md over two byte streams: it greets, acknowledges, answers,
gives signs of life, and handles each id once. Run as a program it is the service that the conformance test drives:

    python3 endpoint.py MEMORY-FILE
"""

import json
import os
import struct
import sys
import time

VERSION = 1
FRAME_MAX = 64 * 1024 * 1024


class ProtocolError(Exception):
    """The peer broke the protocol; the connection is over."""


class Memory:
    """Ids with the answers they got, in a file that outlives the process.

    A line is written together with the effect it stands for; a line cut off by a kill is no line.
    """

    def __init__(self, path=None, keep=16384):
        self.keep = keep
        self.answers = {}
        self.file = None
        if path is None:
            return
        self.file = open(path, "a+b", buffering=0)
        self.file.seek(0)
        whole = self.file.read()
        for line in whole[: whole.rfind(b"\n") + 1].splitlines():
            id, answer = json.loads(line)
            self.remember(id, answer, write=False)
        if not whole.endswith(b"\n") and whole:
            self.file.truncate(whole.rfind(b"\n") + 1)

    def remember(self, id, answer, write=True):
        if write and self.file is not None:
            self.file.write(json.dumps([id, answer]).encode() + b"\n")
        self.answers[id] = answer
        while len(self.answers) > self.keep:
            del self.answers[next(iter(self.answers))]


class Endpoint:
    """Serves one connection. ``handle(message)`` gives an answer in a list, ``[answer]``, or ``None`` for none."""

    def __init__(self, handle, memory=None):
        self.handle = handle
        self.memory = memory or Memory()

    def serve(self, source, target):
        """Serves until the peer closes the connection.

        ``source.read1(n)`` and ``target.write(bytes)`` are all it needs of the streams.
        """
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
                if out:
                    target.write(bytes(out))
                    target.flush()
                    out.clear()
                read = source.read1(65536)
                if not read:
                    return
                buffered += read
                continue
            kind = frame.get("k")
            if kind == "hello":
                greeted = True
                hello = {"k": "hello", "version": VERSION}
                if "session" in frame:
                    hello["session"] = frame["session"]
                self._say(out, hello)
                if frame.get("version") != VERSION:
                    target.write(bytes(out))
                    target.flush()
                    raise ProtocolError("the peer speaks version %r" % frame.get("version"))
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
            elif kind not in ("a", "r", "pong"):
                raise ProtocolError("a frame of kind %r" % (kind,))

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
        return None

    try:
        Endpoint(handle, memory).serve(sys.stdin.buffer, sys.stdout.buffer)
    except ProtocolError as error:
        print("endpoint: %s" % error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
