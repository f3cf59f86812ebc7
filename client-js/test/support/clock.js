// Time that passes when a test says so, for timers and for `Date` apart: a machine that sleeps stops
// its timers, and finds its clock ahead when it wakes.

import { clearInterval, setInterval } from "node:timers";
import { setImmediate } from "node:timers/promises";

/** What timers of browsers and of Node can hold; with more they fire at once. */
const LONGEST = 2 ** 31 - 1;

/** Lets everything happen that waits for promises alone. */
export const settle = () => setImmediate();

/** Takes the place of the timers and of `Date.now` for one test. */
export const virtualTime = (t) => {
  /** Sorted by `at`. */
  const timers = [];
  const clock = {
    /** Since the test began, in milliseconds. */
    now: 0,
    /** What `Date.now()` says. Set it, and the clock is set. */
    date: 1_800_000_000_000,
    /** How many timers there are. */
    get timers() {
      return timers.length;
    },
  };

  // So that a test that waits in vain fails by its time limit, and does not end the process.
  const alive = setInterval(() => {}, 1_000);
  t.after(() => clearInterval(alive));

  const insert = (timer) => {
    let [low, high] = [0, timers.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (timers[middle].at <= timer.at) low = middle + 1;
      else high = middle;
    }
    timers.splice(low, 0, timer);
  };
  const add = (repeat) => (act, delay = 0, ...args) => {
    const ms = delay > LONGEST ? 1 : Math.max(0, Math.trunc(delay) || 0);
    const timer = { act: () => act(...args), at: clock.now + ms, every: repeat && Math.max(1, ms), unref() {}, ref() {} };
    insert(timer);
    return timer;
  };
  const remove = (timer) => {
    const index = timers.indexOf(timer);
    if (index >= 0) timers.splice(index, 1);
    if (timer) timer.every = undefined;
  };
  t.mock.method(globalThis, "setTimeout", add(false));
  t.mock.method(globalThis, "setInterval", add(true));
  t.mock.method(globalThis, "clearTimeout", remove);
  t.mock.method(globalThis, "clearInterval", remove);
  t.mock.method(Date, "now", () => clock.date);
  t.mock.method(performance, "now", () => clock.now);

  const goTo = (at) => {
    clock.date += at - clock.now;
    clock.now = at;
  };
  const fire = (timer) => {
    timer.act();
    if (!timer.every) return;
    timer.at += timer.every;
    insert(timer);
  };

  /** Lets time pass, with all that happens meanwhile. */
  clock.pass = async (ms) => {
    const end = clock.now + ms;
    await settle();
    while (timers.length && timers[0].at <= end) {
      goTo(timers[0].at);
      while (timers.length && timers[0].at <= clock.now) fire(timers.shift());
      await settle();
    }
    goTo(end);
  };
  /** Lets the machine sleep: its clock goes on, its timers do not. */
  clock.sleep = (ms) => {
    clock.date += ms;
  };
  return clock;
};
