// A page on https, which may connect by wss:// only, to a gateway that has a certificate of its own.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate, createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { WSGATE, openPage, startBrowser, startProgram } from "./support.js";

const SECRET = "a secret of the tests, longer than 32 bytes";
const KEY = "an API key of the tests";

/** A certificate for this machine and its key, in files, and the hash of its public key. */
const makeCertificate = (t) => {
  const folder = mkdtempSync(join(tmpdir(), "wsgate-tls-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [certificate, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
  execFileSync("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
    ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
    ...["-keyout", key, "-out", certificate],
  ], { stdio: "ignore" });
  const spki = new X509Certificate(readFileSync(certificate)).publicKey.export({ type: "spki", format: "der" });
  return { certificate, key, hash: createHash("sha256").update(spki).digest("base64") };
};

const tokenOf = (sub) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub, exp: Math.floor(Date.now() / 1000) + 3600, grants: { "*": ["join", "publish"] } };
  const signed = `${encode({ alg: "HS256" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
};

/** Serves an empty page over https. */
const startSite = async (t, { certificate, key }) => {
  const pair = { cert: readFileSync(certificate), key: readFileSync(key) };
  const server = createServer(pair, (_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<title>Page</title><link rel=icon href=data:>");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  return `https://127.0.0.1:${server.address().port}`;
};

test("a page on https connects by wss, hears large and small, and learns why it ends", { timeout: 60_000 }, async (t) => {
  const made = makeCertificate(t);
  const site = await startSite(t, made);
  const gateway = await startProgram(
    t,
    WSGATE,
    [
      ...["serve", "--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0", "--allow-origin", site],
      ...["--tls-certificate", made.certificate, "--tls-key", made.key],
    ],
    { until: /listening public=(\S+) backend=(\S+)/, env: { WSGATE_JWT_SECRET: SECRET, WSGATE_API_KEY: KEY, WSGATE_LOG_FORMAT: "text" } },
  );
  const [, at, backend] = gateway.match;
  const page = await openPage(await startBrowser(t, { trusted: made.hash }), site);
  await page.addScriptTag({ url: `https://${at}/client.js` });
  await page.evaluate(`{
    window.states = [];
    window.heard = [];
    window.socket = wsgate.connect("wss://${at}/ws", { token: () => ${JSON.stringify(tokenOf("alice"))} });
    socket.onState((status) => states.push(status));
    window.room = socket.join("lobby");
    room.on("message", (data) => heard.push(data));
  }`);
  await page.waitForFunction("room.state === 'joined'");
  await page.evaluate("room.publish('message', 'x'.repeat(50_000))");
  await page.waitForFunction("heard.length === 1");
  assert.equal(await page.evaluate("heard[0].length"), 50_000);

  const publish = (data) =>
    fetch(`http://${backend}/v1/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ to: { room: "lobby" }, event: "message", data }),
    });
  for (let number = 0; number < 20; number++) assert.equal((await publish([number, "x".repeat(200_000)])).status, 200);
  await page.waitForFunction("heard.length === 21");
  assert.deepEqual(await page.evaluate("heard.slice(1).map(([number]) => number)"), [...Array(20).keys()]);

  // The browser's own word of it.
  await page.evaluate(`{
    const plain = new WebSocket("wss://${at}/ws?token=${tokenOf("bob")}");
    window.ended = new Promise((resolve) => plain.addEventListener("close", ({ code, wasClean }) => resolve([code, wasClean])));
    window.welcome = new Promise((resolve) => plain.addEventListener("message", resolve, { once: true })).then(() => true);
  }`);
  assert.equal(await page.evaluate("welcome"), true);
  await gateway.end("SIGTERM");
  assert.deepEqual(await page.evaluate("ended"), [4503, true]);
  await page.waitForFunction("socket.state === 'waiting'");
});
