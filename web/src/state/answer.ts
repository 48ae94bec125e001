// The state of one answer, and pure functions that apply events to it.
import type { GenerationError, Snapshot } from "./api_types";

export type Status = Snapshot["status"];

export type Part =
  | { type: "text" | "reasoning"; text: string }
  | { type: "tool_call"; call_id: string; name: string; arguments: unknown }
  | { type: "tool_result"; call_id: string; content: unknown; is_error?: boolean }
  | { type: "file"; file_id: string; media_type: string; name: string };

export type Failure = GenerationError;

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens?: number;
  reasoning_tokens?: number;
  estimated?: boolean;
}

/** A part with its index in the log; lists of these are sorted by index. */
export interface PlacedPart {
  index: number;
  part: Part;
}

export interface Answer {
  /** The number of the last event this state includes. */
  seq: number;
  status: Status;
  parts: PlacedPart[];
  finishReason: string | null;
  error: Failure | null;
  usage: Usage | null;
}

type Body =
  | { type: "queued" | "started" | "resumed" | "restarted" }
  | { type: "text_delta" | "reasoning_delta"; part: number; text: string }
  | { type: "tool_call"; part: number; call_id: string; name: string; arguments: unknown }
  | { type: "tool_result"; part: number; call_id: string; content: unknown; is_error?: boolean }
  | { type: "completed"; finish_reason: string | null; usage?: Usage | null }
  | { type: "cancelled"; usage?: Usage | null }
  | ({ type: "failed"; usage?: Usage | null } & Failure)
  | {
      type: "snapshot";
      status: Status;
      content: Part[];
      finish_reason: string | null;
      error: Failure | null;
      usage?: Usage | null;
    };

export type StreamEvent = Body & { seq: number };

/** The fields of a stored message that an answer is made from. */
export interface StoredAnswer {
  status: Status;
  content: Part[];
  finish_reason: string | null;
  error: Failure | null;
  usage?: Usage | null;
}

export const active = (status: Status): boolean => status === "queued" || status === "running";

/** An answer as stored. It includes no event yet, so following it starts with a snapshot. */
export function answerFrom(stored: StoredAnswer): Answer {
  return {
    seq: 0,
    status: stored.status,
    parts: placed(stored.content),
    finishReason: stored.finish_reason,
    error: stored.error,
    usage: stored.usage ?? null,
  };
}

/** Applies one event of the log; an event that is already included changes nothing. */
export function applyEvent(answer: Answer, event: StreamEvent): Answer {
  const seen = event.type === "snapshot" ? event.seq < answer.seq : event.seq <= answer.seq;
  if (seen) return answer;
  const { seq } = event;
  switch (event.type) {
    case "started":
    case "resumed":
      return { ...answer, seq, status: "running" };
    case "restarted":
      return { ...answer, seq, status: "running", parts: [], finishReason: null, error: null };
    case "text_delta":
    case "reasoning_delta":
      return {
        ...answer,
        seq,
        status: "running",
        parts: extend(answer.parts, event.part, kindOf(event.type), event.text),
      };
    case "tool_call": {
      const { part, call_id, name } = event;
      return {
        ...answer,
        seq,
        parts: place(answer.parts, part, {
          type: "tool_call",
          call_id,
          name,
          arguments: event.arguments,
        }),
      };
    }
    case "tool_result": {
      const { part, call_id, content, is_error = false } = event;
      return {
        ...answer,
        seq,
        parts: place(answer.parts, part, { type: "tool_result", call_id, content, is_error }),
      };
    }
    case "completed":
      return {
        ...answer,
        seq,
        status: "completed",
        finishReason: event.finish_reason,
        error: null,
        usage: event.usage ?? null,
      };
    case "cancelled":
      return { ...answer, seq, status: "cancelled", usage: event.usage ?? null };
    case "failed": {
      const { code, message, retryable } = event;
      return {
        ...answer,
        seq,
        status: "failed",
        error: { code, message, retryable },
        usage: event.usage ?? null,
      };
    }
    case "snapshot": {
      const { status, content, finish_reason, error } = event;
      return {
        ...answer,
        seq,
        status,
        parts: placed(content),
        finishReason: finish_reason,
        error,
        usage: event.usage ?? null,
      };
    }
    default: // `queued`, and unknown events of a newer server: only the number counts
      return { ...answer, seq };
  }
}

const kindOf = (type: "text_delta" | "reasoning_delta") =>
  type === "text_delta" ? "text" : "reasoning";

const placed = (content: Part[]): PlacedPart[] => content.map((part, index) => ({ index, part }));

function extend(
  parts: PlacedPart[],
  index: number,
  type: "text" | "reasoning",
  text: string,
): PlacedPart[] {
  const before = parts.find((each) => each.index === index)?.part;
  return place(parts, index, { type, text: before?.type === type ? before.text + text : text });
}

function place(parts: PlacedPart[], index: number, part: Part): PlacedPart[] {
  const others = parts.filter((each) => each.index !== index);
  return [...others, { index, part }].sort((a, b) => a.index - b.index);
}
