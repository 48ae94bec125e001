// How the chat page is built: into the Python package, and in development served beside a running Tidemark.
import { defineConfig } from "vite";

const server = "http://127.0.0.1:8000";

export default defineConfig({
  base: "/",
  build: { outDir: "../server/page", emptyOutDir: true, assetsInlineLimit: 0 },
  server: { proxy: { "/api": server } },
});
