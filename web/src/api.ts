// The HTTP interface as the page uses it: shapes, calls, and refusals as one kind of error.
import type { Part, Status, StoredAnswer } from "./answer";

export interface Conversation {
  id: string;
  title: string | null;
}

export interface Message extends StoredAnswer {
  id: string;
  conversation_id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  content: Part[];
  text: string;
  status: Status;
  model: string | null;
  siblings: string[];
}

export interface Page<T> {
  data: T[];
  next: string | null;
}

/** What sending, regenerating and continuing answer with. */
export interface Accepted {
  conversation_id: string;
  question_id: string;
  message_id: string;
  generation_id: string;
  model: string;
  events_url: string;
}

/** A refusal; `status` 0 means that the server was not reached. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly request_id: string | null = null,
  ) {
    super(detail);
  }
}

/** The refusal a response carries, problem+json or not. */
export async function failureFrom(response: Response): Promise<Problem> {
  const body = await response.json().catch(() => ({}));
  return new Problem(
    response.status,
    body.code ?? "unknown",
    body.detail ?? `The server answered ${response.status}.`,
    body.request_id ?? null,
  );
}

/** Calls the server and answers the JSON body (undefined for none); raises `Problem`. */
export async function call<T>(method: string, path: string, body?: object, idempotencyKey?: string): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (body) headers["content-type"] = "application/json";
  if (idempotencyKey) headers["idempotency-key"] = idempotencyKey;
  const response = await fetch(path, {
    method,
    headers,
    credentials: "same-origin",
    ...(body ? { body: JSON.stringify(body) } : {}),
  }).catch(() => {
    throw new Problem(0, "unreachable", "The server cannot be reached.");
  });
  if (!response.ok) throw await failureFrom(response);
  return response.status === 204 ? (undefined as T) : await response.json();
}

/** A key no one else will choose; works on plain http too, where `crypto.randomUUID` is missing. */
export const newKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Works until the server is reached, as long as that is wanted; raises what the server refuses. */
export async function untilReached<T>(
  work: () => Promise<T>,
  wanted: () => boolean,
  onAway = () => {},
): Promise<T | undefined> {
  for (let delay_ms = 500; wanted(); delay_ms = Math.min(delay_ms * 2, 15_000)) {
    try {
      return await work();
    } catch (error) {
      if (!isAway(error)) throw error;
      onAway();
    }
    await new Promise((resolve) => setTimeout(resolve, delay_ms * (0.5 + Math.random() / 2)));
  }
  return undefined;
}

export const isAway = (error: unknown) => error instanceof Problem && (error.status === 0 || error.status >= 500);
