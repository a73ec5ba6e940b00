// Node's BullMQ as the consumer of what otpost's API puts onto the queue.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { UnrecoverableError } from 'bullmq';

import { install } from './support/otpost.mjs';
import { within, withResolvers } from './support/stage.mjs';

test("Node's worker receives the API's job, which holds an address and no code", async (t) => {
  const otpost = await install(t);
  const queue = otpost.redis.queue();
  const events = otpost.redis.events();
  const api = await otpost.start('api');
  const email = 'Ada@example.org';

  const requested = await api.generate({ email, context: 'login', locale: 'de' });
  assert.equal(requested.status, 202);
  const received = withResolvers();
  otpost.redis.worker(async (job) => received.resolve(job));
  const job = await within(15_000, "a job for Node's worker", received.promise);

  assert.equal(job.id, requested.body.id);
  assert.match(job.id, /^[a-z][a-z0-9]{25,}$/);
  assert.equal(job.name, 'otp');
  const { email: to, locale, challenge, ...rest } = job.data;
  assert.deepEqual({ to, locale, rest }, { to: email, locale: 'de', rest: { v: 1 } });
  assert.match(challenge, /^[0-9a-f]{32}$/);
  assert.ok(Math.abs(Date.now() - job.timestamp) < 60_000);

  await events.first('completed', job.id);
  assert.equal(await queue.getJob(job.id), undefined, 'a completed job is removed at once');
});

test("a job of the API that fails in Node's worker is kept for a day", async (t) => {
  const otpost = await install(t);
  const queue = otpost.redis.queue();
  const events = otpost.redis.events();
  const api = await otpost.start('api');
  otpost.redis.worker(async () => {
    throw new UnrecoverableError('no such person');
  });

  const { body } = await api.generate({ email: 'ada@example.org' });
  const { failedReason } = await events.first('failed', body.id);
  assert.equal(failedReason, 'no such person');
  const job = await queue.getJob(body.id);
  assert.deepEqual(job.opts.removeOnFail, { age: 24 * 60 * 60, count: 10_000 });
  assert.equal((await api.request(body.id)).body.state, 'failed');
});
