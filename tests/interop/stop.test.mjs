// What becomes of jobs when a worker ends in the middle of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { install } from './support/otpost.mjs';
import { until, within, withResolvers } from './support/stage.mjs';

/** How long the job of a killed worker may lie before another takes it. */
const RECOVERY_MS = 20_000;

test('another worker sends the same mail within 20 s when one is killed while mailing', async (t) => {
  const otpost = await install(t);
  const [api, doomed] = await Promise.all([otpost.start('api'), otpost.start('worker')]);
  const email = 'barbara@example.org';
  const begun = withResolvers();
  otpost.mails.onMail = (mail) => {
    begun.resolve(mail);
    return new Promise(() => {});
  };

  assert.equal((await api.generate({ email })).status, 202);
  const lost = await within(15_000, 'the first worker mails', begun.promise);
  otpost.mails.onMail = () => {};
  await otpost.start('worker');
  assert.equal(otpost.mails.accepted.length, 0);
  await doomed.kill();

  const mail = await otpost.mails.nextMail(email, RECOVERY_MS);
  assert.equal(mail.code, lost.code);
  assert.equal(mail.messageId, lost.messageId);
  assert.equal((await api.verify({ email, otp: mail.code })).status, 200);
  assert.equal(otpost.mails.accepted.length, 1);
});

test('a worker that is told to stop finishes its mails and leaves the rest queued', async (t) => {
  const otpost = await install(t);
  const queue = otpost.redis.queue();
  const twoAtATime = { OTPOST__QUEUE__CONCURRENCY: '2' };
  const [api, worker] = await Promise.all([
    otpost.start('api'),
    otpost.start('worker', twoAtATime),
  ]);
  let held = 0;
  const busy = withResolvers();
  const gate = withResolvers();
  otpost.mails.onMail = async () => {
    held += 1;
    if (held === 2) {
      busy.resolve();
    }
    await gate.promise;
  };

  const people = Array.from({ length: 6 }, (_, number) => `person${number}@example.org`);
  const answers = await Promise.all(people.map((email) => api.generate({ email })));
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [202]);
  await within(15_000, 'two mails are under way', busy.promise);
  worker.beginStop();
  const isReady = () => worker.isReady().catch(() => false);
  await until('the worker is no longer ready', async () => !(await isReady()));
  gate.resolve();
  await worker.stopped();

  const counts = await queue.getJobCounts('waiting', 'active', 'delayed', 'failed');
  assert.deepEqual(counts, { waiting: 4, active: 0, delayed: 0, failed: 0 });
  assert.equal(otpost.mails.accepted.length, 2);

  await otpost.start('worker');
  const mails = await Promise.all(people.map((email) => otpost.mails.nextMail(email)));
  assert.equal(otpost.mails.accepted.length, people.length, 'nothing is lost, nothing comes twice');
  const verified = await Promise.all(
    mails.map((mail) => api.verify({ email: mail.to, otp: mail.code })),
  );
  assert.deepEqual([...new Set(verified.map((answer) => answer.status))], [200]);
});
