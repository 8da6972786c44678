// What every Node peer shares: cases reported as JSON lines on standard output.
//
//   {"case":"text 125"}                  the case passed
//   {"case":"text 125","error":"..."}    the case failed
//   {"waiting":"shutdown"}               the harness is asked to act (here: to stop the server)
//   {"listening":4711}                   a server is ready on this port of 127.0.0.1
//   {"closed":{"code":3001,"reason":""}} a server saw a connection end this way

import { strict as assert } from 'node:assert';

/** Message sizes in bytes; the harness chooses them. */
export const sizes = (process.env.PEER_SIZES ?? '0,125').split(',').map(Number);

export function report(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

let failures = 0;

const skipped = (process.env.PEER_SKIP ?? '').split(',');

/**
 * Runs one case, unless PEER_ONLY names another or PEER_SKIP this one, and reports how it ended; a failed case does not
 * stop the others.
 */
export async function check(name, body) {
  if (process.env.PEER_ONLY && process.env.PEER_ONLY !== name) return;
  if (skipped.includes(name)) return;
  try {
    await body();
    report({ case: name });
  } catch (error) {
    failures += 1;
    report({ case: name, error: String(error?.stack ?? error) });
  }
}

/** Ends the program: exit status 1 if any case failed. */
export function finish() {
  process.exitCode = failures === 0 ? 0 : 1;
}

/** Events in the order they came, taken one at a time by whoever waits for the next. */
export class Inbox {
  #events = [];
  #waiters = [];

  push(event) {
    const waiter = this.#waiters.shift();
    if (waiter) waiter(event);
    else this.#events.push(event);
  }

  next() {
    if (this.#events.length > 0) return Promise.resolve(this.#events.shift());
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** The next event, which must equal `expected`. */
  async expect(expected) {
    const event = await this.next();
    // Comparing megabytes is cheap; printing their difference is not.
    if (JSON.stringify(event).length > 2000 || JSON.stringify(expected).length > 2000) {
      assert.ok(JSON.stringify(event) === JSON.stringify(expected), 'a long event differs');
    } else {
      assert.deepEqual(event, expected);
    }
  }
}

/** A text of `size` bytes in which a lost or moved byte shows. */
export function textOf(size) {
  let text = '';
  for (let count = 0; text.length < size; count += 1) text += `${count.toString(36)} `;
  return text.slice(0, size);
}

/** `size` bytes that cover all values and do not repeat with a power of two. */
export function bytesOf(size) {
  return Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 7 + (at >> 8)) & 0xff));
}
