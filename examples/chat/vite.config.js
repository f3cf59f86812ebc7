import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const { PORT = "5173", API_PORT = "3000", GATEWAY_PORT = "8080" } = process.env;

// The page, the server and the gateway are one origin to the browser, as behind nginx. So no CORS and no
// `--allow-origin` is needed: the Host header that the gateway compares with the page's origin is passed on.
const proxy = {
  "/api": `http://127.0.0.1:${API_PORT}`,
  "/ws": { target: `ws://127.0.0.1:${GATEWAY_PORT}`, ws: true },
};

export default defineConfig({
  plugins: [react()],
  server: { host: "127.0.0.1", port: Number(PORT), strictPort: true, proxy },
  preview: { host: "127.0.0.1", port: Number(PORT), strictPort: true, proxy },
  // `wsgate` is a link to a folder outside, where there may be another React, or none.
  resolve: { dedupe: ["react"] },
});
