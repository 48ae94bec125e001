// A new conversation, with suggestions for a first message.
import { write } from "../drafts";
import { Mark } from "./icon";

const beginnings = [
  "Explain the tides as you would to a child",
  "Write a function that parses ISO dates",
  "Compare three ways to store a tree in SQL",
];

export function Welcome() {
  const begin = (text: string) => {
    write(text);
    document.getElementById("message")?.focus();
  };
  return (
    <div class="welcome">
      <Mark />
      <h2>What would you like to know?</h2>
      <p>
        You can close the page while an answer is being written. It will be here when you come back.
      </p>
      <ul>
        {beginnings.map((text) => (
          <li key={text}>
            <button type="button" class="beginning" onClick={() => begin(text)}>
              {text}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
