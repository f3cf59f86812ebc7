// The server of the tutorial "Socket.IO with JSON Web Tokens", as a backend behind the gateway.

import { startGateway } from "./gateway.js";

/** What the tutorial's server does with a message, and a few calls more. */
export const startServer = async (t, options) => {
  const call = async ({ event, data, user }) => {
    if (event === "message") {
      await gateway.publish({ to: { room: data.room }, event: "message", data: { from: user, text: data.text } });
      return { status: "sent" };
    }
    if (event === "sum") return data.reduce((sum, number) => sum + number, 0);
    if (event === "slow") return new Promise(() => {});
    throw Object.assign(new Error("refused"), { data: { status: "error", error: `there is no ${event}` } });
  };
  const gateway = await startGateway(t, { call, ...options });
  return { ...gateway, url: gateway.url.replace("/ws", "") };
};

