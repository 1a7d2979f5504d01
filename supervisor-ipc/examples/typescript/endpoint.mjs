/**
 * The service's side of a channel, for node 18 and newer, without anything to install.
 *
 * An `Endpoint` speaks the wire protocol of docs/wire-protocol.md: it greets, acknowledges, answers, gives signs of life,
 * handles each id once, and says things of its own account with `push`. It has no clock: however long it is stopped, or its
 * host is silent, only the end of the stream is the end. Run as a program it is the service that the conformance test drives:
 *
 *     node endpoint.mjs MEMORY-FILE
 *
 * `endpoint.mjs` is what tsc makes of this file, with the options of tsconfig.json.
 */
import { randomUUID } from "node:crypto";
import { appendFileSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
const VERSION = 1;
const FRAME_MAX = 64 * 1024 * 1024;
const PUSHED_MAX = 1000;
const PUSHED_BYTES_MAX = 8 * 1024 * 1024;
/** The peer broke the protocol; the connection is over. */
export class ProtocolError extends Error {
}
/** More is waiting to be pushed than may; later there may be room. */
export class BufferFull extends Error {
}
/**
 * Ids with the answers they got, and what was pushed and not acknowledged, in a file that outlives the process; a line cut
 * off by a kill is no line.
 */
export class Memory {
    path;
    keep;
    answers = new Map();
    pushed = new Map();
    constructor(path, keep = 16384) {
        this.path = path;
        this.keep = keep;
        if (path === undefined)
            return;
        let text = "";
        try {
            text = readFileSync(path, "utf8");
        }
        catch {
            return;
        }
        const whole = text.slice(0, text.lastIndexOf("\n") + 1);
        for (const line of whole.split("\n")) {
            if (line === "")
                continue;
            const read = JSON.parse(line);
            if (Array.isArray(read))
                this.note(...read);
            else if ("pushed" in read)
                this.pushed.set(read.pushed.id, read.pushed);
            else
                this.pushed.delete(read.acknowledged);
        }
        if (whole.length !== text.length)
            truncateSync(path, Buffer.byteLength(whole));
    }
    remember(id, answer) {
        this.write([id, answer]);
        this.note(id, answer);
    }
    push(message) {
        this.pushed.set(message.id, message);
        this.write({ pushed: message });
    }
    acknowledged(id) {
        this.pushed.delete(id);
        this.write({ acknowledged: id });
    }
    write(line) {
        if (this.path !== undefined)
            appendFileSync(this.path, JSON.stringify(line) + "\n");
    }
    note(id, answer) {
        this.answers.set(id, answer);
        while (this.answers.size > this.keep) {
            const oldest = this.answers.keys().next().value;
            if (oldest === undefined)
                return;
            this.answers.delete(oldest);
        }
    }
}
/** Serves one connection after the other. */
export class Endpoint {
    handle;
    memory;
    session = randomUUID();
    last = 0;
    host;
    pushed;
    constructor(handle, memory = new Memory()) {
        this.handle = handle;
        this.memory = memory;
        // What an earlier process kept is said again, with the same ids.
        this.pushed = [...memory.pushed.values()].map(onItsWay);
    }
    /**
     * Says something to the subscribers of the host's channel; gives the id.
     *
     * It is kept, in the memory's file if there is one, until the host has acknowledged it, also while nobody is connected.
     * `BufferFull` at 1000 messages or 8 MiB.
     */
    push(message_type, payload, id = randomUUID()) {
        if (this.memory.pushed.has(id))
            return id;
        const message = { id, message_type, payload, timestamp: new Date().toISOString(), retry_count: 0 };
        const pushed = onItsWay(message);
        const waiting = this.pushed.reduce((sum, other) => sum + other.length, 0);
        if (this.pushed.length >= PUSHED_MAX || waiting + pushed.length > PUSHED_BYTES_MAX) {
            throw new BufferFull(`${this.pushed.length} messages of ${waiting} bytes wait`);
        }
        this.memory.push(message);
        this.pushed.push(pushed);
        this.pump();
        return id;
    }
    /** Tells how many messages that were pushed the host has not acknowledged. */
    unacknowledged() {
        return this.pushed.length;
    }
    /** From now on this is the host that is pushed to; what it has not handled is sent again. */
    begin(write, takes) {
        if (takes.session === this.session)
            this.acknowledged(takes.handled ?? 0);
        for (const pushed of this.pushed)
            pushed.number = undefined;
        this.host = { write, window: takes.window ?? 0, bytes: takes.bytes ?? 0, unacknowledged: 0 };
        this.pump();
    }
    acknowledged(s) {
        if (s > this.last)
            throw new ProtocolError(`it speaks of number ${s}, which was never given`);
        for (let first = this.pushed[0]; first?.number !== undefined && first.number <= s; first = this.pushed[0]) {
            this.pushed.shift();
            if (this.host !== undefined)
                this.host.unacknowledged -= 1;
            this.memory.acknowledged(first.message.id);
        }
    }
    /** Writes what the host takes; the ones that are written stand before the ones that are not. */
    pump() {
        const host = this.host;
        if (host === undefined)
            return;
        const out = [];
        let size = this.pushed.slice(0, host.unacknowledged).reduce((sum, other) => sum + other.length, 0);
        while (host.unacknowledged < host.window) {
            const pushed = this.pushed[host.unacknowledged];
            if (pushed === undefined)
                break;
            size += pushed.length;
            if (host.unacknowledged > 0 && size > host.bytes)
                break;
            pushed.number = this.last += 1;
            pushed.message.retry_count = pushed.attempts;
            pushed.attempts += 1;
            host.unacknowledged += 1;
            out.push(pack({ k: "m", s: pushed.number, m: pushed.message }));
        }
        if (out.length > 0)
            host.write(Buffer.concat(out));
    }
    /** Serves until the peer closes the connection. */
    async serve(source, write) {
        try {
            await this.converse(source, write);
        }
        finally {
            if (this.host?.write === write)
                this.host = undefined;
        }
    }
    async converse(source, write) {
        let buffered = Buffer.alloc(0);
        let greeted = false;
        for await (const piece of source) {
            buffered = buffered.length === 0 ? piece : Buffer.concat([buffered, piece]);
            const out = [];
            let acknowledge;
            const flush = () => {
                if (acknowledge !== undefined)
                    out.push(pack({ k: "a", s: acknowledge, d: false }));
                acknowledge = undefined;
                if (out.length > 0)
                    write(Buffer.concat(out.splice(0)));
            };
            for (;;) {
                const length = buffered.length < 4 ? undefined : buffered.readUInt32BE(0);
                if (length !== undefined && length > FRAME_MAX)
                    throw new ProtocolError(`a frame of ${length} bytes`);
                if (length === undefined || buffered.length < 4 + length)
                    break;
                const frame = parse(buffered.subarray(4, 4 + length));
                buffered = buffered.subarray(4 + length);
                if (frame.k === "hello") {
                    greeted = true;
                    const push = { session: this.session };
                    out.push(pack({ k: "hello", version: VERSION, session: frame.session, push }));
                    flush();
                    if (frame.version !== VERSION)
                        throw new ProtocolError(`the peer speaks version ${frame.version}`);
                    if (typeof frame.push === "object" && frame.push !== null && this.host?.write !== write) {
                        this.begin(write, frame.push);
                    }
                }
                else if (!greeted) {
                    throw new ProtocolError("the peer did not greet first");
                }
                else if (frame.k === "ping") {
                    out.push(pack({ k: "pong", s: frame.s }));
                }
                else if (frame.k === "m" && frame.m !== undefined && frame.s !== undefined) {
                    const known = this.memory.answers.get(frame.m.id);
                    const answer = known === undefined ? await this.handle(frame.m) : known;
                    if (known === undefined)
                        this.memory.remember(frame.m.id, answer);
                    if (answer !== null) {
                        out.push(pack({ k: "r", s: frame.s, p: answer[0] }));
                    }
                    else if (known !== undefined) {
                        flush();
                        out.push(pack({ k: "a", s: frame.s, d: true }));
                    }
                    else {
                        // One acknowledgement stands for all messages up to it.
                        acknowledge = frame.s;
                    }
                }
                else if (frame.k === "a" && frame.s !== undefined) {
                    if (this.host?.write === write) {
                        this.acknowledged(frame.s);
                        this.pump();
                    }
                }
                else if (!["r", "pong"].includes(frame.k)) {
                    throw new ProtocolError(`a frame of kind ${JSON.stringify(frame.k)}`);
                }
            }
            flush();
        }
    }
}
function onItsWay(message) {
    return { message, attempts: 0, length: 64 + Buffer.byteLength(JSON.stringify(message)) };
}
function parse(content) {
    let frame;
    try {
        frame = JSON.parse(content.toString("utf8"));
    }
    catch (error) {
        throw new ProtocolError(`a frame that is no JSON: ${error}`);
    }
    if (typeof frame !== "object" || frame === null)
        throw new ProtocolError("a frame that is no object");
    return frame;
}
function pack(frame) {
    const content = Buffer.from(JSON.stringify(frame));
    const head = Buffer.alloc(4);
    head.writeUInt32BE(content.length);
    return Buffer.concat([head, content]);
}
/** Writes all of it; a pipe that is full for now is tried again. */
function writeAll(bytes) {
    let rest = bytes;
    while (rest.length > 0) {
        try {
            rest = rest.subarray(writeSync(1, rest));
        }
        catch (error) {
            if (error.code !== "EAGAIN")
                throw error;
        }
    }
}
/** The service of the conformance test. */
async function main() {
    const memory = new Memory(process.argv[2]);
    const handle = async (message) => {
        switch (message.message_type) {
            case "echo":
                return [message.payload];
            case "count":
                return [[...memory.answers.values()].filter((answer) => answer === null).length];
            case "slow":
                await new Promise((resolve) => setTimeout(resolve, message.payload));
                return [message.payload];
            case "push":
                for (const one of message.payload)
                    endpoint.push("pushed", one);
                return [endpoint.unacknowledged()];
            case "die":
                process.exit(9);
            default:
                return null;
        }
    };
    const endpoint = new Endpoint(handle, memory);
    try {
        await endpoint.serve(process.stdin, writeAll);
    }
    catch (error) {
        console.error(`endpoint: ${error}`);
        process.exitCode = 1;
    }
}
if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
    await main();
}
