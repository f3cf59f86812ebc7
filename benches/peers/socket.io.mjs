// The server of many a tutorial: Socket.IO, a JWT verified as a client connects, rooms behind a check.
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const io = new Server({ transports: ["websocket"], perMessageDeflate: false });

const canAccessRoom = (user, room) => (user.grants[room] ?? user.grants["*"] ?? []).includes("join");

io.use((socket, next) => {
  try {
    socket.data.user = jwt.verify(socket.handshake.auth.token, process.env.JWT_SECRET, { algorithms: ["HS256"] });
    next();
  } catch {
    next(new Error("unauthorized"));
  }
});

io.on("connection", (socket) => {
  socket.on("joinRoom", async (room, reply) => {
    if (!canAccessRoom(socket.data.user, room)) return reply({ ok: false });
    await socket.join(room);
    reply({ ok: true });
  });
  socket.on("message", (room, data) => {
    if (canAccessRoom(socket.data.user, room)) io.to(room).emit("message", data);
  });
});

io.listen(process.env.PORT);
