// The entry point of the chat page.
import { render } from "preact";
import { start as startConversation } from "./conversation";
import { saveDraft } from "./drafts";
import { listen } from "./keyboard";
import { readModels } from "./models";
import { start as startSending } from "./sending";
import { session, signIn } from "./session";
import { applySettings } from "./settings";
import "./style/fonts.css";
import "./style/base.css";
import "./style/side.css";
import "./style/thread.css";
import "./style/prose.css";
import "./style/overlays.css";
import { Page } from "./view/page";

applySettings();
render(<Page />, document.getElementById("page")!);
listen();
addEventListener("pagehide", saveDraft);
// Otherwise the browser leaves the page for a file that is dropped on it.
for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());

await signIn();
if (session.value === "ready") {
  startConversation();
  startSending();
  void readModels();
}
