// Child processes of a test: started from a binary on free ports, ended by their own id.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';

import { DEADLINE_MS, until, within } from './stage.mjs';

/** A started program, its output and its end. */
export class Program {
  #child;
  #name;
  #output = '';
  #end;

  constructor(name, file, args, options = {}) {
    this.#name = name;
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.#output += text));
    }
    this.#end = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve({ error }));
      this.#child.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  /** All that it has written so far. */
  get output() {
    return this.#output;
  }

  /** Waits until `probe` is truthy; fails at once if the program ends before. */
  async ready(probe) {
    let end;
    this.#end.then((value) => (end = value));
    await until(`${this.#name} is ready`, async () => {
      if (end) {
        throw new Error(`${this.#name} ended (${describe(end)}):\n${this.#output}`);
      }
      return probe().catch(() => false);
    }).catch((failure) => {
      throw new Error(`${failure.message}\n${this.#output}`);
    });
  }

  signal(name) {
    this.#child.kill(name);
  }

  /** How it ended, `{code, signal}`. */
  async end(ms = DEADLINE_MS) {
    return within(ms, `${this.#name} ends`, this.#end).catch((failure) => {
      throw new Error(`${failure.message}\n${this.#output}`);
    });
  }

  /** Ends it as a crash would. */
  async kill() {
    this.#child.kill('SIGKILL');
    return this.end();
  }
}

function describe({ error, code, signal }) {
  return error ? error.message : `exit code ${code}, signal ${signal}`;
}

/**
 * A port of 127.0.0.1 that nobody listens on now, below the range from which the system takes the
 * ports of outgoing connections, so that none of those can occupy it before it is used.
 */
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = createServer().listen(port, '127.0.0.1');
    const free = await once(probe, 'listening').then(
      () => true,
      () => false,
    );
    if (free) {
      probe.close();
      await once(probe, 'close');
      return port;
    }
  }
}
