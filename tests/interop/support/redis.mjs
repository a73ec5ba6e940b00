// A Redis server of the test's own, started from the `redis-server` binary, and BullMQ on it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Queue, QueueEvents, Worker } from 'bullmq';
import { Redis } from 'ioredis';

import { Program, freePort } from './process.mjs';
import { within, withResolvers } from './stage.mjs';

/** The name and the key prefix that otpost's queue has by default. */
export const QUEUE = 'otp';
export const PREFIX = 'bull';

/** Starts a server that keeps nothing on disk; it ends with the test. */
export async function startRedis(stage) {
  const folder = await mkdtemp(join(tmpdir(), 'otpost-interop-'));
  stage.defer(() => rm(folder, { recursive: true, force: true }));
  const port = await freePort();
  const settings = { port, bind: '127.0.0.1', save: '', appendonly: 'no', dir: folder };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const program = new Program('redis-server', 'redis-server', args, { cwd: folder });
  stage.defer(() => program.kill());
  const server = new RedisServer(stage, port);
  const client = server.connect();
  await program.ready(async () => (await client.ping()) === 'PONG');
  return server;
}

class RedisServer {
  #stage;

  constructor(stage, port) {
    this.#stage = stage;
    this.connection = { host: '127.0.0.1', port };
    this.url = `redis://127.0.0.1:${port}`;
  }

  /** A plain client. */
  connect() {
    const client = new Redis({ ...this.connection, retryStrategy: () => 20 });
    client.on('error', () => {});
    this.#stage.defer(() => client.disconnect());
    return client;
  }

  /** Node's producer and view of otpost's queue. */
  queue() {
    return this.#closing(new Queue(QUEUE, { connection: this.connection, prefix: PREFIX }));
  }

  /** Node's worker on otpost's queue. */
  worker(processor) {
    return this.#closing(
      new Worker(QUEUE, processor, { connection: this.connection, prefix: PREFIX }),
    );
  }

  /** The queue's events from its beginning. */
  events() {
    const events = new QueueEvents(QUEUE, {
      connection: this.connection,
      prefix: PREFIX,
      lastEventId: '0-0',
    });
    return new JobEvents(this.#closing(events));
  }

  #closing(client) {
    client.on('error', () => {});
    this.#stage.defer(() => client.close());
    return client;
  }
}

/** What happened to jobs, also before somebody asks. */
class JobEvents {
  #seen = new Map();

  constructor(events) {
    for (const name of ['completed', 'failed', 'delayed']) {
      events.on(name, (event) => this.#slot(name, event.jobId).resolve(event));
    }
  }

  /** The first event of this name of a job. */
  first(name, jobId, ms = 15_000) {
    return within(ms, `job event \`${name}\``, this.#slot(name, jobId).promise);
  }

  #slot(name, jobId) {
    const key = `${name} ${jobId}`;
    if (!this.#seen.has(key)) {
      this.#seen.set(key, withResolvers());
    }
    return this.#seen.get(key);
  }
}
