// Swagger UI for the HTTP API. Requests made here use the session of this browser, or the API key
// given under "Authorize".
// minified already: to bundle it again doubles the build time
import scriptUrl from "swagger-ui-dist/swagger-ui-bundle.js?url";
import "swagger-ui-dist/swagger-ui.css";
import "./docs.css";

interface SwaggerOptions {
  url: string;
  domNode: HTMLElement | null;
  deepLinking: boolean;
  defaultModelsExpandDepth: number;
  validatorUrl: string | null;
}

declare const SwaggerUIBundle: (options: SwaggerOptions) => void; // defined by the script

const dark = matchMedia("(prefers-color-scheme: dark)");
const applyScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyScheme);
applyScheme();

const script = document.createElement("script");
script.src = scriptUrl;
script.onload = () =>
  SwaggerUIBundle({
    url: new URL("api/openapi.json", document.baseURI).href,
    domNode: document.getElementById("docs"),
    deepLinking: true,
    defaultModelsExpandDepth: 0, // the list of schemas is folded
    validatorUrl: null, // the default sends the document to a public validator
  });
document.head.append(script);
