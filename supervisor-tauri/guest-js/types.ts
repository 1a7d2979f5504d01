// The shapes that the plugin answers with. `tests/bindings.rs` compares every interface and every union below with
// what Rust really writes, so a change on one side alone fails a test.

export type Phase =
  | "registered" | "starting" | "running" | "unhealthy" | "backoff" | "stopping" | "stopped" | "failed";

export type SupervisorPhase = "idle" | "recovering" | "running" | "shutting_down" | "stopped";

export type ChannelState =
  | "connecting" | "syncing" | "ready" | "suspect" | "backoff" | "draining" | "open" | "closed";

export type OutputStream = "stdout" | "stderr" | "supervisor";

/** What a refused or failed command rejects with. */
export interface ErrorReport {
  /** Stable, for programs. */
  code: string;
  /** One sentence, for people. */
  message: string;
  /** Whether repeating the call unchanged may help. */
  retryable: boolean;
  /** Finds the log line that has the details. */
  correlation_id: string;
}

export interface StatusReport {
  version: number;
  supervisor: SupervisorStatus;
  services: ServiceStatus[];
  channels: ChannelStatus[];
}

export interface SupervisorStatus {
  pid: number;
  started_at: string;
  state: SupervisorPhase;
  /** `normal`, or a word for what works with less than it promises. */
  mode: string;
  database: string;
  last_checkpoint: string | null;
  containment: string[];
}

export interface ServiceStatus {
  id: string;
  name: string;
  phase: Phase;
  ready: boolean;
  pid: number | null;
  incarnation: number;
  restarts: number;
  critical: boolean;
  since: string;
  last_exit: LastExit | null;
  next_restart_at: string | null;
  reason: string;
  usage?: ResourceUsage;
  dropped?: DroppedOutput;
}

export interface LastExit {
  code: number | null;
  signal: number | null;
  reason: string;
}

export interface ResourceUsage {
  processes: number;
  /** Resident bytes. */
  memory: number;
  /** Of one core. */
  cpu_percent: number;
}

/** Output of a service that was not kept. */
export interface DroppedOutput {
  rate_lines: number;
  rate_bytes: number;
  cut_lines: number;
  cut_bytes: number;
  unwritten_lines: number;
  aged_bytes: number;
}

export interface ChannelStatus {
  name: string;
  state: ChannelState;
  generation: number;
  buffered: number;
  buffered_bytes: number;
  in_flight: number;
  dead_letters: number;
  reason?: string;
  /** Messages that have ended, by outcome. */
  outcomes?: Record<string, number>;
  last_recovery?: ChannelRecovery;
}

/** What one loss of a channel cost; times are in microseconds. */
export interface ChannelRecovery {
  cause: string;
  took_us: number;
  waited_us: number;
  connecting_us: number;
  syncing_us: number;
  attempts: number;
  redelivered: number;
  outcomes?: Record<string, number>;
}

export interface LogLine {
  at: string;
  stream: OutputStream;
  text: string;
}

/** Flat: the fields beside these five depend on `type`; unknown types and fields are to be ignored. */
export interface SupervisorEvent {
  version: number;
  id: string;
  sequence: number;
  at: string;
  type: string;
  [field: string]: unknown;
}

export interface AuditEntry {
  sequence: number;
  at: string;
  actor: string;
  action: string;
  subject: string;
  detail: string;
  hash: string;
}

export interface CheckpointSummary {
  id: string;
  created_at: string;
  sequence: number;
  services: number;
  pending_operations: number;
  bytes: number;
  health: { state: "verified" | "unverified" } | { state: "quarantined"; reason: string };
}

export interface RejectedRung {
  source: string;
  reason: string;
}

export interface RestoreSummary {
  checkpoint: Checkpoint;
  source: string;
  rejected: RejectedRung[];
}

export interface Checkpoint {
  id: string;
  schema: number;
  created_at: string;
  sequence: number;
  services: Record<string, unknown>;
  pending_operations: unknown[];
  channels: Record<string, unknown>;
}

export interface EventBatch {
  version: number;
  /** Grows by one with each batch. */
  revision: number;
  events: SupervisorEvent[];
  /** Events that belong here and are not. */
  missed: number;
  /** No batch follows. */
  closed: boolean;
}

export interface Snapshot {
  /** The last batch whose events `status` includes. */
  revision: number;
  status: StatusReport;
}

export interface InitOutcome {
  created: boolean;
}

export interface SupervisorHealth {
  initialised: boolean;
  healthy: boolean;
  state: SupervisorPhase | null;
  mode: string | null;
  services: number;
  ready: number;
  phases: Partial<Record<Phase, number>>;
  problems: string[];
  revision: number;
}
