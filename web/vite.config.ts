// Builds the chat page, GraphiQL and Swagger UI into the Python package; in development, serves
// them beside a running Tidemark.
import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

const server = "http://127.0.0.1:8000";

/**
 * Drops the WOFF and TTF variants of KaTeX's fonts: every browser that can run this page reads
 * WOFF2.
 */
const onlyWoff2: Plugin = {
  name: "only-woff2",
  enforce: "pre",
  transform: (code, id) =>
    id.includes("katex") && id.endsWith(".css")
      ? code.replace(/,\s*url\([^)]+\.(?:woff|ttf)\)\s*format\([^)]+\)/g, "")
      : null,
};

/** The licences of the fonts, Swagger UI, GraphiQL and React, which have to be distributed with them. */
const licences: Plugin = {
  name: "licences",
  generateBundle() {
    const texts = (files: string[]) =>
      files
        .map((file) => readFileSync(new URL(`node_modules/${file}`, import.meta.url), "utf8"))
        .join("\n\n");
    const fonts = ["source-serif-4", "source-sans-3"].map(
      (name) => `@fontsource-variable/${name}/LICENSE`,
    );
    const swagger = ["LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"].map(
      (name) => `swagger-ui-dist/${name}`,
    );
    const graphiql = ["graphiql", "react", "react-dom"].map((name) => `${name}/LICENSE`);
    this.emitFile({ type: "asset", fileName: "assets/fonts-licence.txt", source: texts(fonts) });
    this.emitFile({ type: "asset", fileName: "assets/graphiql-licence.txt", source: texts(graphiql) });
    this.emitFile({
      type: "asset",
      fileName: "assets/swagger-ui-licence.txt",
      source: texts(swagger),
    });
  },
};

export default defineConfig({
  base: "./",
  plugins: [onlyWoff2, licences],
  build: {
    outDir: "../server/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    target: "es2022",
    modulePreload: { polyfill: false }, // the pages share no code
    rolldownOptions: {
      input: { index: "index.html", graphiql: "graphiql.html", docs: "docs.html" },
    },
  },
  server: { proxy: { "/api": server, "/graphql": server } },
});
