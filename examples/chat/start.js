// Starts the gateway, the server and the page, with secrets made on the spot: `npm start`. Ctrl-C ends them all.
// With `preview` it is the built page that is served. Ports are set by PORT (the page), API_PORT, GATEWAY_PORT
// and GATEWAY_BACKEND_PORT; 0 is any that is free. TOKEN_LIFE is how many seconds a token is good.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

/** Another port than 0, which each can be told of before any is started, and after a restart has again. */
const port = (name, usual) => new Promise((resolve) => {
  const wanted = Number(process.env[name] ?? usual);
  if (wanted !== 0) return resolve(wanted);
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

/** The command that is the gateway, with its first arguments. */
const findGateway = () => {
  const works = (command) => spawnSync(command, ["--version"]).status === 0;
  const { WSGATE_BIN } = process.env;
  if (WSGATE_BIN) {
    if (works(WSGATE_BIN)) return [WSGATE_BIN];
    throw new Error(`WSGATE_BIN is no program that runs: ${WSGATE_BIN}`);
  }
  if (works("wsgate")) return ["wsgate"];
  if (works("cargo")) {
    console.log("The gateway is built by cargo now. The first time, this takes some minutes.");
    return ["cargo", "run", "--release", "--manifest-path", path("../../Cargo.toml"), "--"];
  }
  throw new Error("There is no gateway: install Rust (https://rustup.rs), put `wsgate` on the PATH, or name it in WSGATE_BIN");
};

const children = new Set();
let ending = false;

const end = (code) => {
  ending = true;
  process.exitCode = Math.max(process.exitCode ?? 0, code);
  for (const child of children) child.kill();
};

/**
 * Starts a program, and waits for a line of its output. Should it die later, it is started again; if it dies
 * before, all ends.
 */
const run = (name, [command, ...args], env, until) => new Promise((resolve) => {
  const print = (line) => console.log(`${`[${name}]`.padEnd(9)} ${line}`);
  const child = spawn(command, args, { cwd: path("."), env, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  print(`process ${child.pid}`);
  let ready = false;
  for (const input of [child.stdout, child.stderr]) {
    createInterface({ input }).on("line", (line) => {
      print(line);
      if (!line.includes(until)) return;
      ready = true;
      resolve();
    });
  }
  child.on("error", (error) => print(error.message));
  child.on("close", (code, signal) => {
    children.delete(child);
    if (ending) return;
    print(`has ended (${signal ?? code})`);
    if (ready) run(name, [command, ...args], env, until);
    else end(1);
  });
});

const main = async () => {
  const gateway = findGateway();
  const [PORT, API_PORT, GATEWAY_PORT, BACKEND_PORT] = await Promise.all([
    port("PORT", 5173), port("API_PORT", 3000), port("GATEWAY_PORT", 8080), port("GATEWAY_BACKEND_PORT", 8081),
  ]);
  const secret = () => randomBytes(48).toString("base64");
  const secrets = { WSGATE_JWT_SECRET: secret(), WSGATE_API_KEY: secret(), BACKEND_SECRET: secret() };
  const env = { WSGATE_LOG_FORMAT: "text", ...process.env, ...secrets, PORT, API_PORT, GATEWAY_PORT, WSGATE_URL: `http://127.0.0.1:${BACKEND_PORT}` };

  // The configuration with the server's port.
  const folder = mkdtempSync(join(tmpdir(), "wsgate-chat-"));
  process.on("exit", () => rmSync(folder, { recursive: true }));
  const config = join(folder, "wsgate.toml");
  writeFileSync(config, readFileSync(path("wsgate.toml"), "utf8").replaceAll("127.0.0.1:3000", `127.0.0.1:${API_PORT}`));

  const listen = ["--listen", `127.0.0.1:${GATEWAY_PORT}`, "--backend-listen", `127.0.0.1:${BACKEND_PORT}`];
  const vite = [process.execPath, path("node_modules/vite/bin/vite.js"), ...process.argv.slice(2)];
  await Promise.all([
    run("gateway", [...gateway, "serve", "--config", config, ...listen], env, "listening"),
    run("server", [process.execPath, path("server/server.js")], env, "listening"),
    run("vite", vite, env, "Local"), // And not `Local:`, which may be broken up by colours.
  ]);
  console.log(`\nThe chat is at http://127.0.0.1:${PORT}/\n`);
};

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(0));
main().catch((error) => {
  console.error(error.message);
  end(1);
});
