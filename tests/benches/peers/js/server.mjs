// One Socket.IO node of the benchmark: `server.mjs PORT REDIS_PORT SECRET`. Clients come with a
// token (JWT, HS256), join one room, and publish to any; the Redis adapter carries what they publish
// to the other node.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redisPort, secret] = process.argv.slice(2);

const publishing = createClient({ url: `redis://127.0.0.1:${redisPort}` });
const subscribing = publishing.duplicate();
await Promise.all([publishing.connect(), subscribing.connect()]);

const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(publishing, subscribing),
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  // Longer than a run: the load generator answers no pings, of no system.
  pingInterval: 600_000,
});

io.use((socket, next) => {
  const user = userOf(socket.handshake.auth.token ?? "");
  if (user === undefined) return next(new Error("the token is not valid"));
  socket.data.user = user;
  next();
});

io.on("connection", (socket) => {
  socket.on("join", async (room, answer) => {
    await socket.join(room);
    answer();
  });
  socket.on("publish", (room, data) => io.to(room).emit("publication", data));
});

http.listen(Number(port), "127.0.0.1");

function userOf(token) {
  const [head, claims, signature] = token.split(".");
  if (signature === undefined) return undefined;
  const right = createHmac("sha256", secret).update(`${head}.${claims}`).digest();
  const given = Buffer.from(signature, "base64url");
  if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
  const { sub, exp } = JSON.parse(Buffer.from(claims, "base64url"));
  return exp * 1000 > Date.now() ? sub : undefined;
}
