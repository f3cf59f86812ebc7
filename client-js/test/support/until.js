// Waiting for conditions, and never for a time.

// These go on where a test has replaced the clock.
import { setTimeout } from "node:timers/promises";

const LOOKS = 4_000;

/** Waits until something is so, and gives it. */
export const until = async (look, what = look) => {
  for (let looks = 0; looks < LOOKS; looks++) {
    const found = await look();
    if (found) return found;
    await setTimeout(1);
  }
  throw new Error(`waited in vain for ${what}`);
};
