// What a client does against latency: it predicts its own fish, interpolates the others, and reconciles with the server.
// Independent of the page and the connection; times are in milliseconds.

import { RADIUS, TICK_SECONDS, swim } from './physics.js';

export const TICK_MS = TICK_SECONDS * 1000;
/** How far in the past others are shown, in ticks: the snapshots around that time have usually arrived. */
const BUFFER_TICKS = 3;
const SNAPSHOTS_MAX = 40;
/** Inputs that the server has not acknowledged. Older ones were lost. */
const PENDING_MAX = 90;
/** Part of a correction that is left to show after one tick. */
const CORRECTION_REST = 0.82;
/** A larger correction, in fish lengths, is shown at once. */
const CORRECTION_SHOWN_MAX = 8;
const FISH_LENGTH = RADIUS * 2.6;
const STATISTICS_MS = 3_000;
/** The estimate of the server's clock may drift this much per snapshot. */
const DRIFT_MS = 0.05;

export class Netcode {
  isPredicting = true;
  isInterpolating = true;

  /** The id of the own fish, or null for a spectator. */
  ownId = null;
  #snapshots = [];
  #pending = [];
  #number = 0;
  #predicted = null;
  #previous = null;
  /** The part of past corrections that is still shown. */
  #offset = { x: 0, y: 0 };
  #tickedAt = 0;
  /** When the server's tick 0 was, by the clock of this machine. */
  #epoch = null;
  #events = [];

  /** The last snapshot. */
  get latest() { return this.#snapshots.at(-1) ?? null; }

  /** The connection or the own fish is a new one. */
  reset() {
    this.#snapshots = [];
    this.#pending = [];
    this.#predicted = this.#previous = null;
    this.#epoch = null;
    this.#events = [];
  }

  handleSnapshot(snapshot, now) {
    const { latest } = this;
    // The game was restarted.
    if (latest && snapshot.tick < latest.tick - SNAPSHOTS_MAX) this.reset();
    else if (latest && snapshot.tick <= latest.tick) return;
    const lost = latest && this.#snapshots.length ? snapshot.tick - latest.tick - 1 : 0;
    this.#snapshots.push(snapshot);
    if (this.#snapshots.length > SNAPSHOTS_MAX) this.#snapshots.shift();
    const epoch = now - snapshot.tick * TICK_MS;
    this.#epoch = this.#epoch === null ? epoch : Math.min(this.#epoch + DRIFT_MS, epoch);
    this.#events.push({ at: now, lost });
    this.#reconcile(snapshot, now);
  }

  /** Advances the own fish by one tick. Returns the input with its number, to be sent. */
  step(input, now) {
    const numbered = { ...input, number: ++this.#number };
    this.#pending.push({ input: numbered, at: now });
    if (this.#pending.length > PENDING_MAX) this.#pending.shift();
    this.#offset.x *= CORRECTION_REST;
    this.#offset.y *= CORRECTION_REST;
    this.#tickedAt = now;
    if (this.#predicted) {
      this.#previous = { ...this.#predicted };
      swim(this.#predicted, numbered);
    }
    return numbered;
  }

  /** Where everything is shown: {fish: [...], food, own, server}. `server` is the own fish in the last snapshot. */
  view(now) {
    const { latest } = this;
    if (!latest) return null;
    const server = latest.fish.get(this.ownId) ?? null;
    const fish = this.isInterpolating ? this.#interpolated(now) : [...latest.fish.values()];
    let own = fish.find(({ id }) => id === this.ownId) ?? null;
    if (own && this.isPredicting && this.#predicted) {
      const shown = { ...own, ...this.#shownPrediction(now) };
      fish[fish.indexOf(own)] = shown;
      own = shown;
    }
    return { fish, food: latest.food, own, server };
  }

  /** {responseMs, lostPart, perSecond, correction} over the last seconds; `correction` in fish lengths. */
  statistics(now) {
    this.#events = this.#events.filter(({ at }) => now - at < STATISTICS_MS);
    const events = this.#events;
    const responses = events.filter(({ response }) => response !== undefined).map(({ response }) => response);
    const corrections = events.map(({ correction }) => correction ?? 0);
    const lost = events.reduce((sum, event) => sum + event.lost, 0);
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    return {
      responseMs: responses.length ? mean(responses) : null,
      lostPart: events.length ? lost / (events.length + lost) : null,
      perSecond: events.length / STATISTICS_MS * 1000,
      correction: corrections.length && this.#predicted ? Math.max(...corrections) : null,
    };
  }

  /** Takes the server's state and applies the inputs that it does not contain. */
  #reconcile({ fish }, now) {
    const server = fish.get(this.ownId);
    if (!server) {
      this.#predicted = null;
      return;
    }
    const event = this.#events.at(-1);
    const acknowledged = this.#pending.findLast(({ input }) => input.number <= server.acknowledged);
    if (acknowledged) event.response = now - acknowledged.at;
    this.#pending = this.#pending.filter(({ input }) => input.number > server.acknowledged);
    const { x, y, vx, vy, heading, rest } = server;
    const body = { x, y, vx, vy, heading, rest };
    for (const { input } of this.#pending) swim(body, input);
    if (this.#predicted) {
      const [dx, dy] = [this.#predicted.x - body.x, this.#predicted.y - body.y];
      event.correction = Math.hypot(dx, dy) / FISH_LENGTH;
      const isShown = event.correction <= CORRECTION_SHOWN_MAX;
      this.#offset = isShown ? { x: this.#offset.x + dx, y: this.#offset.y + dy } : { x: 0, y: 0 };
      this.#previous = { ...this.#previous, x: this.#previous.x - dx, y: this.#previous.y - dy };
    } else {
      this.#offset = { x: 0, y: 0 };
      this.#previous = { ...body };
    }
    this.#predicted = body;
  }

  /** Between the last two predicted ticks. */
  #shownPrediction(now) {
    const part = Math.min(1, (now - this.#tickedAt) / TICK_MS);
    const { x, y, heading } = between(this.#previous, this.#predicted, part);
    return { x: x + this.#offset.x, y: y + this.#offset.y, heading, rest: this.#predicted.rest };
  }

  #interpolated(now) {
    const tick = (now - this.#epoch) / TICK_MS - BUFFER_TICKS;
    const after = this.#snapshots.findIndex((snapshot) => snapshot.tick >= tick);
    const to = after < 0 ? this.latest : this.#snapshots[after];
    const from = after > 0 ? this.#snapshots[after - 1] : to;
    const part = to === from ? 1 : (tick - from.tick) / (to.tick - from.tick);
    return [...to.fish.values()].map((fish) => {
      const before = from.fish.get(fish.id);
      return before ? { ...fish, ...between(before, fish, part) } : fish;
    });
  }
}

function between(from, to, part) {
  const turn = ((to.heading - from.heading + 3 * Math.PI) % (2 * Math.PI)) - Math.PI;
  return {
    x: from.x + (to.x - from.x) * part,
    y: from.y + (to.y - from.y) * part,
    heading: from.heading + turn * part,
  };
}
