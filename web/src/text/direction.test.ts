// The direction of a text is that of its first letter.
import { expect, test } from "vitest";
import { directionOf } from "./direction";

test("the first letter decides", () => {
  expect(directionOf("1. English, then \u05e9\u05dc\u05d5\u05dd")).toBe("ltr");
  expect(directionOf("(\u05e9\u05dc\u05d5\u05dd, then English")).toBe("rtl");
  expect(directionOf("\u0645\u0631\u062d\u0628\u0627")).toBe("rtl");
  expect(directionOf("\u4f60\u597d")).toBe("ltr");
  expect(directionOf("1,000 – 2,000 €")).toBe(null);
});
