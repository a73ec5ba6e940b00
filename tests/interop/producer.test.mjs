// Node's BullMQ as the producer: a job with an address alone is as good as one of the API.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { install } from './support/otpost.mjs';
import { refusal } from './support/mail.mjs';

async function startAll(t) {
  const otpost = await install(t);
  const queue = otpost.redis.queue();
  const events = otpost.redis.events();
  const [api] = await Promise.all([otpost.start('api'), otpost.start('worker')]);
  return { api, mails: otpost.mails, queue, events };
}

test('a job of another producer is mailed, its code verifies, and it leaves the queue', async (t) => {
  const { api, mails, queue, events } = await startAll(t);
  const email = 'grace@example.org';

  const job = await queue.add('otp', { email });
  const mail = await mails.nextMail(email);
  const verified = await api.verify({ email, otp: mail.code });
  assert.deepEqual([verified.status, verified.body], [200, { message: 'OTP is correct' }]);

  await events.first('completed', job.id);
  assert.equal(await queue.getJob(job.id), undefined);
  assert.equal(await queue.getCompletedCount(), 0);
  assert.equal(mails.accepted.length, 1);
});

test('a code asked for with a context verifies with that context only', async (t) => {
  const { api, mails, queue } = await startAll(t);
  const email = 'grace@example.org';

  await queue.add('otp', { email, context: 'login' });
  const { code } = await mails.nextMail(email);
  assert.equal((await api.verify({ email, otp: code })).status, 422);
  assert.equal((await api.verify({ email, otp: code, context: 'change-email' })).status, 422);
  assert.equal((await api.verify({ email, otp: code, context: 'login' })).status, 200);
});

test('a job that cannot be read fails at once with a reason that does not repeat it', async (t) => {
  const { mails, queue, events } = await startAll(t);
  const unreadable = [
    {},
    { mail: 'eve@example.org' },
    { email: 'eve at example.org' },
    { email: 'eve@example.org', context: '' },
    { email: 'eve@example.org', challenge: 'eve' },
  ];

  for (const data of unreadable) {
    // The producer's own attempts do not count: the job will never become readable.
    const { id } = await queue.add('otp', data, { attempts: 3, backoff: 1 });
    const { failedReason } = await events.first('failed', id);
    assert.match(failedReason, /email|challenge|context/);
    assert.doesNotMatch(failedReason, /eve/);
    const job = await queue.getJob(id);
    assert.equal(job.failedReason, failedReason);
    assert.equal(await job.getState(), 'failed');
    assert.equal(job.attemptsStarted, 1);
    assert.doesNotMatch(JSON.stringify(job.stacktrace), /eve/);
  }
  assert.equal(mails.accepted.length, 0);
});

const producers = {
  'a job without `attempts`': {},
  "a job whose options only Node's BullMQ reads": {
    attempts: 1,
    backoff: { type: 'exponential', delay: 100.5, jitter: 0.5 },
  },
};

for (const [name, options] of Object.entries(producers)) {
  test(`${name} is tried again when the mail server refuses for now`, async (t) => {
    const { api, mails, queue, events } = await startAll(t);
    const email = 'grace@example.org';
    const refused = [];
    mails.onMail = (mail) => {
      if (refused.length === 0) {
        refused.push(mail);
        throw refusal(451, 'Try again later');
      }
    };

    const job = await queue.add('otp', { email }, options);
    assert.ok((job.opts.attempts ?? 0) <= 1, 'its producer asks for no second attempt');
    await events.first('delayed', job.id);
    const mail = await mails.nextMail(email);
    assert.equal(mail.code, refused[0].code);
    assert.equal(mail.messageId, refused[0].messageId);
    assert.equal((await api.verify({ email, otp: mail.code })).status, 200);
    await events.first('completed', job.id);
  });
}
