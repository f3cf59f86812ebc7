// What the types say of the words of Socket.IO: this compiles, and each line under `@ts-expect-error` does not.

import type { Socket as Client } from "wsgate";
import { connect, io } from "wsgate/socketio";
import type { DisconnectReason, Socket } from "wsgate/socketio";

/** Compiles only if both types are the same. */
const same = <A, B>(_: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false) => {};

const socket = io("https://gateway", { auth: { token: "eyJ" }, path: "/ws", autoConnect: false });
same<typeof socket, Socket>(true);
io();
connect({ auth: (give) => give({ token: "eyJ" }), reconnection: false, rooms: { join: ["enter"] } });
io("https://gateway", { query: { token: "eyJ" }, backoff: { min: 1 }, timeout: 1_000, queue: 0, WebSocket });

socket.on("connect", () => socket.emit("joinRoom", "chat")).on("message", (from, text) => [from, text]);
socket.on("disconnect", (reason) => same<typeof reason, DisconnectReason>(true));
socket.once("connect_error", ({ message, data }) => [message, data.code]);
socket.timeout(1_000).emit("add", 1, 2, (error: Error | null, sum: number) => [error, sum]);
socket.volatile.emit("typing");
socket.emitWithAck("add", 1, 2).then((sum) => sum);
socket.off("message").connect().disconnect();
same<typeof socket.client, Client>(true);
same<typeof socket.id, string | undefined>(true);

// @ts-expect-error a token is a text
io({ auth: { token: 42 } });
// @ts-expect-error misspelt
io({ autoconnect: false });
// @ts-expect-error there is but one transport
io({ transports: ["websocket"] });
// @ts-expect-error what is emitted has a name
socket.emit();
// @ts-expect-error it is not for us to say
socket.connected = true;
// @ts-expect-error rooms are joined by an event
socket.join("chat");
// @ts-expect-error who hears is missing
socket.on("message");
