// Where the page begins.
import { render } from "preact";
import { start } from "./page";
import "./style.css";
import { Page } from "./view";

render(<Page />, document.getElementById("page")!);
void start();
