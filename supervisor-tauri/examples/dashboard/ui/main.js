"use strict";

const { invoke } = window.__TAURI__.core;
const { listen } = window.__TAURI__.event;

const COMMAND = (name) => `plugin:supervisor-tauri|${name}`;
/** Most lines of what happened that are kept; the oldest go. */
const EVENTS_MAX = 200;
/** Pause between two snapshots that heal what was missed unnoticed, in milliseconds. */
const HEAL_EVERY = 5000;

const STATES = {
  running: "good", starting: "busy", stopping: "busy", backoff: "busy", registered: "", stopped: "",
  unhealthy: "bad", failed: "bad",
};

const rows = new Map();
let revision = -1;
let logOf = null;

const byId = (id) => document.getElementById(id);

function say(text) {
  byId("said").textContent = text;
}

async function call(name, args) {
  try {
    return await invoke(COMMAND(name), args);
  } catch (error) {
    byId("alert").textContent = error.message ?? String(error);
    throw error;
  }
}

function cell(row, name) {
  const td = document.createElement("td");
  td.dataset.name = name;
  row.append(td);
  return td;
}

function button(row, label, service, command) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.setAttribute("aria-label", `${label} ${service.name}`);
  made.addEventListener("click", async () => {
    say(`${label}: ${service.name}…`);
    await call(command, { service: service.id });
    await heal();
  });
  row.append(made);
}

/** Makes a row once; afterwards only its texts change, so that focus and selection survive. */
function rowOf(service) {
  const known = rows.get(service.id);
  if (known) return known;
  const row = document.createElement("tr");
  row.dataset.service = service.id;
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = service.critical ? `${service.name} (critical)` : service.name;
  row.append(head);
  for (const name of ["state", "pid", "restarts", "exit", "reason"]) cell(row, name);
  const actions = cell(row, "actions");
  button(actions, "Start", service, "start_service");
  button(actions, "Stop", service, "stop_service");
  button(actions, "Restart", service, "restart_service");
  const log = document.createElement("button");
  log.type = "button";
  log.textContent = "Output";
  log.setAttribute("aria-label", `Output of ${service.name}`);
  log.addEventListener("click", () => showLog(service.id));
  actions.append(log);
  byId("services").append(row);
  rows.set(service.id, row);
  return row;
}

function set(row, name, text) {
  const found = row.querySelector(`[data-name="${name}"]`);
  if (found.textContent !== text) found.textContent = text;
  return found;
}

function ended(exit) {
  if (!exit) return "";
  if (exit.signal !== null) return `${exit.reason} (signal ${exit.signal})`;
  return exit.code === null ? exit.reason : `${exit.reason} (code ${exit.code})`;
}

function showService(service) {
  const row = rowOf(service);
  const ready = service.phase === "running" && !service.ready ? "running, not ready" : service.phase;
  set(row, "state", ready).className = `state ${STATES[service.phase] ?? ""}`;
  set(row, "pid", service.pid === null ? "" : String(service.pid));
  set(row, "restarts", String(service.restarts));
  set(row, "exit", ended(service.last_exit));
  set(row, "reason", service.reason);
}

function showAll(status) {
  for (const service of status.services) showService(service);
  const known = new Set(status.services.map((service) => service.id));
  for (const [id, row] of rows) {
    if (!known.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  const ready = status.services.filter((service) => service.ready).length;
  byId("summary").textContent = `${ready} of ${status.services.length} ready, supervisor ${status.supervisor.state}, mode ${status.supervisor.mode}`;
  const channels = status.channels.map((channel) => {
    const item = document.createElement("li");
    item.textContent = `${channel.name}: ${channel.state}, connection ${channel.generation}, ${channel.buffered} waiting`;
    return item;
  });
  byId("channels").replaceChildren(...channels);
}

function describe(event) {
  const who = event.service ?? event.channel ?? "supervisor";
  switch (event.type) {
    case "ServiceStateChanged": return `${who}: ${event.from} → ${event.to}, ${event.reason}`;
    case "ServiceRestarted": return `${who}: restarted, attempt ${event.attempt}: ${event.reason}`;
    case "IpcChannelStateChanged": return `${who}: channel ${event.to}, ${event.reason}`;
    case "HealthCheckCompleted": return null;
    default: return `${who}: ${event.type}${event.reason ? `, ${event.reason}` : ""}`;
  }
}

function showEvent(event) {
  const text = describe(event);
  if (text === null) return;
  const item = document.createElement("li");
  item.textContent = `${new Date(event.at).toLocaleTimeString()} ${text}`;
  const list = byId("events");
  list.prepend(item);
  while (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
  if (event.type === "ServiceRestarted") say(`${event.service} restarted, attempt ${event.attempt}`);
  if (event.type === "ServiceGaveUp") byId("alert").textContent = `${event.service} was given up: ${event.reason}`;
}

async function showLog(service) {
  logOf = service;
  byId("log-of").textContent = service;
  const lines = await call("service_logs", { service, limit: 200 });
  byId("log").textContent = lines.map((line) => line.text).join("\n");
}

/** Reads everything anew: after a gap, after an action, and now and then. */
async function heal() {
  const snapshot = await call("snapshot");
  if (snapshot.revision < revision) return;
  revision = snapshot.revision;
  showAll(snapshot.status);
  document.body.dataset.revision = String(revision);
}

byId("checkpoint").addEventListener("click", async () => {
  const id = await call("create_checkpoint");
  say(`checkpoint ${typeof id === "string" ? id : JSON.stringify(id)} taken`);
});

async function begin() {
  await listen("supervisor-tauri://events", async ({ payload: batch }) => {
    batch.events.forEach(showEvent);
    // The snapshot is one question away and says everything; an event only says that it is time to ask.
    await heal();
    if (logOf !== null) await showLog(logOf);
  });
  await heal();
  setInterval(heal, HEAL_EVERY);
}

begin();
