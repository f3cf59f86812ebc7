// The client in each runtime that it is said to work in, against a real gateway: WSGATE_BIN, or what
// `cargo build` has made. What is not installed is skipped; scripts/test installs all.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { after, before, describe, test as testWith } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const GATEWAY = process.env.WSGATE_BIN ?? `${ROOT}../target/debug/wsgate`;
const RUNTIMES = `${ROOT}test/runtimes/node_modules`;
const BROWSER = `${ROOT}../tests/browser`;
const JWT_SECRET = "a secret of the tests, longer than 32 bytes";

const missing = (folder) => !existsSync(folder) && `for want of: npm ci --prefix ${folder}/..`;
/** What hangs fails. */
const test = (name, run) => testWith(name, { timeout: 30_000 }, run);

/** What a run has to give. */
const EXPECTED = {
  states: ["open", "waiting", "open", "closed"],
  before: "alice: hi",
  call: "not_configured",
  after: "alice: hi again",
};

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

const tokenOf = (sub) => {
  const claims = { sub, exp: Date.now() / 1000 + 600, grants: { "*": ["join", "publish"] } };
  const signed = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url(claims)}`;
  return `${signed}.${createHmac("sha256", JWT_SECRET).update(signed).digest("base64url")}`;
};

/** Starts a gateway, which pages of the origin may connect to. */
const startGateway = async (origin, listen = "127.0.0.1:0") => {
  const options = ["--listen", listen, "--backend-listen", "127.0.0.1:0", "--allow-origin", origin];
  const child = spawn(GATEWAY, ["serve", ...options], {
    env: { WSGATE_JWT_SECRET: JWT_SECRET, WSGATE_API_KEY: "an API key of the tests", WSGATE_LOG_FORMAT: "text" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill); // Should the tests fail so badly that nothing after them runs.
  const ended = once(child, "close").finally(() => process.off("exit", kill));
  const end = async () => {
    kill();
    await ended;
  };
  const log = [];
  const at = await new Promise((resolve, reject) => {
    // It is read to its end, so that the gateway never waits for somebody to read its log.
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      const found = line.match(/listening public=(\S+)/);
      if (found) resolve(found[1]);
    });
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`the gateway ended:\n${log.join("\n")}`)));
  });
  return { at, end };
};

const FILES = ["wsgate.js", "dist/wsgate.iife.js", "test/runtimes/smoke.js", "test/runtimes/worker.js"];
const PAGE = '<!doctype html><title>Page</title><link rel="icon" href="data:,">';
const PAGES = { "/": PAGE, "/script": `${PAGE}<script src="/dist/wsgate.iife.js"></script>` };

/** Serves the files to pages; and to all, at `/restart`, another gateway in the place of the one before. */
const startServer = async () => {
  let gateway;
  const files = new Map(FILES.map((name) => [`/${name}`, readFileSync(`${ROOT}${name}`)]));
  const server = createServer(async ({ url }, response) => {
    if (url === "/restart") {
      await gateway.end();
      gateway = await startGateway(origin, gateway.at);
    }
    const type = files.has(url) ? "text/javascript" : "text/html";
    response.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(files.get(url) ?? PAGES[url]);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const origin = `http://127.0.0.1:${server.address().port}`;
  gateway = await startGateway(origin);
  const options = { url: `http://${gateway.at}/ws`, token: tokenOf("alice"), restart: `${origin}/restart` };
  const end = async () => {
    server.close();
    await gateway.end();
  };
  return { origin, options, end };
};

/** Makes an application that has the package among its dependencies, and `ws`. */
const makeApplication = async () => {
  const folder = await mkdtemp(`${tmpdir()}/wsgate-runtimes-`);
  await mkdir(`${folder}/node_modules`);
  await symlink(ROOT, `${folder}/node_modules/wsgate`);
  await symlink(`${ROOT}node_modules/ws`, `${folder}/node_modules/ws`);
  await writeFile(`${folder}/package.json`, JSON.stringify({ type: "module", dependencies: { wsgate: "*", ws: "*" } }));
  for (const name of ["smoke.js", "process.js"]) await cp(`${ROOT}test/runtimes/${name}`, `${folder}/${name}`);
  return folder;
};

let server;
let app;
before(async () => {
  server = await startServer();
  app = await makeApplication();
});
after(async () => {
  await server.end();
  await rm(app, { recursive: true });
});

/** Runs the program in a runtime, up to its end by itself. */
const runIn = async (t, command, args = [], options = {}) => {
  const given = JSON.stringify({ ...server.options, ...options });
  const child = spawn(command, [...args, "process.js", given], { cwd: app });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const [code] = await once(child, "close");
  assert.equal(code, 0, output);
  return JSON.parse(output);
};

test(`Node ${process.version}, with the WebSocket of the package ws`, async (t) => {
  assert.deepEqual(await runIn(t, process.execPath, [], { webSocketFrom: "ws" }), EXPECTED);
});

describe("runtimes with a WebSocket of their own", { skip: missing(RUNTIMES) }, () => {
  for (const [name, args] of [["node"], ["deno", ["run", "--quiet", "--allow-net"]], ["bun"]]) {
    test(name, async (t) => assert.deepEqual(await runIn(t, `${RUNTIMES}/.bin/${name}`, args), EXPECTED));
  }
});

describe("Chromium", { skip: missing(`${BROWSER}/node_modules`) }, () => {
  /** Opens a page, runs a function there, and returns what it gives. */
  const runInPage = async (t, path, run) => {
    const { startBrowser, openPage } = await import(`${BROWSER}/support.js`);
    const page = await openPage(await startBrowser(t), `${server.origin}${path}`);
    const given = await page.evaluate(run, server.options);
    // Chromium says by itself that a gateway is not there.
    assert.deepEqual(page.errors.filter((error) => !/WebSocket connection to .* failed/.test(error)), []);
    return given;
  };

  test("a page with the script", async (t) => {
    const given = await runInPage(t, "/script", async (options) => {
      const { smoke } = await import("/test/runtimes/smoke.js");
      return smoke(globalThis.wsgate.connect, options);
    });
    assert.deepEqual(given, EXPECTED);
  });

  test("a page that imports the script", async (t) => {
    const given = await runInPage(t, "/", async (options) => {
      await import("/dist/wsgate.iife.js");
      const { smoke } = await import("/test/runtimes/smoke.js");
      const { connect, Unauthorized } = globalThis.wsgate;
      return { ...(await smoke(connect, options)), isError: new Unauthorized() instanceof Error };
    });
    assert.deepEqual(given, { ...EXPECTED, isError: true });
  });

  test("a page with the module", async (t) => {
    const given = await runInPage(t, "/", async (options) => {
      const { connect } = await import("/wsgate.js");
      const { smoke } = await import("/test/runtimes/smoke.js");
      return smoke(connect, options);
    });
    assert.deepEqual(given, EXPECTED);
  });

  test("a Web Worker", async (t) => {
    const given = await runInPage(t, "/", (options) => {
      const worker = new Worker("/test/runtimes/worker.js", { type: "module" });
      worker.postMessage(options);
      return new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
      });
    });
    assert.deepEqual(given, EXPECTED);
  });
});
