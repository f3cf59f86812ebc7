#!/usr/bin/env node
// Makes what is in dist from the sources, which need no build: the script for pages, which is committed
// since the gateway has it in itself, and the sources as CommonJS for `require`, as Jest does.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

import { transform } from "esbuild";

import { bundle, ROOT } from "./bundle.mjs";

const read = (path) => readFileSync(`${ROOT}${path}`, "utf8");
const { version, license, exports } = JSON.parse(read("package.json"));

/** What a page gets by `<script src>`. It says what to set, so that an import of it does the same. */
export const scriptForPages = () =>
  bundle(
    `import { connect, Unauthorized } from "./wsgate.js";
     globalThis.wsgate = { connect, Unauthorized };`,
    { format: "iife", banner: { js: `/*! wsgate ${version} | ${license} */` } },
  );

/** Files for `require`, by name. They keep their names, and import each other as before. */
const filesForRequire = async () => {
  const files = { "package.json": `${JSON.stringify({ type: "commonjs" })}\n` };
  for (const { types, default: module } of Object.values(exports).flatMap((entry) => entry.import ?? [])) {
    files[module] = (await transform(read(module), { format: "cjs", target: "es2020" })).code;
    files[types] = read(types);
  }
  return files;
};

if (import.meta.filename === process.argv[1]) {
  mkdirSync(`${ROOT}dist/cjs`, { recursive: true });
  writeFileSync(`${ROOT}dist/wsgate.iife.js`, await scriptForPages());
  for (const [name, text] of Object.entries(await filesForRequire())) writeFileSync(`${ROOT}dist/cjs/${name}`, text);
}
