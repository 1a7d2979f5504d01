// One session of the official MCP client with a real server behind `ide-supervisor wrap`, which is killed at random
// moments meanwhile. Reads {tools, command, env, plan, ops, kills, seed} from its argument and prints what it saw.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const config = JSON.parse(process.argv[2]);
const sdk = (path) =>
  import(pathToFileURL(join(config.tools, "node_modules/@modelcontextprotocol/sdk/dist/esm", path)).href);
const { Client } = await sdk("client/index.js");
const { StdioClientTransport } = await sdk("client/stdio.js");
const types = await sdk("types.js");

const INDETERMINATE = -32070;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// mulberry32: small, and the same everywhere.
let state = config.seed >>> 0;
const random = () => {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

const seen = { kills: 0, typed: 0, unexpected: [], updated: [], logs: [], progress: 0, questions: 0 };
const transport = new StdioClientTransport({
  command: config.command[0],
  args: config.command.slice(1),
  env: { ...process.env, ...config.env },
  stderr: "inherit",
});
const client = new Client(
  { name: "session", version: "1" },
  { capabilities: { roots: { listChanged: true }, sampling: {}, elicitation: {} } },
);
client.onerror = (error) => {
  // The client handles an answer before a progress that came in front of it; it says so without any kill, too.
  if (!`${error}`.includes("progress notification for an unknown token")) {
    seen.unexpected.push(`client: ${error}`);
  }
};
client.setRequestHandler(types.ListRootsRequestSchema, () => {
  seen.questions += 1;
  return { roots: [{ uri: "file:///tmp", name: "tmp" }] };
});
client.setRequestHandler(types.CreateMessageRequestSchema, () => {
  seen.questions += 1;
  return { model: "m", role: "assistant", content: { type: "text", text: "sampled" } };
});
client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, (note) => {
  seen.updated.push(note.params.uri);
});
client.setNotificationHandler(types.LoggingMessageNotificationSchema, (note) => {
  seen.logs.push(note.params.level);
});
let closed = false;
client.onclose = () => {
  closed = true;
};

// The operation that is going on; a second kill spares it, because two in a row are evidence against it.
let current = null;
// Kills since anything was answered: five starts in a row that come to nothing are given up, and rightly so.
let streak = 0;
const childrenOf = (pid) => {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
};
// The server is a child of the process that carries the session, which is a child of the one that was started.
const children = () => childrenOf(transport.pid).flatMap(childrenOf);
const kill = async (after) => {
  await sleep(after);
  for (;;) {
    const [server] = current?.hit || streak >= 3 ? [] : children();
    if (server !== undefined) {
      try {
        process.kill(server, "SIGKILL");
        if (current) current.hit = true;
        seen.kills += 1;
        streak += 1;
        return;
      } catch {
        // It died of the kill before this one.
      }
    }
    if (closed) return;
    await sleep(3);
  }
};

const options = { timeout: 60000, resetTimeoutOnProgress: true };
const run = async (what, work) => {
  current = { hit: false };
  try {
    return await work();
  } catch (error) {
    seen.unexpected.push(`${what}: ${error} ${JSON.stringify(error.data ?? null)}`);
    return null;
  } finally {
    current = null;
    streak = 0;
  }
};
const tool = (name, args, more = {}) =>
  client.callTool({ name, arguments: args }, undefined, { ...options, ...more });

// A call that must not be repeated: when nobody knows whether it was carried out, look and decide.
const effect = async (name, args, done) =>
  run(name, async () => {
    for (;;) {
      try {
        return await tool(name, args);
      } catch (error) {
        const honest = error.code === INDETERMINATE && error.data?.sent === true && error.data?.tool === name;
        if (!honest) throw error;
        seen.typed += 1;
        current = { hit: false };
        if (await done()) return null;
        current = { hit: false };
      }
    }
  });

const exists = async (name) =>
  (await tool("open_nodes", { names: [name] })).structuredContent.entities.length === 1;

const memory = {
  async begin() {
    await client.subscribeResource({ uri: "memory://knowledge-graph" }, options);
  },
  async op(number) {
    const name = `entity-${number}`;
    const has = () => exists(name);
    switch (number % 5) {
      case 0:
      case 1:
        return effect(
          "create_entities",
          { entities: [{ name, entityType: "thing", observations: [`seen ${number}`] }] },
          has,
        );
      case 2:
        return run("search", () => tool("search_nodes", { query: `entity-${number - 1}` }));
      case 3:
        return run("delete", () => tool("delete_entities", { entityNames: [`entity-${number - 3}`] }));
      default:
        return run("read", () => client.readResource({ uri: "memory://knowledge-graph" }, options));
    }
  },
  async end() {
    seen.updated.length = 0;
    await effect(
      "create_entities",
      { entities: [{ name: "last", entityType: "thing", observations: [] }] },
      () => exists("last"),
    );
    for (let n = 0; n < 2000 && seen.updated.length === 0; n += 1) await sleep(5);
    return {
      graph: (await tool("read_graph", {})).structuredContent,
      updated: [...new Set(seen.updated)],
    };
  },
};

const uris = [1, 2, 3].map((n) => `demo://resource/dynamic/text/${n}`);
const everything = {
  async begin() {
    await client.setLoggingLevel("error", options);
    for (const uri of uris) await client.subscribeResource({ uri }, options);
  },
  async op(number) {
    switch (number % 6) {
      case 0:
        return run("sum", async () => (await tool("get-sum", { a: number, b: 1 })).content);
      case 1:
        return run("prompt", () =>
          client.getPrompt({ name: "args-prompt", arguments: { city: `c${number}` } }, options));
      case 2:
        return run("resource", async () =>
          (await client.readResource({ uri: uris[number % 3] }, options)).contents[0].uri);
      case 3: {
        let last = 0;
        const onprogress = ({ progress }) => {
          if (progress <= last) seen.unexpected.push(`progress went from ${last} to ${progress}`);
          last = progress;
          seen.progress += 1;
        };
        return run("long", async () =>
          (await tool("trigger-long-running-operation", { duration: 0.2, steps: 4 }, { onprogress })).content);
      }
      case 4:
        return run("prompts", async () => (await client.listPrompts({}, options)).prompts.length);
      default:
        return run("several", async () =>
          Promise.all(["a", "b", "c"].map((message) => tool("echo", { message: message + number }))));
    }
  },
  async end() {
    await effect("trigger-sampling-request", { prompt: "x", maxTokens: 9 }, async () => false);
    await run("roots", () => tool("get-roots-list", {}));
    const loud = seen.logs.filter((level) => ["debug", "info", "notice", "warning"].includes(level));
    seen.updated.length = 0;
    await effect("toggle-subscriber-updates", {}, async () => true);
    for (let n = 0; n < 2000 && new Set(seen.updated).size < 3; n += 1) await sleep(5);
    return { updated: [...new Set(seen.updated)].sort(), loud: loud.length };
  },
};

await client.connect(transport, { timeout: 60000 });
const plan = { memory, everything }[config.plan];
const tools = await client.listTools({}, options);
const lists = { tools: tools.tools.map((entry) => entry.name).sort() };
await plan.begin();
seen.logs.length = 0;
const results = [];
const kills = [];
for (let number = 0; number < config.ops; number += 1) {
  const left = config.kills - kills.length;
  if (random() < left / (config.ops - number)) kills.push(kill(random() * config.spread));
  results.push(await plan.op(number));
}
let over = false;
Promise.all(kills).then(() => {
  over = true;
});
while (!over) {
  await run("ping", () => client.ping(options));
  await sleep(10);
}
const end = await plan.end();
const again = (await client.listTools({}, options)).tools.map((entry) => entry.name).sort();
const result = { ...seen, end, results: config.plan === "everything" ? results : [], lists, again, closed };
const left = children();
await client.close();
process.stdout.write(`${JSON.stringify({ ...result, logs: undefined, left })}\n`);
process.exit(0);
