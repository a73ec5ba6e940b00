// NestJS as the producer, through `@nestjs/bullmq`.

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BullModule, InjectQueue } from '@nestjs/bullmq';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';

import { install } from './support/otpost.mjs';
import { PREFIX, QUEUE } from './support/redis.mjs';

class SignIn {
  constructor(queue) {
    this.queue = queue;
  }

  askForCode(email) {
    return this.queue.add('otp', { email });
  }
}
Injectable()(SignIn);
InjectQueue(QUEUE)(SignIn, undefined, 0);

function moduleOn(connection) {
  class App {}
  Module({
    imports: [
      BullModule.forRoot({ connection, prefix: PREFIX }),
      BullModule.registerQueue({ name: QUEUE }),
    ],
    providers: [SignIn],
  })(App);
  return App;
}

test('a NestJS application adds a job and otpost mails it', async (t) => {
  const otpost = await install(t);
  const [api] = await Promise.all([otpost.start('api'), otpost.start('worker')]);
  const app = await NestFactory.createApplicationContext(moduleOn(otpost.redis.connection), {
    logger: false,
  });
  const email = 'linus@example.org';
  try {
    await app.get(SignIn).askForCode(email);
    const mail = await otpost.mails.nextMail(email);
    assert.equal((await api.verify({ email, otp: mail.code })).status, 200);
  } finally {
    await app.close();
  }
});
