// The shapes the server answers with, as far as the page uses them, and the events of a page's stream.
import type { Failure, Part, Status, StoredAnswer, StreamEvent, Usage } from "./answer";

export interface Conversation {
  id: string;
  title: string;
  pinned: boolean;
  archived: boolean;
  model: string;
  system_prompt: string | null;
  shown_message_id: string | null;
  active_generations: string[];
  updated_at: string;
}

export interface Message extends StoredAnswer {
  id: string;
  conversation_id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  text: string;
  model: string | null;
  generation_id: string | null;
  usage: Usage | null;
  siblings: string[];
  created_at: string;
}

export interface Snapshot {
  id: string;
  message_id: string;
  status: Status;
  seq: number;
  content: Part[];
  finish_reason: string | null;
  usage: Usage | null;
  error: Failure | null;
}

export interface Model {
  id: string;
  provider: string;
  name: string;
  context_tokens: number;
  default: boolean;
}

export interface Page<T> {
  data: T[];
  next: string | null;
}

/** What sending, editing, regenerating and continuing answer with. */
export interface Accepted {
  conversation_id: string;
  question_id: string;
  message_id: string;
  generation_id: string;
  model: string;
}

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
