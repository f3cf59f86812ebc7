// The application's server: logins and tokens for the page, and answers to what the gateway asks.

import { randomUUID, timingSafeEqual } from "node:crypto";

import express from "express";
import jwt from "jsonwebtoken";

import { publish, revoke } from "./gateway.js";
import { canAccessRoom, history, keep, mentioned, rooms, users } from "./rooms.js";

const { WSGATE_JWT_SECRET, WSGATE_API_KEY, BACKEND_SECRET, API_PORT = "3000", TOKEN_LIFE = "300" } = process.env;
if (!WSGATE_JWT_SECRET || !WSGATE_API_KEY || !BACKEND_SECRET) {
  console.error("WSGATE_JWT_SECRET, WSGATE_API_KEY and BACKEND_SECRET must be set; `npm start` does");
  process.exit(1);
}

const app = express();
app.use(express.json());

// For the page: who is logged in. The cookie is out of a script's reach; what scripts get are tokens with a
// short life.

const sessions = new Map();
const cookie = (request) => /(?:^|; )session=([^;]*)/.exec(request.headers.cookie)?.[1];
const publicly = (user) => ({
  user,
  rooms: Object.entries(rooms).map(([room, { title }]) => ({ room, title })),
});

app.get("/api/session", (request, response) => {
  const session = sessions.get(cookie(request));
  response.json(session ? publicly(session.user) : null);
});

/** Closes all pages of the login, if there is one, and lets nobody in with its tokens. */
const logOut = async (request) => {
  const session = sessions.get(cookie(request));
  sessions.delete(cookie(request));
  if (session) await revoke(session.sid, Math.ceil(Date.now() / 1000) + Number(TOKEN_LIFE));
};

app.post("/api/login", async (request, response) => {
  const { user, password } = request.body ?? {};
  if (!Object.hasOwn(users, user) || users[user] !== password) {
    return response.status(401).json({ error: "This is not the password." });
  }
  await logOut(request);
  const id = randomUUID();
  sessions.set(id, { user, sid: randomUUID() });
  response.cookie("session", id, { httpOnly: true, sameSite: "strict" }).json(publicly(user));
});

app.post("/api/token", (request, response) => {
  const session = sessions.get(cookie(request));
  if (!session) return response.status(401).json({ error: "You are logged out." });
  const options = { subject: session.user, expiresIn: Number(TOKEN_LIFE) };
  response.json({ token: jwt.sign({ sid: session.sid }, WSGATE_JWT_SECRET, options) });
});

app.post("/api/logout", async (request, response) => {
  response.clearCookie("session");
  await logOut(request);
  response.json({});
});

// For the gateway, which shows a secret.

const expected = Buffer.from(`Bearer ${BACKEND_SECRET}`);
app.use("/wsgate", (request, response, next) => {
  const shown = Buffer.from(request.headers.authorization ?? "");
  if (shown.length === expected.length && timingSafeEqual(shown, expected)) return next();
  response.status(401).json({ error: "This is for the gateway." });
});

/** A call that is not done; the page is told why. */
class Refused extends Error {}

app.post("/wsgate/access", (request, response) => {
  const { user, room } = request.body;
  // `chat:general` and `typing:general` are for the same people.
  response.json(canAccessRoom(user, room.replace(/^(chat|typing):/, "")));
});

const calls = {
  history: ({ room }) => history(room),

  message: async ({ room, text, id }, user) => {
    if (typeof text !== "string" || !text.trim()) throw new Refused("A message has a text.");
    if (text.length > 2000) throw new Refused("A message has at most 2,000 characters.");
    // The page makes the id: if it does not know whether a message has arrived, it sends it again.
    if (typeof id !== "string" || id.length > 36) throw new Refused("A message has an id.");
    const message = keep(room, { id: `${room} ${user} ${id}`, from: user, text: text.trim(), at: Date.now() });
    await publish({ room: `chat:${room}` }, "message", message, message.id);
    for (const other of mentioned(text)) {
      if (other === user || !canAccessRoom(other, room).allow) continue;
      await publish({ user: other }, "mention", { ...message, room }, `${message.id} ${other}`);
    }
    return message;
  },
};

app.post("/wsgate/call", async (request, response) => {
  const { event, user, data } = request.body;
  try {
    if (!Object.hasOwn(calls, event)) throw new Refused(`There is no call ${event}.`);
    const { allow, reason } = canAccessRoom(user, data?.room);
    if (!allow) throw new Refused(reason);
    response.json(await calls[event](data, user));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    response.status(422).json({ error: error.message });
  }
});

app.use((error, request, response, next) => {
  console.error(error);
  response.status(500).json({ error: "Something went wrong in the server." });
});

const server = app.listen(Number(API_PORT), "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
