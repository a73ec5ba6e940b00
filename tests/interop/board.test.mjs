// Bull Board's own handlers, called without a web server: what an operator sees and does there.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';

import { install } from './support/otpost.mjs';
import { refusal } from './support/mail.mjs';
import { QUEUE } from './support/redis.mjs';

/** Stands where a web framework's adapter stands: it keeps what the board hands over. */
class Board {
  #queues;
  #routes;

  constructor(queue) {
    createBullBoard({
      queues: [new BullMQAdapter(queue)],
      serverAdapter: this,
      options: { uiConfig: {}, validateResponses: true },
    });
  }

  setQueues(queues) {
    this.#queues = queues;
    return this;
  }

  setApiRoutes(routes) {
    this.#routes = routes;
    return this;
  }

  setViewsPath = () => this;
  setStaticPath = () => this;
  setUIConfig = () => this;
  setEntryRoute = () => this;
  setErrorHandler = () => this;

  async call(method, path, { params = {}, query = {} } = {}) {
    const route = this.#routes.find((known) => known.method === method && known.route === path);
    assert.ok(route, `${method} ${path} is a route of the board`);
    const request = { queues: this.#queues, params, query, body: {}, headers: {}, uiConfig: {} };
    const { status = 200, body } = await route.handler(request);
    assert.ok(status < 300, `${path} answers ${status}: ${JSON.stringify(body)}`);
    return body;
  }

  /** The queue as the board's page of this state shows it. */
  async show(status) {
    const { queues } = await this.call('get', '/api/queues', {
      query: { activeQueue: QUEUE, status, page: '1', jobsPerPage: '10' },
    });
    assert.equal(queues.length, 1);
    return queues[0];
  }

  /** The button "Retry" of a job. */
  retry(jobId) {
    return this.call('put', '/api/queues/:queueName/:jobId/retry', {
      params: { queueName: QUEUE, jobId },
    });
  }
}

test('Bull Board lists a waiting and a failed job, and its retry has the mail sent', async (t) => {
  const otpost = await install(t);
  const board = new Board(otpost.redis.queue());
  const events = otpost.redis.events();
  const email = 'ken@example.org';
  const api = await otpost.start('api');

  const { body: requested } = await api.generate({ email });
  const waiting = await board.show('waiting');
  assert.equal(waiting.counts.waiting, 1);
  assert.deepEqual(
    waiting.jobs.map((job) => [job.id, job.data.email]),
    [[requested.id, email]],
  );

  otpost.mails.onRecipient = () => {
    throw refusal(550, 'No such person here');
  };
  await otpost.start('worker');
  await events.first('failed', requested.id);
  const failed = await board.show('failed');
  assert.equal(failed.counts.failed, 1);
  assert.equal(failed.counts.waiting, 0);
  const [job] = failed.jobs;
  assert.equal(job.id, requested.id);
  assert.ok(job.failedReason, 'the board shows why it failed');
  assert.equal(otpost.mails.accepted.length, 0);
  assert.equal((await api.request(requested.id)).body.state, 'failed');

  otpost.mails.onRecipient = () => {};
  await board.retry(requested.id);
  const mail = await otpost.mails.nextMail(email);
  assert.equal((await api.verify({ email, otp: mail.code })).status, 200);
  await events.first('completed', requested.id);
  assert.equal((await board.show('failed')).counts.failed, 0);
  assert.equal((await api.request(requested.id)).body.state, 'sent');
});

test('Bull Board lists completed jobs when they are kept', async (t) => {
  const otpost = await install(t);
  const board = new Board(otpost.redis.queue());
  const events = otpost.redis.events();
  const email = 'ken@example.org';
  const keep = { OTPOST__QUEUE__KEEP_COMPLETED: '1h' };
  const [api] = await Promise.all([otpost.start('api', keep), otpost.start('worker', keep)]);

  const { body: requested } = await api.generate({ email });
  const mail = await otpost.mails.nextMail(email);
  await events.first('completed', requested.id);
  const completed = await board.show('completed');
  assert.equal(completed.counts.completed, 1);
  assert.equal(completed.jobs[0].id, requested.id);
  assert.ok(!JSON.stringify(completed).includes(mail.code));
});
