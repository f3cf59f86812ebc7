// The server of the tutorial "Socket.IO with JSON Web Tokens", as a backend behind wsgate. No packages:
//
//     node examples/tutorial/backend.mjs

import { createHmac } from "node:crypto";
import { createServer } from "node:http";

const { WSGATE_JWT_SECRET, WSGATE_API_KEY, BACKEND_SECRET } = process.env;
const { WSGATE_URL = "http://127.0.0.1:8081", PORT = "3000" } = process.env;
if (!WSGATE_JWT_SECRET || !WSGATE_API_KEY || !BACKEND_SECRET) {
  console.error("WSGATE_JWT_SECRET, WSGATE_API_KEY and BACKEND_SECRET must be set: see examples/tutorial/README.md");
  process.exit(1);
}

// What the application knows.
const members = { general: ["alice", "bob"], board: ["alice"] };
const canAccessRoom = (user, room) => members[room.replace(/^chat:/, "")]?.includes(user) ?? false;

// app.post("/login"): a token that the gateway believes. A real one asks for a password.
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
function login({ user }) {
  const now = Math.floor(Date.now() / 1000);
  const message = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + 3600 })}`;
  const signature = createHmac("sha256", WSGATE_JWT_SECRET).update(message).digest("base64url");
  return { token: `${message}.${signature}` };
}

// socket.on("joinRoom", (room) => canAccessRoom(socket.user, room) && socket.join(room))
function access({ user, room, action }) {
  const allow = canAccessRoom(user, room);
  console.log(`${action} ${room}: ${allow ? "yes" : "no"} for ${user}`);
  return { allow, reason: allow ? undefined : `${room} is not for ${user}` };
}

// socket.on("message", ({ room, text }, reply) => { socket.to(room).emit("message", …); reply(…) })
let messages = 0;
async function message({ user, connection, data }) {
  const { room, text } = data ?? {};
  if (typeof room !== "string" || typeof text !== "string") throw new Refused("a message has a room and a text");
  if (!canAccessRoom(user, room)) throw new Refused(`${room} is not for ${user}`);
  const id = ++messages;
  await emit({ to: { room }, except: { connection }, event: "message", data: { id, from: user, text } });
  return { status: "sent", id };
}

// io.to(…).emit(…)
async function emit(publish) {
  const headers = { authorization: `Bearer ${WSGATE_API_KEY}` };
  const answer = await fetch(`${WSGATE_URL}/v1/publish`, { method: "POST", headers, body: JSON.stringify(publish) });
  if (!answer.ok) throw new Error(`wsgate answers ${answer.status}: ${await answer.text()}`);
}

// socket.on("disconnect", (reason) => console.log(…))
function events({ events }) {
  for (const { type, user, code, connections } of events) {
    console.log(type === "connected" ? `${user} connected` : `${user} disconnected (${code ?? "by the client"}), ${connections} left`);
  }
  return {};
}

class Refused extends Error {}

const calls = { message };
const routes = {
  "/login": login,
  "/wsgate/access": access,
  "/wsgate/call": (asked) => {
    if (!Object.hasOwn(calls, asked.event)) throw new Refused(`there is no event ${asked.event}`);
    return calls[asked.event](asked);
  },
  "/wsgate/events": events,
};

async function answer(request) {
  if (request.url.startsWith("/wsgate/") && request.headers.authorization !== `Bearer ${BACKEND_SECRET}`) {
    return [401, { error: "this is for the gateway" }];
  }
  if (request.method !== "POST" || !Object.hasOwn(routes, request.url)) return [404, { error: "there is nothing here" }];
  let body = "";
  for await (const chunk of request) body += chunk;
  try {
    return [200, await routes[request.url](JSON.parse(body))];
  } catch (error) {
    if (error instanceof Refused) return [422, { error: error.message }];
    console.error(error);
    return [500, { error: "something went wrong here" }];
  }
}

const server = createServer(async (request, response) => {
  const [status, body] = await answer(request);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
