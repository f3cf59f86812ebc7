// Time that passes when a test says so, for timers and for `Date` apart: a machine that sleeps stops
// its timers, and finds its clock ahead when it wakes.

import { clearInterval, setInterval } from "node:timers";
import { setImmediate } from "node:timers/promises";

/** What timers of browsers and of Node can hold; with more they fire at once. */
const LONGEST = 2 ** 31 - 1;

/** Lets everything happen that waits for promises alone. */
export const settle = () => setImmediate();

/** Timers by the time at which they are due: few times for many timers, so that 10,000 clients are quick. */
const createTimers = () => {
  const byTime = new Map();
  /** Sorted. */
  const times = [];
  const insert = (at) => {
    let [low, high] = [0, times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) low = middle + 1;
      else high = middle;
    }
    times.splice(low, 0, at);
  };
  return {
    add(timer) {
      if (!byTime.has(timer.at)) {
        byTime.set(timer.at, new Set());
        insert(timer.at);
      }
      byTime.get(timer.at).add(timer);
    },
    delete: (timer) => byTime.get(timer?.at)?.delete(timer),
    next: () => times[0],
    takeNext() {
      const at = times.shift();
      const timers = byTime.get(at);
      byTime.delete(at);
      return timers;
    },
    count: () => [...byTime.values()].reduce((sum, { size }) => sum + size, 0),
  };
};

const clocks = new WeakMap();

/** Takes the place of the timers and of `Date.now` for one test. */
export const virtualTime = (t) => {
  if (!clocks.has(t)) clocks.set(t, createClock(t));
  return clocks.get(t);
};

const createClock = (t) => {
  const timers = createTimers();
  const clock = {
    /** Since the test began, in milliseconds. */
    now: 0,
    /** What `Date.now()` says. Set it, and the clock is set. */
    date: 1_800_000_000_000,
    /** How many timers there are. */
    get timers() {
      return timers.count();
    },
  };

  const start = (repeat) => (act, delay = 0, ...args) => {
    const ms = delay > LONGEST ? 1 : Math.max(0, Math.trunc(delay) || 0);
    const timer = { act: () => act(...args), at: clock.now + ms, every: repeat && Math.max(1, ms) };
    timers.add(timer);
    return timer;
  };
  const stop = (timer) => {
    timers.delete(timer);
    if (timer) timer.act = undefined;
  };
  const fire = (timer) => {
    // One before it may have stopped it.
    timer.act?.();
    if (!timer.act || !timer.every) return;
    timer.at += timer.every;
    timers.add(timer);
  };
  const goTo = (at) => {
    clock.date += at - clock.now;
    clock.now = at;
  };

  /** Lets time pass, with all that happens meanwhile. */
  clock.pass = async (ms) => {
    const end = clock.now + ms;
    await settle();
    while (timers.next() <= end) {
      goTo(Math.max(timers.next(), clock.now));
      timers.takeNext().forEach(fire);
      await settle();
    }
    goTo(end);
  };
  /** Lets the machine sleep: its clock goes on, its timers do not. */
  clock.sleep = (ms) => {
    clock.date += ms;
  };

  replace(t, globalThis, {
    setTimeout: start(false),
    setInterval: start(true),
    clearTimeout: stop,
    clearInterval: stop,
  });
  replace(t, Date, { now: () => clock.date });
  replace(t, performance, { now: () => clock.now });
  // So that a test that waits in vain fails by its time limit, and does not end the process.
  const alive = setInterval(() => {}, 1_000);
  t.after(() => clearInterval(alive));
  return clock;
};

/** Replaces properties until the test ends. The mocks of node:test remember each call, which takes its time. */
const replace = (t, target, properties) => {
  for (const [name, value] of Object.entries(properties)) {
    const before = Object.getOwnPropertyDescriptor(target, name);
    Object.defineProperty(target, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(target, name, before) : delete target[name]));
  }
};
