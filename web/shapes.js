// Generates the TypeScript types of the server's answers: openapi.json on standard input,
// TypeScript on standard output.
// The results of the GraphQL operations in src/graphql.ts are derived from docs/schema.graphql.
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import {
  buildSchema,
  getNamedType,
  isEnumType,
  isListType,
  isNonNullType,
  isObjectType,
  parse,
  validate,
} from "graphql";
import { compile } from "json-schema-to-typescript";

// and what they refer to
const SCHEMAS = ["RequestedAnswer", "Conversation", "Message", "Model", "Problem", "Session", "Snapshot"];
// every other scalar is a string
const SCALARS = { Int: "integer", Float: "number", Boolean: "boolean" };
const BANNER =
  "// Generated from openapi.json and docs/schema.graphql by `npm run shapes`. Do not edit.";

/**
 * Without titles, which would give every property a type of its own, and without descriptions,
 * whose wording may change.
 */
const bare = (schema) => {
  if (Array.isArray(schema)) return schema.map(bare);
  if (schema === null || typeof schema !== "object") return schema;
  const isText = ([key, value]) =>
    (key === "title" || key === "description") && typeof value === "string";
  const entries = Object.entries(schema).filter((entry) => !isText(entry));
  return Object.fromEntries(entries.map(([key, value]) => [key, bare(value)]));
};

const object = (properties, required = Object.keys(properties)) => ({
  ...{ type: "object", properties, required, additionalProperties: false },
});

/** The JSON schema of a field of this type. */
function valueOf(type, selections) {
  if (isNonNullType(type)) return notNull(type.ofType, selections);
  return { anyOf: [notNull(type, selections), { type: "null" }] };
}

function notNull(type, selections) {
  if (isListType(type)) return { type: "array", items: valueOf(type.ofType, selections) };
  if (isObjectType(type)) return selectionOf(type, selections);
  if (isEnumType(type)) return { enum: type.getValues().map(({ name }) => name) };
  return { type: SCALARS[getNamedType(type).name] ?? "string" };
}

function selectionOf(type, { selections }) {
  const fields = selections.map((each) => {
    if (each.kind !== "Field")
      throw new Error(`${type.name}: only fields can be generated, not ${each.kind}.`);
    return [
      each.alias?.value ?? each.name.value,
      valueOf(type.getFields()[each.name.value].type, each.selectionSet),
    ];
  });
  return object(Object.fromEntries(fields));
}

/** `SearchResult` and so on, of every template literal marked as GraphQL. */
function resultsOf(schema, source) {
  const results = {};
  for (const [, document] of source.matchAll(/\/\* GraphQL \*\/\s*`([^`]*)`/g)) {
    const parsed = parse(document);
    const faults = validate(schema, parsed);
    if (faults.length) throw faults[0];
    for (const { name, operation, selectionSet } of parsed.definitions)
      results[`${name.value}Result`] = selectionOf(schema.getRootType(operation), selectionSet);
  }
  return results;
}

const openapi = JSON.parse(await text(process.stdin));
const schema = buildSchema(
  readFileSync(new URL("../docs/schema.graphql", import.meta.url), "utf8"),
);
const results = resultsOf(schema, readFileSync(new URL("src/graphql.ts", import.meta.url), "utf8"));
const names = [...SCHEMAS, ...Object.keys(results)];
const document = {
  ...object(
    Object.fromEntries(names.map((name) => [name, { $ref: `#/components/schemas/${name}` }])),
  ),
  components: { schemas: { ...bare(openapi.components.schemas), ...results } },
};
const options = {
  additionalProperties: false,
  bannerComment: BANNER,
  style: { printWidth: 130 },
  unknownAny: true,
};
process.stdout.write(await compile(document, "Shapes", options));
