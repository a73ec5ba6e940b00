// What a dump of Redis tells after a request: no code, nothing that lasts.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { dump } from './support/dump.mjs';
import { install } from './support/otpost.mjs';

const LIFETIME_MS = 600_000;

/** A code and the plain hashes of it, in the forms in which somebody could have stored them. */
function traces(code) {
  const forms = [Buffer.from(code), Buffer.from(Buffer.from(code).toString('base64'))];
  for (const name of ['sha256', 'sha1', 'md5', 'sha512', 'sha3-256']) {
    const digest = createHash(name).update(code).digest();
    const hex = digest.toString('hex');
    const texts = [hex, hex.toUpperCase(), digest.toString('base64'), digest.toString('base64url')];
    forms.push(digest, ...texts.map((text) => Buffer.from(text)));
  }
  return forms;
}

function assertNothingOfOursLasts(entries) {
  const lasting = entries.filter(({ key, ttlMs }) => key.startsWith('otpost:') && ttlMs < 0);
  assert.deepEqual(lasting.map(({ key, type }) => `${key} (${type})`), []);
}

test('Redis holds no code, no plain hash of it, and nothing of ours without an end', async (t) => {
  const otpost = await install(t);
  const client = otpost.redis.connect();
  const queue = otpost.redis.queue();
  const events = otpost.redis.events();
  const email = 'ada@example.org';
  const keep = { OTPOST__QUEUE__KEEP_COMPLETED: '1h' };
  const api = await otpost.start('api', keep);

  const { body: requested } = await api.generate({ email });
  assertNothingOfOursLasts(await dump(client));

  await otpost.start('worker', keep);
  const { code } = await otpost.mails.nextMail(email);
  await events.first('completed', requested.id);
  const entries = await dump(client);
  assertNothingOfOursLasts(entries);

  const records = entries.filter(({ key }) => /^otpost:\{[^}]+\}:c:/.test(key));
  assert.equal(records.length, 1, 'one challenge has a record');
  const { ttlMs } = records[0];
  assert.ok(ttlMs > 0 && ttlMs <= LIFETIME_MS, `the record of the code ends in ${ttlMs} ms`);

  const job = entries.find(({ key }) => key === `bull:otp:${requested.id}`);
  assert.ok(job, 'the completed job is among what is searched');
  assert.deepEqual(Object.keys((await queue.getJob(requested.id)).data).sort(), [
    'challenge',
    'email',
    'v',
  ]);
  for (const { key, pieces } of entries) {
    for (const trace of traces(code)) {
      assert.ok(!pieces.some((piece) => piece.includes(trace)), `a trace of the code in ${key}`);
    }
  }

  assert.equal((await api.verify({ email, otp: code })).status, 200);
  assertNothingOfOursLasts(await dump(client));
});
