// Rooms on plain `ws`: no authentication, no limits.
import { WebSocket, WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: process.env.PORT, perMessageDeflate: false });

server.on("connection", (socket) => {
  const joined = new Set();

  const requests = {
    join({ room }) {
      if (!rooms.has(room)) rooms.set(room, new Set());
      rooms.get(room).add(socket);
      joined.add(room);
      socket.send(JSON.stringify({ type: "joined", room }));
    },
    publish({ room, data }) {
      const text = JSON.stringify({ type: "message", room, data });
      for (const member of rooms.get(room) ?? []) {
        if (member.readyState === WebSocket.OPEN) member.send(text);
      }
    },
  };

  socket.on("message", (text) => {
    const request = JSON.parse(text);
    requests[request.type]?.(request);
  });
  socket.on("error", console.error);
  socket.on("close", () => {
    for (const room of joined) {
      rooms.get(room).delete(socket);
      if (rooms.get(room).size === 0) rooms.delete(room);
    }
  });
});
