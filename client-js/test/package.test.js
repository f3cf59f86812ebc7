// The package as it is published: what is in it, how small it is, that each way of importing it finds
// it and its types, and that the types say what is right and what is wrong.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, describe, test } from "node:test";

import { scriptForPages } from "../scripts/build.mjs";
import { bundle, gzipSize, ROOT } from "../scripts/bundle.mjs";

const MAX_CLIENT_BYTES = 3_072;
const MAX_REACT_BYTES = 3_700;

const folder = mkdtempSync(`${tmpdir()}/wsgate-package-`);
after(() => rmSync(folder, { recursive: true }));

/** Runs a program, which has to succeed, and returns what it says. */
const run = (command, args, cwd = ROOT) => {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8" });
  assert.equal(status, 0, error ?? `${command} ${args.join(" ")}:\n${stdout}${stderr}`);
  return stdout;
};
const runTool = (name, ...args) => run(`${ROOT}node_modules/.bin/${name}`, args);

/** Packs a copy, so that the folder stays as it is, and returns the archive with the names that are in it. */
const pack = () => {
  const copy = `${folder}/copy/client-js`;
  cpSync(ROOT, copy, { recursive: true, filter: (path) => !path.includes("node_modules") });
  for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) cpSync(`${ROOT}../${name}`, `${folder}/copy/${name}`);
  symlinkSync(`${ROOT}node_modules`, `${copy}/node_modules`);
  run("npm", ["pack", "--loglevel=error", "--pack-destination", folder], copy);
  const { version } = JSON.parse(readFileSync(`${ROOT}package.json`));
  const archive = `${folder}/wsgate-${version}.tgz`;
  const names = run("tar", ["-tzf", archive]).trim().split("\n");
  return { archive, names: names.map((name) => name.replace("package/", "")) };
};
const { archive, names } = pack();

/** Makes an application that has installed the package. */
const makeApplication = (name, type) => {
  const app = `${folder}/${name}`;
  mkdirSync(`${app}/node_modules/wsgate`, { recursive: true });
  run("tar", ["-xzf", archive, "-C", `${app}/node_modules/wsgate`, "--strip-components=1"]);
  for (const other of ["react", "@types"]) symlinkSync(`${ROOT}node_modules/${other}`, `${app}/node_modules/${other}`);
  writeFileSync(`${app}/package.json`, JSON.stringify({ type }));
  return app;
};

describe("the script for pages", () => {
  const script = readFileSync(`${ROOT}dist/wsgate.iife.js`, "utf8");

  test("is what the sources make: if not, npm run build", async () => {
    assert.ok(script === (await scriptForPages()), "dist/wsgate.iife.js is out of date: npm run build");
  });

  test("begins with its version and licence", () => {
    assert.match(script, /^\/\*! wsgate \d+\.\d+\.\d+ \| MIT OR Apache-2\.0 \*\/\n/);
  });
});

describe("the client is small", () => {
  const sizeOf = async (source) => gzipSize(await bundle(source));

  test(`at most ${MAX_CLIENT_BYTES} bytes compressed`, async () => {
    const size = await sizeOf('export * from "./wsgate.js"');
    assert.ok(size <= MAX_CLIENT_BYTES, `${size} bytes are ${size - MAX_CLIENT_BYTES} too many`);
  });

  test(`at most ${MAX_REACT_BYTES} bytes with the hooks`, async () => {
    const size = await sizeOf('export * from "./wsgate.js"; export * from "./react.js"');
    assert.ok(size <= MAX_REACT_BYTES, `${size} bytes are ${size - MAX_REACT_BYTES} too many`);
  });
});

describe("the package", () => {
  test("has all that it names, its licences, and nothing else", () => {
    const { exports } = JSON.parse(readFileSync(`${ROOT}package.json`));
    const named = JSON.stringify(exports).match(/\.\/[^"]+\.\w+(?=")/g).map((path) => path.slice(2));
    const more = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist/cjs/package.json", "dist/wsgate.iife.js"];
    assert.deepEqual(names.toSorted(), [...new Set([...named, ...more])].toSorted());
  });

  test("leaves publint nothing to say", () => {
    const found = runTool("publint", "--strict", "--level", "suggestion", archive);
    assert.match(found, /All good!/);
  });

  test("has the right types for each way of importing it, as attw sees it", () => {
    runTool("attw", archive);
  });

  for (const [type, importing] of [
    ["module", (names, from) => `import { ${names} } from "${from}";`],
    ["commonjs", (names, from) => `const { ${names} } = require("${from}");`],
  ]) {
    test(`can be imported by a ${type}`, () => {
      const app = makeApplication(`import-${type}`, type);
      writeFileSync(
        `${app}/index.js`,
        `${importing("connect, Unauthorized", "wsgate")}
         ${importing("useRoom", "wsgate/react")}
         ${importing("io", "wsgate/socketio")}
         const socket = connect("ws://127.0.0.1:9/ws", { token: "", WebSocket: class {}, open: false });
         console.log(socket.join("chat").name, new Unauthorized() instanceof Error, typeof useRoom, typeof io);`,
      );
      assert.equal(run(process.execPath, ["index.js"], app), "chat true function function\n");
    });
  }
});

describe("the types allow what is right and nothing else", () => {
  for (const [module, moduleResolution, type] of [
    ["esnext", "bundler", "module"],
    ["node16", "node16", "module"],
    ["nodenext", "nodenext", "module"],
    ["node16", "node16", "commonjs"],
    ["nodenext", "nodenext", "commonjs"],
  ]) {
    test(`for a ${type} with moduleResolution ${moduleResolution}`, () => {
      const app = makeApplication(`types-${type}-${moduleResolution}`, type);
      cpSync(`${ROOT}test/types`, app, { recursive: true });
      runTool("tsc", "--project", app, "--module", module, "--moduleResolution", moduleResolution);
    });
  }
});
