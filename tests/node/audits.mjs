// Runs the audits of graphql-http against the server and prints their results as JSON.
// Argument: the URL of the endpoint. TIDEMARK_KEY: an API key.
import { auditServer } from "graphql-http";

const fetchFn = (url, options = {}) =>
  fetch(url, { ...options, headers: { ...options.headers, authorization: `Bearer ${process.env.TIDEMARK_KEY}` } });

const results = await auditServer({ url: process.argv[2], fetchFn });
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
