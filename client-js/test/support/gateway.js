// The real gateway, WSGATE_BIN or what `cargo build` has made, behind the same interface as the fake.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { JWT_SECRET, tokenOf } from "./tokens.js";

const BINARY = process.env.WSGATE_BIN ?? fileURLToPath(new URL("../../../target/debug/wsgate", import.meta.url));
const API_KEY = "an API key of the tests";

/** Starts the binary once, and waits until it listens. */
const run = async (args) => {
  const child = spawn(BINARY, ["serve", ...args], {
    env: { WSGATE_JWT_SECRET: JWT_SECRET, WSGATE_API_KEY: API_KEY, WSGATE_LOG_FORMAT: "text" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill); // Should the tests fail so badly that nothing after them runs.
  const ended = new Promise((resolve) => child.once("close", resolve));
  ended.then(() => process.off("exit", kill));
  const end = async (signal) => {
    child.kill(signal);
    await ended;
  };
  const log = [];
  const [at, backend] = await new Promise((resolve, reject) => {
    // It is read to its end, so that the gateway never waits for somebody to read its log.
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      const found = line.match(/listening public=(\S+) backend=(\S+)/);
      if (found) resolve(found.slice(1));
    });
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`the gateway ended:\n${log.join("\n")}`)));
  });
  return { at, backend, end };
};

/** A backend that answers calls with what a function gives. */
const startBackend = async (t, call) => {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { event, data, user } = JSON.parse(body);
    try {
      response.end(JSON.stringify((await call({ event, data, user })) ?? null));
    } catch (refused) {
      response.writeHead(422).end(JSON.stringify(refused.data));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}/`;
};

/** The configuration file for what only such a file can say. */
const configuration = async (t, { presence, maxMembers, call }) => {
  const lines = [];
  if (presence || maxMembers) {
    lines.push("[[rooms]]", `pattern = "*"`, `join = "grant"`, `publish = "grant"`, `members = "grant"`);
    if (presence) lines.push("presence = true");
    if (maxMembers) lines.push(`max_members = ${maxMembers}`);
  }
  if (call) lines.push("[backend]", `call_url = "${await startBackend(t, call)}"`);
  if (!lines.length) return [];
  const folder = mkdtempSync(join(tmpdir(), "wsgate-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "wsgate.toml"), lines.join("\n"));
  return ["--config", join(folder, "wsgate.toml")];
};

/** Starts a gateway, which ends with the test if not before. The options are those of `startFake`. */
export const startGateway = async (t, options = {}) => {
  const { expiryWarning = 60, returnSpread = 5_000, presenceDelay = 100 } = options;
  const args = await configuration(t, options);
  args.push("--expiry-warning", `${expiryWarning}s`, "--return-spread", `${returnSpread}ms`);
  args.push("--presence-delay", `${presenceDelay}ms`, "--workers", "1");
  let running;
  const listen = async (at = "127.0.0.1:0") => {
    running = await run(["--listen", at, "--backend-listen", "127.0.0.1:0", ...args]);
    gateway.url = `http://${running.at}/ws`;
  };

  const ask = async (path, body) => {
    const answer = await fetch(`http://${running.backend}${path}`, {
      method: body ? "POST" : "GET",
      headers: { authorization: `Bearer ${API_KEY}` },
      body: body && JSON.stringify(body),
    });
    assert.equal(answer.status, 200, `${path} was answered with ${answer.status}`);
    return answer.json();
  };
  const gateway = {
    kind: "gateway",
    tokenOf,
    publish: (body) => ask("/v1/publish", body),
    request: (body) => ask("/v1/request", body),
    join: (user, room) => ask(`/v1/users/${user}/join`, { room }),
    leave: (user, room) => ask(`/v1/users/${user}/leave`, { room }),
    disconnect: (user) => ask(`/v1/users/${user}/disconnect`, {}),
    roomsOf: async (user) => (await ask(`/v1/users/${user}`)).connections.map(({ rooms }) => rooms),
    kill: () => running.end("SIGKILL"),
    stop: () => running.end("SIGTERM"),
    restart: () => listen(running.at),
  };
  await listen();
  t.after(() => running.end("SIGKILL"));
  return gateway;
};
