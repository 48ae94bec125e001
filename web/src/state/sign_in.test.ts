import { expect, test } from "vitest";
import { bringLabel, signInBody, tokenOf } from "./sign_in";

test("only the fragment carries a token", () => {
  expect(tokenOf("#token=abc-_1")).toBe("abc-_1");
  expect(tokenOf("#other=1&token=abc")).toBe("abc");
  expect(tokenOf("")).toBeNull();
  expect(tokenOf("#token=")).toBeNull();
  expect(tokenOf("?token=abc")).toBeNull();
});

test("conversations are brought along only when the person asks for it", () => {
  expect(signInBody("abc", { bringConversations: false })).toEqual({
    token: "abc",
    bring_conversations: false,
  });
  expect(signInBody("abc", { bringConversations: true })).toEqual({
    token: "abc",
    bring_conversations: true,
  });
});

test("the checkbox names the number of conversations, and is left out where there are none", () => {
  const of = (guest_conversations: number) =>
    bringLabel({ email: "a@example.org", guest_conversations });

  expect(of(0)).toBeNull();
  expect(of(1)).toBe("Bring along 1 conversation of this browser");
  expect(of(3)).toBe("Bring along 3 conversations of this browser");
});
