#!/usr/bin/env node
// Prints what clients cost a page: ours, and the latest of others, which are put into a temporary folder.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { brotliCompressSync } from "node:zlib";

import { bundle, gzipSize, ROOT } from "./bundle.mjs";

/** The classes and functions that an application needs of each. */
const OTHERS = {
  "reconnecting-websocket": 'export { default } from "reconnecting-websocket"',
  partysocket: 'export { default } from "partysocket"',
  "@azure/web-pubsub-client": 'export { WebPubSubClient } from "@azure/web-pubsub-client"',
  "socket.io-client": 'export { io } from "socket.io-client"',
  centrifuge: 'export { Centrifuge } from "centrifuge"',
  "pusher-js": 'export { default } from "pusher-js"',
};

const versionIn = (folder) => JSON.parse(readFileSync(`${folder}/package.json`)).version;

const row = async (name, version, source, folder) => {
  const text = await bundle(source, { folder });
  return { name, version, sizes: [Buffer.byteLength(text), gzipSize(text), brotliCompressSync(text).length] };
};

const ours = versionIn(ROOT);
const rows = [
  await row("wsgate", ours, 'export * from "./wsgate.js"', ROOT),
  await row("wsgate and wsgate/react", ours, 'export * from "./wsgate.js"; export * from "./react.js"', ROOT),
  await row("wsgate/socketio", ours, 'export * from "./socketio.js"', ROOT),
];

const folder = mkdtempSync(`${tmpdir()}/wsgate-sizes-`);
try {
  // By its tag, as npm takes an older version where the latest is not for this Node.
  const latest = Object.keys(OTHERS).map((name) => `${name}@latest`);
  const install = ["install", "--prefix", folder, "--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts"];
  execFileSync("npm", [...install, ...latest], { stdio: ["ignore", "ignore", "inherit"] });
  const others = Object.entries(OTHERS).map(([name, source]) =>
    row(name, versionIn(`${folder}/node_modules/${name}`), source, folder),
  );
  rows.push(...(await Promise.all(others)).sort((a, b) => a.sizes[1] - b.sizes[1]));
} finally {
  rmSync(folder, { recursive: true });
}

console.log("| | version | minified | gzip | brotli |\n|---|---|--:|--:|--:|");
for (const { name, version, sizes } of rows) {
  console.log(`| ${[name, version, ...sizes.map((size) => size.toLocaleString("en"))].join(" | ")} |`);
}
