/**
 * The service's side of a channel, for node 18 and newer, without anything to install.
 *
 * An `Endpoint` speaks the wire protocol of docs/wire-protocol.md: it greets, acknowledges, answers, gives signs of life, and
 * handles each id once. Run as a program it is the service that the conformance test drives:
 *
 *     node endpoint.mjs MEMORY-FILE
 *
 * `endpoint.mjs` is what tsc makes of this file, with the options of tsconfig.json.
 */
import { appendFileSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const VERSION = 1;
const FRAME_MAX = 64 * 1024 * 1024;

/** A message of the channel. */
export interface Message {
  id: string;
  message_type: string;
  payload: unknown;
  timestamp: string;
  retry_count: number;
}

/** An answer in a list, or null for none. */
export type Answer = [unknown] | null;

/** Handles one message. */
export type Handler = (message: Message) => Answer | Promise<Answer>;

interface Frame {
  k: string;
  s?: number;
  version?: number;
  session?: string;
  m?: Message;
}

/** The peer broke the protocol; the connection is over. */
export class ProtocolError extends Error {}

/** Ids with the answers they got, in a file that outlives the process; a line cut off by a kill is no line. */
export class Memory {
  readonly answers = new Map<string, Answer>();

  constructor(
    private readonly path?: string,
    private readonly keep = 16384,
  ) {
    if (path === undefined) return;
    let text = "";
    try {
      text = readFileSync(path, "utf8");
    } catch {
      return;
    }
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    for (const line of whole.split("\n")) {
      if (line === "") continue;
      const [id, answer] = JSON.parse(line) as [string, Answer];
      this.note(id, answer);
    }
    if (whole.length !== text.length) truncateSync(path, Buffer.byteLength(whole));
  }

  remember(id: string, answer: Answer): void {
    if (this.path !== undefined) appendFileSync(this.path, JSON.stringify([id, answer]) + "\n");
    this.note(id, answer);
  }

  private note(id: string, answer: Answer): void {
    this.answers.set(id, answer);
    while (this.answers.size > this.keep) {
      const oldest = this.answers.keys().next().value;
      if (oldest === undefined) return;
      this.answers.delete(oldest);
    }
  }
}

/** Serves one connection. */
export class Endpoint {
  constructor(
    private readonly handle: Handler,
    private readonly memory: Memory = new Memory(),
  ) {}

  /** Serves until the peer closes the connection. */
  async serve(source: AsyncIterable<Buffer>, write: (bytes: Buffer) => void): Promise<void> {
    let buffered: Buffer = Buffer.alloc(0);
    let greeted = false;
    for await (const piece of source) {
      buffered = buffered.length === 0 ? piece : Buffer.concat([buffered, piece]);
      const out: Buffer[] = [];
      let acknowledge: number | undefined;
      const flush = (): void => {
        if (acknowledge !== undefined) out.push(pack({ k: "a", s: acknowledge, d: false }));
        acknowledge = undefined;
        if (out.length > 0) write(Buffer.concat(out.splice(0)));
      };
      for (;;) {
        const length = buffered.length < 4 ? undefined : buffered.readUInt32BE(0);
        if (length !== undefined && length > FRAME_MAX) throw new ProtocolError(`a frame of ${length} bytes`);
        if (length === undefined || buffered.length < 4 + length) break;
        const frame = parse(buffered.subarray(4, 4 + length));
        buffered = buffered.subarray(4 + length);
        if (frame.k === "hello") {
          greeted = true;
          out.push(pack({ k: "hello", version: VERSION, session: frame.session }));
          if (frame.version !== VERSION) {
            flush();
            throw new ProtocolError(`the peer speaks version ${frame.version}`);
          }
        } else if (!greeted) {
          throw new ProtocolError("the peer did not greet first");
        } else if (frame.k === "ping") {
          out.push(pack({ k: "pong", s: frame.s }));
        } else if (frame.k === "m" && frame.m !== undefined && frame.s !== undefined) {
          const known = this.memory.answers.get(frame.m.id);
          const answer = known === undefined ? await this.handle(frame.m) : known;
          if (known === undefined) this.memory.remember(frame.m.id, answer);
          if (answer !== null) {
            out.push(pack({ k: "r", s: frame.s, p: answer[0] }));
          } else if (known !== undefined) {
            flush();
            out.push(pack({ k: "a", s: frame.s, d: true }));
          } else {
            // One acknowledgement stands for all messages up to it.
            acknowledge = frame.s;
          }
        } else if (!["a", "r", "pong"].includes(frame.k)) {
          throw new ProtocolError(`a frame of kind ${JSON.stringify(frame.k)}`);
        }
      }
      flush();
    }
  }
}

function parse(content: Buffer): Frame {
  let frame: unknown;
  try {
    frame = JSON.parse(content.toString("utf8"));
  } catch (error) {
    throw new ProtocolError(`a frame that is no JSON: ${error}`);
  }
  if (typeof frame !== "object" || frame === null) throw new ProtocolError("a frame that is no object");
  return frame as Frame;
}

function pack(frame: object): Buffer {
  const content = Buffer.from(JSON.stringify(frame));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(content.length);
  return Buffer.concat([head, content]);
}

/** Writes all of it; a pipe that is full for now is tried again. */
function writeAll(bytes: Buffer): void {
  let rest = bytes;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
}

/** The service of the conformance test. */
async function main(): Promise<void> {
  const memory = new Memory(process.argv[2]);
  const handle: Handler = async (message) => {
    switch (message.message_type) {
      case "echo":
        return [message.payload];
      case "count":
        return [[...memory.answers.values()].filter((answer) => answer === null).length];
      case "slow":
        await new Promise((resolve) => setTimeout(resolve, message.payload as number));
        return [message.payload];
      case "die":
        process.exit(9);
      default:
        return null;
    }
  };
  try {
    await new Endpoint(handle, memory).serve(process.stdin, writeAll);
  } catch (error) {
    console.error(`endpoint: ${error}`);
    process.exitCode = 1;
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main();
}
