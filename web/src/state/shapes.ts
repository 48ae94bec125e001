// What the page uses of the server's answers, and the events of a page's stream. The types of the
// fields are the server's: api_types.ts.
import type { Part, StreamEvent, Usage } from "./answer";
import type * as api from "./api_types";

export type Conversation = Pick<
  api.Conversation,
  | "id"
  | "title"
  | "pinned"
  | "archived"
  | "model"
  | "system_prompt"
  | "shown_message_id"
  | "active_generations"
  | "updated_at"
>;

/** The keys of each kind of part and of the usage, which openapi.json does not specify. */
interface Detail {
  content: Part[];
  usage: Usage | null;
}

export type Message = Detail &
  Pick<
    api.Message,
    | "id"
    | "conversation_id"
    | "parent_id"
    | "role"
    | "text"
    | "status"
    | "model"
    | "generation_id"
    | "finish_reason"
    | "error"
    | "siblings"
    | "created_at"
  > &
  Partial<Pick<api.Message, "position" | "sibling_count">>;

export type Snapshot = Detail &
  Pick<api.Snapshot, "id" | "message_id" | "status" | "seq" | "finish_reason" | "error">;

export type { Model, Session } from "./api_types";

export interface Page<T> {
  data: T[];
  next: string | null;
}

/** The response to sending, editing, regenerating and continuing. */
export type Accepted = Omit<api.RequestedAnswer, "events_url">;

export interface Opened {
  type: "opened";
  conversation: Conversation | null;
  messages: Message[];
  before: string | null;
  generations: Snapshot[];
}

export type AnswerEvent = StreamEvent & { generation_id: string };

export type PageEvent =
  | Opened
  | { type: "conversation_changed"; conversation: Conversation }
  | { type: "conversation_removed"; id: string }
  | { type: "message_changed"; message: Message }
  | { type: "resync" }
  | AnswerEvent;
