// The built binary as child processes, and its API.

import { randomBytes } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { Program, freePort } from './process.mjs';
import { startMailServer } from './mail.mjs';
import { startRedis } from './redis.mjs';
import { Stage } from './stage.mjs';

const BINARY =
  process.env.OTPOST_BIN ??
  fileURLToPath(new URL('../../../target/debug/otpost', import.meta.url));

/** How long otpost may take to stop. */
export const STOP_MS = 25_000;

/** A Redis server, a mail server and keys: what the processes of one otpost share. */
export async function install(t) {
  await access(BINARY, constants.X_OK).catch(() => {
    throw new Error(`${BINARY} is missing: run \`cargo build\``);
  });
  const stage = new Stage(t);
  const redis = await startRedis(stage);
  const mails = await startMailServer(stage);
  return new Installation(stage, redis, mails);
}

class Installation {
  #stage;
  #keys = { master: newKey(), address: newKey() };

  constructor(stage, redis, mails) {
    this.#stage = stage;
    this.redis = redis;
    this.mails = mails;
  }

  /** Starts one process and waits until it is ready. `settings` are further environment variables. */
  async start(role, settings = {}) {
    const [http, ops] = [await freePort(), await freePort()];
    const env = {
      PATH: process.env.PATH,
      OTPOST__HTTP__LISTEN: `127.0.0.1:${http}`,
      OTPOST__OPS__LISTEN: `127.0.0.1:${ops}`,
      OTPOST__STORE__URL: this.redis.url,
      OTPOST__KEYS__MASTER: this.#keys.master,
      OTPOST__KEYS__ADDRESS: this.#keys.address,
      OTPOST__LIMITS__ENABLED: 'false',
      OTPOST__MAIL__TRANSPORT: 'smtp',
      OTPOST__MAIL__SMTP__URL: this.mails.url,
      OTPOST__MAIL__FROM: 'otpost <no-reply@example.com>',
      ...settings,
    };
    const program = new Program(`otpost ${role}`, BINARY, ['serve', '--role', role], { env });
    const otpost = new Otpost(program, `http://127.0.0.1:${http}`, `http://127.0.0.1:${ops}`);
    this.#stage.defer(() => otpost.stop());
    await program.ready(() => otpost.isReady());
    return otpost;
  }
}

function newKey() {
  return randomBytes(32).toString('base64');
}

/** One running process. */
class Otpost {
  #program;
  #api;
  #ops;
  #ended = false;

  constructor(program, api, ops) {
    this.#program = program;
    this.#api = api;
    this.#ops = ops;
  }

  /** Whether `/readyz` says so. */
  async isReady() {
    const answer = await fetch(`${this.#ops}/readyz`);
    await answer.text();
    return answer.status === 200;
  }

  generate(body) {
    return this.#post('/otp/generate', body);
  }

  verify(body) {
    return this.#post('/otp/verify', body);
  }

  /** Where a request stands. */
  async request(id) {
    return readAnswer(await fetch(`${this.#api}/otp/requests/${id}`));
  }

  async #post(path, body) {
    const headers = { 'content-type': 'application/json' };
    return readAnswer(
      await fetch(this.#api + path, { method: 'POST', headers, body: JSON.stringify(body) }),
    );
  }

  /** Asks it to stop, as a service manager does. */
  beginStop() {
    this.#ended = true;
    this.#program.signal('SIGTERM');
  }

  /** Waits for its end after [`beginStop`]; fails unless it ended well and in time. */
  async stopped() {
    const { code, signal } = await this.#program.end(STOP_MS);
    if (code !== 0) {
      throw new Error(`otpost ended with ${code ?? signal}:\n${this.#program.output}`);
    }
  }

  /** Stops it, unless it has been ended already. */
  async stop() {
    if (!this.#ended) {
      this.beginStop();
      await this.stopped();
    }
  }

  /** Ends it as a crash would (kill -9). */
  async kill() {
    this.#ended = true;
    await this.#program.kill();
  }
}

async function readAnswer(response) {
  const { status, headers } = response;
  return { status, headers, body: await response.json() };
}
