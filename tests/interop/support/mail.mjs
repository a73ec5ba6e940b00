// A mail server of other authors (`smtp-server`), with a parser of theirs (`mailparser`), whose
// answers a test can change.

import assert from 'node:assert/strict';

import { simpleParser } from 'mailparser';
import { SMTPServer } from 'smtp-server';

import { DEADLINE_MS, within, withResolvers } from './stage.mjs';

/** Starts a server on loopback without TLS and without authentication. */
export async function startMailServer(stage) {
  const mails = new MailServer();
  await mails.listen();
  stage.defer(() => mails.close());
  return mails;
}

/** An answer of the server other than "yes". */
export function refusal(responseCode, message) {
  return Object.assign(new Error(message), { responseCode });
}

class MailServer {
  /** Called with a recipient's address; may throw a [`refusal`]. */
  onRecipient = () => {};
  /** Called with a whole mail before it is accepted; may throw a [`refusal`] or take its time. */
  onMail = () => {};
  /** All mails that were accepted. */
  accepted = [];

  #server = new SMTPServer({
    authOptional: true,
    closeTimeout: 100,
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    onRcptTo: (address, _session, done) =>
      this.#answer(done, async () => this.onRecipient(address.address)),
    onData: (stream, session, done) => this.#answer(done, () => this.#receive(stream, session)),
  });
  #unclaimed = [];
  #unfit;
  #waiting = [];

  async listen() {
    this.#server.on('error', () => {});
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `smtp://127.0.0.1:${this.#server.server.address().port}`;
  }

  close() {
    return new Promise((resolve) => this.#server.close(resolve));
  }

  /** The next mail to this recipient that no other call has claimed. */
  async nextMail(recipient, ms = DEADLINE_MS) {
    if (this.#unfit) {
      throw this.#unfit;
    }
    const index = this.#unclaimed.findIndex((mail) => mail.to === recipient);
    if (index >= 0) {
      return this.#unclaimed.splice(index, 1)[0];
    }
    const claim = { recipient, ...withResolvers() };
    this.#waiting.push(claim);
    return within(ms, `a mail to ${recipient}`, claim.promise);
  }

  /** Gives an SMTP command the answer that `step` leads to. A mail of the wrong form ends the test. */
  async #answer(done, step) {
    try {
      await step();
      done();
    } catch (failure) {
      if (!failure.responseCode) {
        this.#unfit ??= failure;
        this.#waiting.splice(0).forEach((claim) => claim.reject(failure));
      }
      done(failure);
    }
  }

  async #receive(stream, session) {
    const [recipient] = session.envelope.rcptTo;
    assert.equal(session.envelope.rcptTo.length, 1, 'a code is mailed to one person');
    const mail = { to: recipient.address, ...(await readMail(stream)) };
    await this.onMail(mail);
    this.accepted.push(mail);
    const index = this.#waiting.findIndex((claim) => claim.recipient === mail.to);
    if (index >= 0) {
      this.#waiting.splice(index, 1)[0].resolve(mail);
    } else {
      this.#unclaimed.push(mail);
    }
  }
}

async function readMail(stream) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part);
  }
  const parsed = await simpleParser(Buffer.concat(parts));
  const { text, html, subject, messageId, headers } = parsed;
  return { text, html, subject, messageId, headers, code: codeIn(text) };
}

/** The only number of six digits in a text. */
function codeIn(text) {
  const codes = text.match(/(?<![0-9])[0-9]{6}(?![0-9])/g) ?? [];
  assert.equal(codes.length, 1, 'the text holds one code, once');
  return codes[0];
}
