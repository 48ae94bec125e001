// Runs graphql-http's audits against the server at argv[2] with the key in TIDEMARK_KEY, and prints their results as JSON.
import { auditServer } from "graphql-http";

const fetchFn = (url, options = {}) =>
  fetch(url, { ...options, headers: { ...options.headers, authorization: `Bearer ${process.env.TIDEMARK_KEY}` } });

const results = await auditServer({ url: process.argv[2], fetchFn });
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
