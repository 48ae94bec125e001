// Calls to the HTTP API; every failure is a `Problem`.
import { at } from "./root";

/** A failed request; `status` 0 means that the server was not reached. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly retry_after_s: number | null = null,
  ) {
    super(detail);
  }
}

/** The error of a response, problem+json or not. */
export async function failureFrom(response: Response): Promise<Problem> {
  const body = await response.json().catch(() => ({}));
  const detail = body.detail ?? `The server answered ${response.status}.`;
  return new Problem(response.status, body.code ?? "unknown", detail, body.retry_after_s ?? null);
}

const request_max_ms = 30_000;

/** Calls the server and returns the JSON body (undefined if there is none); throws `Problem`. */
export async function call<T>(
  method: string,
  path: string,
  body?: object,
  idempotencyKey?: string,
): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (body) headers["content-type"] = "application/json";
  if (idempotencyKey) headers["idempotency-key"] = idempotencyKey;
  try {
    const response = await fetch(at(path), {
      ...{
        method,
        headers,
        credentials: "same-origin",
        signal: AbortSignal.timeout(request_max_ms),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    if (!response.ok) throw await failureFrom(response);
    return response.status === 204 ? (undefined as T) : await response.json();
  } catch (error) {
    throw error instanceof Problem
      ? error
      : new Problem(0, "unreachable", "The server cannot be reached.");
  }
}

/** A random idempotency key; works on plain http too, where `crypto.randomUUID` is missing. */
export const newKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

/** Whether the same request may succeed later. */
export const isAway = (error: unknown): boolean =>
  error instanceof Problem && (error.status === 0 || error.status === 408 || error.status >= 500);

/** Retries until the server is reached; throws what the server rejects. */
export async function untilReached<T>(work: () => Promise<T>, onAway: () => void): Promise<T> {
  for (let delay_ms = 500; ; delay_ms = Math.min(delay_ms * 2, 15_000)) {
    try {
      return await work();
    } catch (error) {
      if (!isAway(error)) throw error;
      onAway();
    }
    await new Promise((resolve) => setTimeout(resolve, delay_ms * (0.5 + Math.random() / 2)));
  }
}
