// Tokens as the login of an application signs them, and what the fake gateway makes of them.

import { createHmac } from "node:crypto";

export const JWT_SECRET = "a secret of the tests, longer than 32 bytes";

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const decode = (text) => JSON.parse(Buffer.from(text, "base64url").toString());
const sign = (text) => createHmac("sha256", JWT_SECRET).update(text).digest("base64url");

/** A token of a user, which may join and publish everywhere if nothing else is said. */
export const tokenOf = (sub, { seconds = 60, grants = { "*": ["join", "publish", "members"] } } = {}) => {
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub, exp: Date.now() / 1000 + seconds, grants })}`;
  return `${signed}.${sign(signed)}`;
};

/** The claims of a token. @throws Error with the gateway's words if it does not count. */
export const verify = (token) => {
  const [header, claims, signature, ...more] = String(token).split(".");
  if (!signature || more.length) throw new Error("this is not a JWT");
  if (decode(header).alg !== "HS256") throw new Error("the algorithm is not allowed");
  if (sign(`${header}.${claims}`) !== signature) throw new Error("the signature is wrong");
  const { sub, exp, grants = {} } = decode(claims);
  if (!sub || !exp) throw new Error("`sub` or `exp` is missing");
  if (exp * 1000 <= Date.now()) throw new Error("the token has expired");
  return { sub, exp, grants };
};

/** Whether grants allow something in a room. `*` in a pattern stands for any characters. */
export const allows = (grants, room, permission) =>
  Object.entries(grants).some(([pattern, permissions]) => {
    const parts = pattern.split("*").map((part) => part.replace(/[^\w]/g, "\\$&"));
    return permissions.includes(permission) && new RegExp(`^${parts.join(".*")}$`, "s").test(room);
  });
