// What the tests of the client share: a client whose states are kept, lists of what was heard, and
// suites that run against the fake gateway and the real one alike.

import assert from "node:assert/strict";
import { describe, test as testWith } from "node:test";

import { connect } from "../../wsgate.js";
import { startFake } from "./fake.js";
import { startGateway } from "./gateway.js";
import { until } from "./until.js";

export { startFake } from "./fake.js";
export { tokenOf } from "./tokens.js";
export { until } from "./until.js";

/** Waits that make a test quick. */
export const QUICK = { min: 50, max: 100 };
/** Waits that no test sees the end of. */
export const NEVER = { min: 1e9, max: 1e9 };

/** Nothing here takes a fifth of it; what hangs fails. */
export const test = (name, run) => testWith(name, { timeout: 10_000 }, run);

/** The same tests against the fake gateway and the real one. `run` gets what starts a gateway. */
export const againstBoth = (topic, run) => {
  for (const [name, start] of Object.entries({ fake: startFake, gateway: startGateway })) {
    describe(`${topic} (${name})`, () => run(start));
  }
};

/** Connects, keeps all changes of state, and closes with the test. */
export const start = (t, url, token, options) => {
  const socket = connect(url, { token, backoff: QUICK, ...options });
  t.after(() => socket.close());
  const states = [];
  socket.onState((status) => {
    assert.equal(socket.status, status);
    assert.equal(socket.state, status.state);
    states.push(status);
  });
  /** Waits until the changes so far hold one that is looked for, not counting the first `from`. */
  const reaches = (state, from = 0) =>
    until(() => states.slice(from).find((change) => change.state === state), `the state ${state}`);
  return { socket, states, reaches };
};

/** A list of what was heard, and a way to wait until there are so many. */
export const hearing = (source, event) => {
  const heard = [];
  source.on(event, (data, { room, from }) => heard.push({ data, room, from }));
  const upTo = async (count) => {
    await until(() => heard.length >= count, `${count} times ${event}`);
    return heard;
  };
  return { heard, upTo };
};

/** Checks an error against what it should have, for `assert.rejects`. */
export const refusal = (code, more) => (error) => {
  assert.ok(error instanceof Error, `${error} is no Error`);
  for (const [field, value] of Object.entries({ code, ...more })) assert.equal(error[field], value, field);
  return true;
};
