// What the types say of the client: this compiles, and each line under `@ts-expect-error` does not.

import { connect, Unauthorized } from "wsgate";
import type { EventInfo, Member, Members, Reply, Room, Socket, State, Status, WsgateError } from "wsgate";

/** Compiles only if both types are the same. */
const same = <A, B>(_: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false) => {};

declare const fetchToken: (fresh?: boolean) => Promise<string>;
/** A class as of the package `ws`, which takes more than is needed. */
declare class OtherWebSocket {
  constructor(url: string | URL, options?: { headers: object });
  onopen: ((event: { type: string }) => void) | null;
  onmessage: ((event: { data: string | ArrayBuffer }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: { message: string }) => void) | null;
  send(data: string | ArrayBuffer, sent?: (error?: Error) => void): void;
  close(code?: number, reason?: string): void;
}

// --- Connecting ---

const socket = connect("/ws", { token: "eyJ" });
connect(new URL("wss://gateway/ws"), { token: () => fetchToken() });
connect("/ws", { token: ({ fresh }) => fetchToken(fresh) });
connect("/ws", { token: () => ({ ticket: "t" }) });
connect("/ws", { token: { anonymous: true } });
connect("/ws", { token: null, WebSocket, backoff: { min: 1 }, timeout: 0, queue: 0, open: false });
connect("/ws", { token: null, WebSocket: OtherWebSocket });
connect("/ws", {
  token: async () => {
    throw new Unauthorized("please log in");
  },
});

// @ts-expect-error there is no token
connect("/ws");
// @ts-expect-error there is no token
connect("/ws", {});
// @ts-expect-error one that is missing is said by null
connect("/ws", { token: undefined });
// @ts-expect-error a token is a text
connect("/ws", { token: 42 });
// @ts-expect-error a function gives one
connect("/ws", { token: () => {} });
// @ts-expect-error nobody is anonymous by halves
connect("/ws", { token: { anonymous: false } });
// @ts-expect-error misspelt
connect("/ws", { token: "eyJ", timeOut: 1 });
// @ts-expect-error misspelt
connect("/ws", { token: "eyJ", backoff: { minimum: 1 } });
// @ts-expect-error this is an object of a WebSocket, not the class
connect("/ws", { token: "eyJ", WebSocket: new WebSocket("/ws") });
// @ts-expect-error there is no address
connect({ token: "eyJ" });

// --- The socket ---

same<typeof socket.state, State>(true);
same<typeof socket.status, Status>(true);
same<typeof socket.user, string | undefined>(true);
socket.onState(({ state, code, reason, retryAt, lost }) => [state === "waiting", code, reason, retryAt, lost]);
const undo: () => void = socket.on("anything", (data, info) => [data.whatever, info.from, info.room]);
undo();
socket.once("anything", () => {});
socket.open();
socket.close();

// @ts-expect-error it is no method
socket.status();
// @ts-expect-error it is not for us to say
socket.state = "open";
// @ts-expect-error there is no such state
socket.state === "connected";
// @ts-expect-error its fields stay as they are
socket.status.code = 1000;
// @ts-expect-error who hears is missing
socket.on("anything");
// @ts-expect-error this was never a function
socket.onLost(() => {});
// @ts-expect-error there may be no user yet
socket.user.length;

// --- Requests ---

const reply: Promise<Reply> = socket.publish({ room: "chat", users: ["bob"], self: true }, "nudge");
socket.publish({ all: true }, "nudge", { any: "data" }, { echo: false, echo_scope: "user", timeout: 1_000 });
socket.publish({ user: "bob" }, "nudge", null, { signal: AbortSignal.timeout(1_000), queue: false });
const anything = socket.call("now");
same<typeof anything, Promise<any>>(true);
const sum = socket.call<number>("add", [1, 2], { timeout: 1_000 });
same<typeof sum, Promise<number>>(true);
reply.catch(({ code, field, temporary, data, message }: WsgateError) => [code, field, temporary, data, message]);

// @ts-expect-error for whom?
socket.publish("nudge");
// @ts-expect-error a room alone is no target
socket.publish("chat", "nudge");
// @ts-expect-error misspelt
socket.publish({ roms: ["chat"] }, "nudge");
// @ts-expect-error users are a list
socket.publish({ users: "bob" }, "nudge");
// @ts-expect-error whom it leaves out is said by echo_scope
socket.publish({ room: "chat" }, "nudge", null, { echo: "user" });
// @ts-expect-error there is no such scope
socket.publish({ room: "chat" }, "nudge", null, { echo: false, echo_scope: "room" });
// @ts-expect-error that is for publishing
socket.call("add", [1, 2], { echo: false });
// @ts-expect-error what is asked is missing
socket.call();
// @ts-expect-error the answer is a number, not a text
sum.then((answer: string) => answer);

// --- Events with types ---

interface ChatEvents {
  message: { text: string };
  typing: boolean;
  bye: undefined;
  status: string | undefined;
}

const typed = connect<ChatEvents>("/ws", { token: "eyJ" });
typed.on("message", (data, info) => {
  same<typeof data, { text: string }>(true);
  same<typeof info, EventInfo>(true);
});
typed.once("typing", (typing) => same<typeof typing, boolean>(true));
typed.publish({ user: "bob" }, "message", { text: "hi" });
typed.publish({ user: "bob" }, "bye");
typed.publish({ user: "bob" }, "status", undefined, { echo: false });

const room = typed.join("chat");
same<typeof room, Room<ChatEvents>>(true);
room.on("message", ({ text }, { answer }) => answer?.({ seen: text }));
room.publish("message", { text: "hi" }, { echo: false });
room.publish("bye");
const other = typed.join<{ tick: number }>("clock");
other.on("tick", (tick) => same<typeof tick, number>(true));

// @ts-expect-error there is no such event
typed.on("mesage", () => {});
// @ts-expect-error there is no such event
typed.publish({ user: "bob" }, "mesage", { text: "hi" });
// @ts-expect-error there is no such event
room.publish("mesage", { text: "hi" });
// @ts-expect-error the data is missing
room.publish("message");
// @ts-expect-error the data is missing
typed.publish({ user: "bob" }, "message");
// @ts-expect-error the data is wrong
room.publish("message", "hi");
// @ts-expect-error the data is wrong
room.publish("message", { txt: "hi" });
// @ts-expect-error it has no data
room.publish("bye", 1);
// @ts-expect-error the data has no such field
room.on("message", (data) => data.txt);
// @ts-expect-error the room has other events
other.publish("message", { text: "hi" });
// @ts-expect-error a map of events is an object
connect<string>("/ws", { token: "eyJ" });
// @ts-expect-error not every event waits for an answer
room.on("message", (_, { answer }) => answer());

// --- Rooms ---

room.onState(({ state, code, reason, temporary, retryAt }) => [state === "refused", code, reason, temporary, retryAt]);
room.onMembers(({ members, users, error }) => [members?.map((member: Member) => member.user), users, error?.code]);
room.members({ timeout: 1_000 }).then((members) => same<typeof members, Members>(true));
room.ready.catch(() => {});
room.leave();

// @ts-expect-error a room has a name
typed.join();
// @ts-expect-error it is a promise
room.ready();
// @ts-expect-error it is not for us to say
room.name = "other";
// @ts-expect-error there is no such state
room.state === "open";
// @ts-expect-error nobody knows whether there is a list
room.onMembers(({ members }) => members.length);

// --- Loops ---

const loops = async () => {
  for await (const event of room.events("message")) {
    same<typeof event.event, "message">(true);
    same<typeof event.data, { text: string }>(true);
  }
  for await (const { event, data, room, from } of socket.events()) [event.length, data.whatever, room, from];
  for await (const { event, data } of room.events()) {
    if (event === "message") same<typeof data, { text: string }>(true);
    // @ts-expect-error there is no such event
    if (event === "mesage") return;
  }
  // @ts-expect-error there is no such event
  for await (const _ of room.events("mesage"));
  // @ts-expect-error it is for `for await`
  for (const _ of room.events());
};
loops();

// What knows its events goes where anything is allowed.
const use = (any: Socket) => any.close();
use(typed);
