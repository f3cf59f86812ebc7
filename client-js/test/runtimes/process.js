// Runs in Node, Deno and Bun. It does not end the process: that is for the client to allow.

import { connect } from "wsgate";
import { smoke } from "./smoke.js";

const { webSocketFrom, ...options } = JSON.parse(process.argv[2]);
const { WebSocket } = webSocketFrom ? await import(webSocketFrom) : {};
console.log(JSON.stringify(await smoke(connect, { ...options, WebSocket })));
