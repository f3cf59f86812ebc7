// How the client gets smaller, here and in the sizes that are told of it: always by the same options.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

const OPTIONS = {
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2020",
  external: ["react"],
  write: false,
  logLevel: "silent", // A failure is thrown, too.
};

/** Bundles a module, given as text that stands in a folder, and returns the text of the bundle. */
export const bundle = async (contents, { folder = ROOT, ...options } = {}) => {
  const { outputFiles } = await build({ ...OPTIONS, stdin: { contents, resolveDir: folder }, ...options });
  return outputFiles[0].text;
};

/** How many bytes are left by `gzip -9`. Node's own zlib gives others, which depend on the processor. */
export const gzipSize = (text) => execFileSync("gzip", ["-9"], { input: text }).length;
