// A gateway in JavaScript, which speaks protocol.md and can be told to misbehave: what a real one
// does in a year, or a network in a tunnel, it does when a test says so.

import { once } from "node:events";
import { createServer } from "node:http";

import { WebSocketServer } from "ws";

import { createRooms, personal, refusal } from "./fake-rooms.js";
import { tokenOf, verify } from "./tokens.js";
import { until } from "./until.js";

const RETRY = { 4401: "fresh_token", 1011: "yes", 4503: "yes", 4504: "yes", 4505: "yes", 4508: "yes" };
let lastConnection = 0;

/** One client's connection, as the gateway sees it. */
class Connection {
  /** What the client has sent, parsed, in order. */
  frames = [];
  rooms = new Set();
  claims;
  id = `c${++lastConnection}`;
  #ws;
  #tcp;
  #timers = [];
  #gateway;

  constructor(gateway, ws, tcp) {
    this.#gateway = gateway;
    this.#ws = ws;
    this.#tcp = tcp;
    ws.on("message", (text) => this.#hear(String(text)));
    ws.on("ping", (data) => ws.pong(data));
    ws.on("error", () => {});
    ws.on("close", () => this.#gone());
  }

  /** Whether the connection has ended. */
  ended = false;

  #gone() {
    this.ended = true;
    this.#timers.forEach(clearTimeout);
    this.#gateway.gone(this);
  }

  async #hear(text) {
    const frame = JSON.parse(text);
    this.frames.push(frame);
    const act = () => this.#act(frame);
    if (this.#gateway.onFrame) await this.#gateway.onFrame(this, frame, act);
    else await act();
  }

  async #act({ id, ...request }) {
    try {
      const doing = request.type === "auth" ? this.#authenticate(request) : this.#gateway.handle(this, request);
      // At once if it can be: what comes in one order is answered in that order.
      this.say({ type: "reply", id, ok: true, ...(doing?.then ? await doing : doing) });
    } catch (error) {
      if (!error.code) throw error;
      const { code, field, message, temporary, data } = error;
      this.say({ type: "error", id, code, field, message, temporary, data });
    }
  }

  #authenticate({ token }) {
    const first = !this.claims;
    let claims;
    try {
      if (this.#gateway.tokensRefused > 0) {
        this.#gateway.tokensRefused--;
        throw new Error("this token is refused");
      }
      claims = verify(token);
    } catch ({ message }) {
      if (!first) throw refusal("token_refused", message, { field: "token" });
      return this.end(4401, message);
    }
    if (!first && claims.sub !== this.claims.sub) {
      throw refusal("wrong_user", `this token is not of ${this.claims.sub}`, { field: "token" });
    }
    this.claims = claims;
    const end = this.#live();
    if (first && !this.#gateway.mute) this.#welcome(end);
    return end;
  }

  #welcome(end) {
    const { sub: user } = this.claims;
    this.rooms.add(personal(user));
    this.#gateway.entered(this);
    this.say({ type: "welcome", connection: this.id, user, ...end, rooms: [...this.rooms], max_message_bytes: 65536 });
  }

  /** Announces the token's end, and ends with it. */
  #live() {
    const { exp } = this.claims;
    const left = exp * 1000 - Date.now();
    const warning = Math.max(left / 2, left - this.#gateway.expiryWarning * 1000);
    const warn = () => this.say({ type: "expiring", in: (left - warning) / 1000 });
    this.#timers.forEach(clearTimeout);
    this.#timers = [setTimeout(warn, warning), setTimeout(() => this.expire(), left)];
    // They may outlive the test, whose connections end as TCP does.
    for (const timer of this.#timers) timer.unref?.();
    return { expires_at: Math.floor(exp), expires_in: Math.floor(left / 1000) };
  }

  /** Says a message, or any text. */
  say(message) {
    if (this.#ws.readyState !== 1) return;
    this.#ws.send(typeof message === "string" || Buffer.isBuffer(message) ? message : JSON.stringify(message));
  }

  /** Closes as the gateway does, with a `closing` message if it is not told otherwise. */
  end(code, reason = "", { announced = true, retry = RETRY[code] ?? "no", ...more } = {}) {
    if (announced) this.say({ type: "closing", code, reason, retry, ...more });
    this.#gateway.gone(this);
    this.#ws.close(code, reason);
  }

  /** Ends TCP without a word. */
  drop() {
    this.#tcp.destroy();
  }

  /** Takes everything, and neither answers nor ends: what is left of a connection that broke far away. */
  silence() {
    for (const event of ["data", "end"]) this.#tcp.removeAllListeners(event);
    this.#tcp.on("end", () => this.#gone()).resume();
    this.say = () => {};
  }

  /** The token ends now. */
  expire() {
    this.end(4401, "the token has expired");
  }

  /** Waits for a frame of the client, from the first on. */
  frame(matches) {
    const found = typeof matches === "string" ? ({ type }) => type === matches : matches;
    return until(() => this.frames.find(found), `a frame of the client: ${matches}`);
  }
}

/**
 * Starts a fake gateway, which ends with the test if not before.
 *
 * Options: `presence`, `presenceDelay` (ms), `maxMembers` of each room, `call` (what the backend answers
 * to calls), `expiryWarning` (s), `returnSpread` (ms).
 */
export const startFake = async (t, options = {}) => {
  const { expiryWarning = 60, returnSpread = 5_000 } = options;
  const { handle, backend, forget, enterFirst } = createRooms(options);
  /** All connections that have come so far, the latest last. */
  const connections = [];
  const sockets = new Set();
  const fake = {
    kind: "fake",
    connections,
    /** How many upgrades were asked for. */
    attempts: 0,
    /** What to answer upgrades with, in place of taking them: 401, 503, or "nothing" at all. */
    upgrades: undefined,
    /** Takes connections and tokens, and never says welcome. */
    mute: false,
    /** So many of the next tokens are refused, however good. */
    tokensRefused: 0,
    /** Decides when and whether a frame is acted on: `(connection, frame, act) => …`. */
    onFrame: undefined,
    tokenOf,
    ...backend,
    /** The latest connection. */
    get connection() {
      return connections.at(-1);
    },
    /** Waits for the connection with this number, from 1 on. */
    connected: (number = 1) => until(() => connections[number - 1], `connection ${number}`),
  };
  const gateway = { handle, gone: forget, entered: enterFirst, expiryWarning };
  for (const name of ["mute", "onFrame"]) Object.defineProperty(gateway, name, { get: () => fake[name] });
  Object.defineProperty(gateway, "tokensRefused", {
    get: () => fake.tokensRefused,
    set: (count) => {
      fake.tokensRefused = count;
    },
  });

  const wss = new WebSocketServer({ noServer: true, autoPong: false });
  const upgrade = (request, tcp, head) => {
    fake.attempts++;
    if (fake.upgrades === "nothing") return tcp.on("end", () => tcp.destroy()).resume();
    if (fake.upgrades) return tcp.end(`HTTP/1.1 ${fake.upgrades} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    wss.handleUpgrade(request, tcp, head, (ws) => connections.push(new Connection(gateway, ws, tcp)));
  };

  let server;
  const listen = async (port) => {
    server = createServer((request, response) => response.writeHead(426).end());
    server.on("upgrade", upgrade);
    server.on("connection", (tcp) => {
      sockets.add(tcp.on("error", () => {}).on("close", () => sockets.delete(tcp)));
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    fake.url = `http://127.0.0.1:${server.address().port}/ws`;
  };
  /** How many TCP connections there are. */
  fake.open = () => sockets.size;
  /** As `kill -9` ends it. */
  fake.kill = async () => {
    if (!server.listening) return;
    const closed = once(server, "close");
    server.close();
    for (const tcp of sockets) tcp.destroy();
    await closed;
  };
  /** As SIGTERM ends it: everybody is told when to come back. */
  fake.stop = async () => {
    for (const it of connections) {
      const retry_after_ms = Math.floor(Math.random() * returnSpread);
      if (!it.ended) it.end(4503, "the gateway is restarting", { retry_after_ms });
    }
    await until(() => connections.every((it) => it.ended), "all clients to go");
    await fake.kill();
  };
  /** Starts again after `kill` or `stop`, on the same port. */
  fake.restart = () => listen(new URL(fake.url).port);

  await listen(0);
  t.after(() => fake.kill());
  return fake;
};
