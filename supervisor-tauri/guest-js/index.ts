// Typed calls of the plugin's commands, and a follower that keeps a page true across gaps.

import { invoke } from "@tauri-apps/api/core";
import { listen } from "@tauri-apps/api/event";
import type {
  AuditEntry, ChannelStatus, CheckpointSummary, EventBatch, InitOutcome, LogLine, RestoreSummary,
  ServiceStatus, Snapshot, StatusReport, SupervisorEvent, SupervisorHealth,
} from "./types";

export type * from "./types";

function call<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
  return invoke<T>(`plugin:supervisor-tauri|${command}`, args);
}

export const initSupervisor = () => call<InitOutcome>("init_supervisor");
/** Registers a service that the application declared; resolves to its id. */
export const registerService = (service: string) => call<string>("register_service", { service });
/** Registers a service described here, as far as the application's command policy accepts it. */
export const registerServiceSpec = (spec: Record<string, unknown>) => call<string>("register_service", { spec });
export const startSupervisorMonitoring = () => call<null>("start_supervisor_monitoring");
export const getSupervisorHealth = () => call<SupervisorHealth>("get_supervisor_health");
export const snapshot = () => call<Snapshot>("snapshot");
export const listServices = () => call<ServiceStatus[]>("list_services");
export const startService = (service: string) => call<null>("start_service", { service });
export const stopService = (service: string) => call<null>("stop_service", { service });
export const restartService = (service: string) => call<null>("restart_service", { service });
export const serviceLogs = (service: string, limit?: number) =>
  call<LogLine[]>("service_logs", { service, limit });
export const supervisorEvents = (after?: number, limit?: number) =>
  call<SupervisorEvent[]>("supervisor_events", { after, limit });
export const listChannels = () => call<ChannelStatus[]>("list_channels");
export const listAudit = (after?: number, limit?: number) => call<AuditEntry[]>("list_audit", { after, limit });
export const createCheckpoint = () => call<string>("create_checkpoint");
export const loadCheckpoint = (checkpoint?: string) => call<RestoreSummary>("load_checkpoint", { checkpoint });
export const listCheckpoints = (limit?: number) => call<CheckpointSummary[]>("list_checkpoints", { limit });

/** What a follower is told. */
export interface Observer {
  /** Everything as it is: at the start, and after each gap. */
  all(status: StatusReport): void;
  /** What happened since, oldest first. */
  events(events: SupervisorEvent[]): void;
  /** A snapshot could not be read; the next batch tries again. */
  failed?(error: unknown): void;
}

/** Follows the supervisor, healing gaps by snapshot. Resolves to a function that ends it. */
export async function follow(observer: Observer): Promise<() => void> {
  let revision = -1;
  const heal = async () => {
    try {
      const found = await snapshot();
      if (found.revision < revision) return;
      revision = found.revision;
      observer.all(found.status);
    } catch (error) {
      observer.failed?.(error);
    }
  };
  const end = await listen<EventBatch>("supervisor-tauri://events", ({ payload: batch }) => {
    if (batch.revision <= revision) return;
    if (revision < 0 || batch.revision !== revision + 1 || batch.missed > 0) {
      void heal();
      return;
    }
    revision = batch.revision;
    observer.events(batch.events);
  });
  await heal();
  return end;
}
