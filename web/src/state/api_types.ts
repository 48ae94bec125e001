// Generated from openapi.json and docs/schema.graphql by `npm run shapes`. Do not edit.

export interface Shapes {
  RequestedAnswer: RequestedAnswer;
  Conversation: Conversation;
  Message: Message;
  Model: Model;
  Problem: Problem;
  Session: Session;
  Snapshot: Snapshot;
  PinnedResult: PinnedResult;
  SearchResult: SearchResult;
  RestoreResult: RestoreResult;
  CreateKeyResult: CreateKeyResult;
  KeysResult: KeysResult;
  RevokeKeyResult: RevokeKeyResult;
}
export interface RequestedAnswer {
  conversation_id: string;
  question_id: string;
  message_id: string;
  generation_id: string;
  model: string;
  events_url: string;
}
export interface Conversation {
  id: string;
  title: string;
  pinned: boolean;
  archived: boolean;
  model: string;
  system_prompt: string | null;
  metadata: {
    [k: string]: string;
  };
  shown_message_id: string | null;
  active_generations: string[];
  created_at: string;
  updated_at: string;
}
export interface Message {
  id: string;
  conversation_id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  content: Part[];
  text: string;
  status: "queued" | "running" | "completed" | "cancelled" | "failed";
  model: string | null;
  generation_id: string | null;
  finish_reason: string | null;
  usage: {
    [k: string]: unknown;
  } | null;
  error: GenerationError | null;
  metadata: {
    [k: string]: string;
  };
  position: number;
  siblings: string[];
  sibling_count: number;
  created_at: string;
}
export interface Part {
  type: "text" | "reasoning" | "tool_call" | "tool_result" | "file";
}
export interface GenerationError {
  code: string;
  message: string;
  retryable: boolean;
}
export interface Model {
  id: string;
  provider: string;
  name: string;
  context_tokens: number;
  default: boolean;
}
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  request_id: string;
  errors?: InputError[];
  limit?: number;
  retry_after_s?: number;
}
export interface InputError {
  pointer: string;
  detail: string;
}
export interface Session {
  account: AccountRef;
  user: UserRef | null;
  guest: boolean;
}
export interface AccountRef {
  id: string;
}
export interface UserRef {
  id: string;
  email: string | null;
}
export interface Snapshot {
  id: string;
  conversation_id: string;
  question_id: string;
  message_id: string;
  model: string;
  status: "queued" | "running" | "completed" | "cancelled" | "failed";
  attempt: number;
  seq: number;
  content: Part[];
  text: string;
  finish_reason: string | null;
  usage: {
    [k: string]: unknown;
  } | null;
  error: GenerationError | null;
  context: Context;
  created_at: string;
  started_at: string | null;
  first_token_at: string | null;
  finished_at: string | null;
}
export interface Context {
  messages_left_out: number;
}
export interface PinnedResult {
  conversations: {
    edges: {
      node: {
        id: string;
        title: string;
        pinned: boolean;
        archived: boolean;
        model: string;
        systemPrompt: string | null;
        updatedAt: string;
      };
    }[];
  };
}
export interface SearchResult {
  search: {
    edges: {
      node: {
        conversation: {
          id: string;
          title: string;
        };
        message: {
          id: string;
          role: "USER" | "ASSISTANT";
        } | null;
        excerpt: {
          text: string;
          match: boolean;
        }[];
      };
    }[];
    pageInfo: {
      hasNextPage: boolean;
      endCursor: string | null;
    };
  };
}
export interface RestoreResult {
  restoreConversation: {
    conversation: {
      id: string;
    };
  };
}
export interface CreateKeyResult {
  createApiKey: {
    secret: string;
    apiKey: {
      id: string;
    };
  };
}
export interface KeysResult {
  viewer: {
    account: {
      apiKeys: {
        id: string;
        name: string;
        prefix: string;
        createdAt: string;
      }[];
    };
  };
}
export interface RevokeKeyResult {
  revokeApiKey: {
    apiKey: {
      id: string;
    };
  };
}
