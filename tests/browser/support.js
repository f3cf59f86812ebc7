// What the browser tests share: a Chromium, and processes that end with their test.

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Pictures of the pages, to look at: not part of the repository. */
const SCREENSHOTS = `${ROOT}target/screenshots`;

export const WSGATE = process.env.WSGATE_BIN ?? `${ROOT}target/debug/wsgate`;

// Whoever interrupts the tests ends what they have started: see "exit" below.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/**
 * A browser that ends with the test. With `backForwardCache` it keeps pages for the way back, as people's
 * do. It trusts a certificate of a test by the hash of its public key.
 */
export const startBrowser = async (t, { backForwardCache = false, trusted } = {}) => {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    ignoreDefaultArgs: backForwardCache ? ["--disable-back-forward-cache"] : [],
    args: [
      "--no-sandbox", // The tests may run as root, in a container.
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...(trusted ? [`--ignore-certificate-errors-spki-list=${trusted}`] : []),
    ],
  });
  t.after(() => browser.close());
  return browser;
};

/** A page in a session of its own, without the cookies of others; what goes wrong in it is in `errors`. */
export const openPage = async (browser, url, options) => {
  const page = await (await browser.newContext(options)).newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && page.errors.push(message.text()));
  await page.goto(url);
  return page;
};

/** Keeps a picture of the whole page. */
export const screenshot = (page, name) => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  return page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
};

/**
 * Starts a program, which ends with the test if not before, and waits for a line of its output that
 * matches: `match` is what was found. `end` kills it, as a crash would. With `group`, signals reach the
 * programs that it has started too, as those from a terminal do.
 */
export const startProgram = async (t, command, args, { until, env = {}, cwd = ROOT, group = false }) => {
  const stdio = ["ignore", "pipe", "pipe"];
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio, detached: group });
  const signal = (name) => {
    if (!group) return child.kill(name);
    try {
      process.kill(-child.pid, name);
    } catch {
      // All of the group have ended.
    }
  };
  const kill = () => signal("SIGKILL");
  process.once("exit", kill); // Should the tests fail so badly that nothing after them runs.
  const ended = new Promise((resolve) => child.once("close", resolve));
  ended.then(() => process.off("exit", kill));
  const end = async (name = "SIGKILL") => {
    signal(name);
    await ended;
  };
  t.after(() => end());
  const log = [];
  const match = await new Promise((resolve, reject) => {
    // They are read to their ends, so that the program never waits for somebody to read.
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        log.push(line);
        const found = line.match(until);
        if (found) resolve(found);
      });
    }
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`${command} ended:\n${log.join("\n")}`)));
  });
  return { match, log, end };
};
