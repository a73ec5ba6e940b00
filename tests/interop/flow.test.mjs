// The whole flow with separate processes, on a real Redis server and a real mail server.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { install } from './support/otpost.mjs';
import { until, withResolvers, within } from './support/stage.mjs';

test('an address is proven through one API and two workers', async (t) => {
  const otpost = await install(t);
  const [api] = await Promise.all([
    otpost.start('api'),
    otpost.start('worker'),
    otpost.start('worker'),
  ]);
  const email = 'ada@example.org';

  const requested = await api.generate({ email });
  assert.equal(requested.status, 202);
  assert.equal(requested.body.message, 'OTP is on its way');
  assert.match(requested.body.id, /^[a-z]/);
  assert.equal(requested.headers.get('location'), `/otp/requests/${requested.body.id}`);

  const mail = await otpost.mails.nextMail(email);
  assert.equal(mail.html.split(mail.code).length, 2, 'the HTML holds the code once');
  assert.equal(mail.headers.get('auto-submitted'), 'auto-generated');
  assert.ok(mail.subject.length > 0 && !mail.subject.includes(mail.code));

  const isSent = async () => (await api.request(requested.body.id)).body.state === 'sent';
  await until('the request is known as sent', isSent);

  const first = await api.verify({ email, otp: mail.code });
  assert.equal(first.status, 200);
  assert.deepEqual(first.body, { message: 'OTP is correct' });

  const second = await api.verify({ email, otp: mail.code });
  assert.equal(second.status, 422);
  assert.equal(second.body.title, 'OTP is incorrect');
  assert.match(second.headers.get('content-type'), /^application\/problem\+json/);
  assert.equal(otpost.mails.accepted.length, 1);
});

test('two workers share forty requests and mail each of them once', async (t) => {
  const otpost = await install(t);
  const oneAtATime = { OTPOST__QUEUE__CONCURRENCY: '1' };
  const [api] = await Promise.all([
    otpost.start('api'),
    otpost.start('worker', oneAtATime),
    otpost.start('worker', oneAtATime),
  ]);
  // Every mail is held back until two are there at the same time, which takes both workers.
  let held = 0;
  const both = withResolvers();
  otpost.mails.onMail = async () => {
    held += 1;
    if (held === 2) {
      both.resolve();
    }
    await both.promise;
  };

  const people = Array.from({ length: 40 }, (_, number) => `person${number}@example.org`);
  const answers = await Promise.all(people.map((email) => api.generate({ email })));
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [202]);
  await within(15_000, 'both workers mail at the same time', both.promise);
  const mails = await Promise.all(people.map((email) => otpost.mails.nextMail(email)));

  const verified = await Promise.all(
    mails.map((mail) => api.verify({ email: mail.to, otp: mail.code })),
  );
  assert.deepEqual([...new Set(verified.map((answer) => answer.status))], [200]);
  assert.equal(otpost.mails.accepted.length, people.length);
});
