// A connection of the `centrifuge` SDK, as the demonstrations use it: it knows why it is interrupted, measures the round
// trip, and closes while the page is in the back/forward cache.
//
// The SDK is a classic script, `/vendor/centrifuge-*.js`, which defines `Centrifuge`.

const ROUND_TRIP_INTERVAL_MS = 5_000;
const RETRY_MIN_MS = 300;
const RETRY_MAX_MS = 15_000;
/** Codes below it are errors of the SDK: the connection is gone, or the reply did not come in time. */
const SERVER_ERRORS = 100;
const SERVER_SHUTDOWN = 3001;

/**
 * Events, all with a `detail`: `state` {state: 'connecting'|'connected'|'waiting'|'ended', reason?, code?, refusal?, client?},
 * `roundtrip` {ms}. While it is `waiting`, the SDK tries to connect again. `refusal` is the server's explanation of why it
 * takes no connections from this page.
 */
export class Connection extends EventTarget {
  #sdk;
  #state = 'connecting';
  #isOurDisconnect = false;
  #isSuspended = false;
  #isWanted = false;
  #roundTripTimer = 0;
  #client = '';
  #probe = null;

  /** `data` is shown to others as `conn_info.unverified`. */
  constructor(data) {
    super();
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#sdk = new globalThis.Centrifuge(`${scheme}//${location.host}/connection/websocket`, {
      data, minReconnectDelay: RETRY_MIN_MS, maxReconnectDelay: RETRY_MAX_MS,
    });
    this.#sdk.on('connecting', ({ code, reason }) => this.#connecting(code, reason));
    this.#sdk.on('connected', ({ client }) => {
      this.#client = client;
      this.#change({ state: 'connected', client });
      this.#measureRoundTrip();
    });
    this.#sdk.on('disconnected', ({ code, reason }) => {
      if (this.#isOurDisconnect) return;
      this.#isWanted = false;
      this.#change({ state: 'ended', code, reason });
    });
    this.#sdk.on('error', ({ type, error }) => {
      if (type === 'transport') this.#failed();
      else if (error.code >= SERVER_ERRORS && !this.isConnected) this.#end(error.message);
    });
    window.addEventListener('pagehide', () => this.#suspend());
    window.addEventListener('pageshow', () => this.#resume());
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible' && this.#state === 'waiting') this.retryNow();
    });
  }

  /** The id of this connection, assigned by the server. */
  get client() { return this.#client; }

  get isConnected() { return this.#state === 'connected'; }

  connect() {
    this.#isWanted = true;
    this.#sdk.connect();
  }

  /** Connects again with other data. */
  reconnectAs(data) {
    this.#sdk.setData(data);
    this.#restart();
  }

  /** Does not wait for the next attempt. */
  retryNow() {
    if (!this.isConnected) this.#restart();
  }

  /** Returns the SDK's subscription to a channel, which is started by the caller. */
  subscription(channel, options = {}) {
    this.#probe ??= channel;
    return this.#sdk.getSubscription(channel) ?? this.#sdk.newSubscription(channel, options);
  }

  unsubscribe(channel) {
    const subscription = this.#sdk.getSubscription(channel);
    if (!subscription) return;
    subscription.unsubscribe();
    subscription.removeAllListeners();
    this.#sdk.removeSubscription(subscription);
    if (this.#probe === channel) this.#probe = Object.keys(this.#sdk.subscriptions())[0] ?? null;
  }

  #restart() {
    this.#isWanted = true;
    if (this.#isSuspended) return;
    this.#disconnect();
    this.#sdk.connect();
  }

  #disconnect() {
    this.#isOurDisconnect = true;
    this.#sdk.disconnect();
    this.#isOurDisconnect = false;
    clearTimeout(this.#roundTripTimer);
  }

  #connecting(code, reason) {
    clearTimeout(this.#roundTripTimer);
    if (code === 0) return this.#change({ state: 'connecting' });
    const why = code === SERVER_SHUTDOWN ? 'restart' : navigator.onLine ? 'lost' : 'offline';
    return this.#change({ state: 'waiting', reason: why, code, detail: reason });
  }

  /** An attempt failed. */
  #failed() {
    if (this.isConnected || this.#isSuspended) return;
    this.#change({ state: 'waiting', reason: navigator.onLine ? 'lost' : 'offline' });
    this.#askWhy();
  }

  /** Shows what the server says against this page. A browser does not tell its page why a WebSocket was refused. */
  async #askWhy() {
    try {
      const headers = { 'Sockeye-Page-Origin': location.origin };
      const response = await fetch('/connection/check', { headers, cache: 'no-store' });
      // Refused because of its origin or host. Other errors are temporary.
      if (response.status !== 403 && response.status !== 421) return;
      const refusal = (await response.text()).trim();
      if (refusal && this.#state === 'waiting') this.#change({ state: 'waiting', reason: 'refused', refusal });
    } catch {
      // The server is unreachable, which the page already shows.
    }
  }

  #end(reason) {
    this.#isWanted = false;
    this.#disconnect();
    this.#change({ state: 'ended', reason });
  }

  // A page in the back/forward cache would keep its connection, and its user in the room, until the pong timeout.
  #suspend() {
    if (this.#isSuspended) return;
    this.#isSuspended = true;
    this.#disconnect();
    if (this.#isWanted) this.#change({ state: 'connecting' });
  }

  #resume() {
    if (!this.#isSuspended) return;
    this.#isSuspended = false;
    if (this.#isWanted) this.#sdk.connect();
  }

  /** Reads the position of a channel, the smallest command with a reply. */
  async #measureRoundTrip() {
    clearTimeout(this.#roundTripTimer);
    const subscription = this.#probe && this.#sdk.getSubscription(this.#probe);
    if (subscription?.state === 'subscribed') {
      const sentAt = performance.now();
      try {
        await subscription.presenceStats();
        this.dispatchEvent(new CustomEvent('roundtrip', { detail: { ms: performance.now() - sentAt } }));
      } catch {
        // The next measurement may succeed.
      }
    }
    const delay = subscription?.state === 'subscribed' ? ROUND_TRIP_INTERVAL_MS : 200;
    clearTimeout(this.#roundTripTimer);
    if (this.isConnected) this.#roundTripTimer = setTimeout(() => this.#measureRoundTrip(), delay);
  }

  #change(detail) {
    this.#state = detail.state;
    this.dispatchEvent(new CustomEvent('state', { detail }));
  }
}

/** Whether an error means that there is no connection, so that the command can be tried again. */
export const isInterruption = ({ code }) => code < SERVER_ERRORS;

/** Shows the state of a connection in an element `.state` with the parts `[data-text]` and `[data-round-trip]`. */
export function showState(connection, element) {
  const texts = { connecting: 'Connecting', connected: 'Connected', waiting: 'Offline', ended: 'Disconnected' };
  const [text, roundTrip] = ['[data-text]', '[data-round-trip]'].map((selector) => element.querySelector(selector));
  connection.addEventListener('state', ({ detail: { state } }) => {
    element.dataset.state = state;
    text.textContent = texts[state];
    if (state !== 'connected') roundTrip.textContent = '';
  });
  connection.addEventListener('roundtrip', ({ detail: { ms } }) => {
    roundTrip.textContent = ms < 1 ? '<1 ms' : `${Math.round(ms)} ms`;
  });
}

/** Why there is no connection, as a sentence; empty if there is one. */
export function explain({ state, reason, refusal }) {
  if (state === 'ended') return `The server ended the connection: ${reason || 'no reason given'}.`;
  if (state !== 'waiting') return '';
  return {
    offline: 'You are offline.',
    restart: 'The server is restarting.',
    refused: `The server refuses this page: ${(refusal ?? '').replace(/\.?$/, '.')}`,
  }[reason] ?? 'The connection was lost.';
}
