// How the chat page and GraphiQL are built: into the Python package, and in development served beside a running Tidemark.
import { defineConfig } from "vite";

const server = "http://127.0.0.1:8000";

export default defineConfig({
  base: "/",
  build: {
    outDir: "../server/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false }, // the two pages have nothing in common
    rolldownOptions: {
      input: { index: "index.html", graphiql: "graphiql.html" },
      onwarn: (warning, warn) => warning.code === "MODULE_LEVEL_DIRECTIVE" || warn(warning), // "use client", in GraphiQL's parts
    },
  },
  server: { proxy: { "/api": server } },
});
