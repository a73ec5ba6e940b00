// What a test sets up, and deadlines for what it waits for. Everything is taken down in the reverse
// order of its setting up, so that a service is stopped before the servers on which it depends.

import { setTimeout as pause } from 'node:timers/promises';

/** The end of every wait that has no tighter one of its own. */
export const DEADLINE_MS = 15_000;

/** Collects what must be undone after the test `t`. */
export class Stage {
  #undo = [];

  constructor(t) {
    t.after(async () => {
      const failures = [];
      while (this.#undo.length > 0) {
        await Promise.resolve(this.#undo.pop()()).catch((failure) => failures.push(failure));
      }
      if (failures.length > 0) {
        throw new AggregateError(failures, failures.map((failure) => failure.message).join('; '));
      }
    });
  }

  /** Has `step` run when the test has ended, before the steps that were deferred earlier. */
  defer(step) {
    this.#undo.push(async () => step());
  }
}

/** The value of `promise`, or a failure that names `what` if it takes longer than `ms`. */
export async function within(ms, what, promise) {
  const late = withResolvers();
  const timer = setTimeout(() => late.reject(new Error(`${what}: not within ${ms} ms`)), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The first truthy answer of `probe`. For states that announce themselves by no event; everything
 * else waits on an event.
 */
export async function until(what, probe, ms = DEADLINE_MS) {
  const end = performance.now() + ms;
  for (;;) {
    const answer = await probe();
    if (answer) {
      return answer;
    }
    if (performance.now() > end) {
      throw new Error(`${what}: not within ${ms} ms`);
    }
    await pause(10);
  }
}

/** A promise with the functions that settle it. */
export function withResolvers() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}
