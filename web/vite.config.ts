// How the chat page and GraphiQL are built: into the Python package, and in development served beside a running Tidemark.
import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

const server = "http://127.0.0.1:8000";

/** KaTeX names every font three times; browsers that can show this page read the first. */
const onlyWoff2: Plugin = {
  name: "only-woff2",
  enforce: "pre",
  transform: (code, id) =>
    id.includes("katex") && id.endsWith(".css") ? code.replace(/,\s*url\([^)]+\.(?:woff|ttf)\)\s*format\([^)]+\)/g, "") : null,
};

/** The licences of the fonts travel with them. */
const fontLicences: Plugin = {
  name: "font-licences",
  generateBundle() {
    const texts = ["source-serif-4", "source-sans-3"].map((name) =>
      readFileSync(new URL(`node_modules/@fontsource-variable/${name}/LICENSE`, import.meta.url), "utf8"),
    );
    this.emitFile({ type: "asset", fileName: "assets/fonts-licence.txt", source: texts.join("\n\n") });
  },
};

export default defineConfig({
  base: "/",
  plugins: [onlyWoff2, fontLicences],
  build: {
    outDir: "../server/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    target: "es2022",
    chunkSizeWarningLimit: 800, // kB: GraphiQL, which only its own page loads
    modulePreload: { polyfill: false }, // the two pages have nothing in common
    rolldownOptions: {
      input: { index: "index.html", graphiql: "graphiql.html" },
      onwarn: (warning, warn) => warning.code === "MODULE_LEVEL_DIRECTIVE" || warn(warning), // "use client", in GraphiQL's parts
    },
  },
  server: { proxy: { "/api": server, "/graphql": server } },
});
