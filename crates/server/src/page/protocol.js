// A small client for the Centrifugo protocol in JSON: one connection with subscriptions, reconnects and recovery.
//
// It is independent of the chat and the page. Frames contain JSON objects separated by line breaks. A command has an id, and
// its reply has the same id. Other messages of the server are pushes. The empty object is a ping or a pong.

const RETRY_MIN_MS = 300;
const RETRY_MAX_MS = 15_000;
const REPLY_TIMEOUT_MS = 8_000;
const ROUND_TRIP_INTERVAL_MS = 5_000;
/** Added to the server's ping interval before the connection counts as dead. */
const PING_GRACE_MS = 8_000;

/**
 * A connection that comes back by itself. Events, all with a `detail`:
 * `state` {state: 'connecting'|'connected'|'waiting'|'ended', retryAt?, reason?, refusal?, client?}, `roundtrip` {ms}.
 * `refusal` is the server's own explanation of why it does not take connections from this page.
 * A subscription's handlers: `subscribed({isNew, isRecovered, isSameEpoch, lastOffset})`, where the last two compare
 * with what was known before, `publication(publication)`, `join(info)`, `leave(info)`, `failed(error)`.
 */
export class Connection extends EventTarget {
  #url;
  #checkUrl;
  #data;
  #socket = null;
  #isConnected = false;
  #isWanted = false;
  #client = '';
  #isSuspended = false;
  #attempts = 0;
  #retryTimer = 0;
  /** When the next attempt begins, while there is one to wait for. */
  #waitingUntil = 0;
  #silenceTimer = 0;
  #roundTripTimer = 0;
  #silenceMs = REPLY_TIMEOUT_MS;
  #lastId = 0;
  #waiting = new Map();
  #subscriptions = new Map();

  /** The server is asked at `checkUrl` why it does not open a connection, which a browser does not tell its page. */
  constructor(url, checkUrl, data) {
    super();
    this.#url = url;
    this.#checkUrl = checkUrl;
    this.#data = data;
    window.addEventListener('online', () => this.retryNow());
    window.addEventListener('offline', () => this.#drop('offline'));
    // A page in the back/forward cache would keep its connection, and its user in the room, until the
    // pong timeout; and some browsers do not cache pages with open connections.
    window.addEventListener('pagehide', () => this.#suspend());
    window.addEventListener('pageshow', () => this.#resume());
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.retryNow();
    });
  }

  /** The name the server gave this connection. */
  get client() { return this.#client; }

  get isConnected() { return this.#isConnected; }

  connect() {
    this.#isWanted = true;
    this.#attempts = 0;
    this.#open();
  }

  /** Connects again at once with other data about this client. */
  reconnectAs(data) {
    this.#data = data;
    this.#isWanted = true;
    this.#attempts = 0;
    this.#close();
    this.#open();
  }

  /** Does not wait for the next attempt. */
  retryNow() {
    if (!this.#isWanted || this.#isSuspended || this.#socket) return;
    this.#attempts = 0;
    this.#open();
  }

  subscribe(channel, handlers) {
    const subscription = { channel, handlers, epoch: '', offset: 0, hasPosition: false };
    this.#subscriptions.set(channel, subscription);
    if (this.#isConnected) this.#send([this.#subscribeCommand(subscription)]);
  }

  unsubscribe(channel) {
    if (this.#subscriptions.delete(channel) && this.#isConnected) {
      this.request('unsubscribe', { channel }).catch(() => {});
    }
  }

  /** Sends one command; resolves with its result. Rejects with the server's error, or `{code: 0}` if the connection goes. */
  request(method, params) {
    return new Promise((resolve, reject) => {
      if (!this.#isConnected) return reject({ code: 0, message: 'not connected' });
      this.#send([this.#command(method, params, resolve, reject)]);
    });
  }

  #command(method, params, resolve, reject) {
    const id = ++this.#lastId;
    const timer = setTimeout(() => this.#drop('no reply'), REPLY_TIMEOUT_MS);
    this.#waiting.set(id, { method, resolve, reject, timer });
    return { id, [method]: params };
  }

  #subscribeCommand(subscription) {
    const { channel, epoch, offset, hasPosition } = subscription;
    const params = { channel, recoverable: true, positioned: true, join_leave: true };
    if (hasPosition) Object.assign(params, { recover: true, epoch, offset });
    const failed = (error) => {
      if (error.code === 0) return;
      this.#subscriptions.delete(channel);
      subscription.handlers.failed(error);
    };
    return this.#command('subscribe', params, (result) => this.#subscribed(subscription, result), failed);
  }

  #subscribed(subscription, result) {
    const { handlers } = subscription;
    const isNew = !subscription.hasPosition;
    const isRecovered = result.recovered === true;
    const isSameEpoch = subscription.epoch === result.epoch;
    const lastOffset = subscription.offset;
    subscription.hasPosition = result.recoverable === true;
    subscription.epoch = result.epoch ?? '';
    subscription.offset = result.offset ?? 0;
    for (const publication of result.publications ?? []) this.#published(subscription, publication);
    handlers.subscribed({ isNew, isRecovered, isSameEpoch, lastOffset });
  }

  #published(subscription, publication) {
    if (publication.offset) subscription.offset = publication.offset;
    subscription.handlers.publication(publication);
  }

  #open() {
    clearTimeout(this.#retryTimer);
    this.#waitingUntil = 0;
    if (this.#isSuspended) return;
    const socket = new WebSocket(this.#url);
    let wasOpen = false;
    this.#socket = socket;
    this.#changeState({ state: 'connecting' });
    this.#expectSound(REPLY_TIMEOUT_MS);
    socket.onopen = () => {
      wasOpen = true;
      const failed = (error) => error.code !== 0 && this.#end(error.message);
      // The subscriptions follow in the same frame: the server executes commands in order.
      this.#send([
        this.#command('connect', { data: this.#data, name: 'chat' }, (result) => this.#connected(result), failed),
        ...[...this.#subscriptions.values()].map((subscription) => this.#subscribeCommand(subscription)),
      ]);
    };
    socket.onmessage = ({ data }) => {
      this.#expectSound(this.#silenceMs);
      for (const line of data.split('\n')) if (line && socket === this.#socket) this.#receive(JSON.parse(line));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      const isFinal = (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || code === 1009;
      if (isFinal) this.#end(reason);
      else this.#drop(code === 3001 ? 'restart' : 'lost');
      if (!wasOpen) this.#askWhy();
    };
  }

  #connected(result) {
    this.#isConnected = true;
    this.#attempts = 0;
    this.#client = result.client;
    if (result.ping) this.#silenceMs = result.ping * 1000 + PING_GRACE_MS;
    this.#changeState({ state: 'connected', client: result.client });
    this.#measureRoundTrip();
  }

  #receive(message) {
    if (message.id) return this.#settle(message);
    const { push } = message;
    if (!push) return this.#socket.send('{}');
    const subscription = this.#subscriptions.get(push.channel);
    if (push.disconnect) this.#end(push.disconnect.reason);
    if (!subscription) return undefined;
    if (push.pub) this.#published(subscription, push.pub);
    if (push.join) subscription.handlers.join(push.join.info);
    if (push.leave) subscription.handlers.leave(push.leave.info);
    if (push.unsubscribe) this.#unsubscribed(subscription, push.unsubscribe);
    return undefined;
  }

  #settle({ id, error, ...results }) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error) waiting.reject(error);
    else waiting.resolve(results[waiting.method] ?? {});
  }

  #unsubscribed(subscription, { code, reason }) {
    if (code >= 2500) this.#send([this.#subscribeCommand(subscription)]);
    else {
      this.#subscriptions.delete(subscription.channel);
      subscription.handlers.failed({ code, message: reason });
    }
  }

  #send(commands) {
    this.#socket.send(commands.map((command) => JSON.stringify(command)).join('\n'));
  }

  #measureRoundTrip() {
    clearTimeout(this.#roundTripTimer);
    const sentAt = performance.now();
    this.request('ping', {}).then(() => {
      this.dispatchEvent(new CustomEvent('roundtrip', { detail: { ms: performance.now() - sentAt } }));
      this.#roundTripTimer = setTimeout(() => this.#measureRoundTrip(), ROUND_TRIP_INTERVAL_MS);
    }, () => {});
  }

  /** If nothing is heard for this long, the connection is dead, whatever the browser thinks of it. */
  #expectSound(ms) {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#drop('silence'), ms);
  }

  /** Tells what the server says against this page, if that is why there is no connection. */
  async #askWhy() {
    const attempts = this.#attempts;
    try {
      const response = await fetch(this.#checkUrl, { headers: { 'Sockeye-Page-Origin': location.origin }, cache: 'no-store' });
      // Refused because of its origin or host. Other errors are temporary.
      if (response.status !== 403 && response.status !== 421) return;
      const refusal = (await response.text()).trim();
      // Unless the next attempt has started in the meantime.
      if (refusal && !this.#socket && this.#waitingUntil && attempts === this.#attempts) {
        this.#changeState({ state: 'waiting', reason: 'refused', refusal, retryAt: this.#waitingUntil });
      }
    } catch {
      // The server is unreachable, which the page already shows.
    }
  }

  /** Closes the connection, for as long as the page is not shown. */
  #suspend() {
    if (this.#isSuspended) return;
    this.#isSuspended = true;
    const wasTrying = this.#socket || this.#waitingUntil;
    this.#close();
    if (wasTrying) this.#changeState({ state: 'connecting' });
  }

  #resume() {
    if (!this.#isSuspended) return;
    this.#isSuspended = false;
    this.retryNow();
  }

  /** Gives the connection up and plans the next: soon at first, later more seldom, and never in step with others. */
  #drop(reason) {
    if (!this.#socket) return;
    this.#close();
    const longest = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** this.#attempts++);
    const delay = longest / 2 + Math.random() * longest / 2;
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    this.#waitingUntil = Date.now() + delay;
    this.#changeState({ state: 'waiting', reason, retryAt: this.#waitingUntil });
  }

  #end(reason) {
    this.#isWanted = false;
    this.#close();
    this.#changeState({ state: 'ended', reason });
  }

  #close() {
    clearTimeout(this.#retryTimer);
    this.#waitingUntil = 0;
    clearTimeout(this.#silenceTimer);
    clearTimeout(this.#roundTripTimer);
    this.#isConnected = false;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject, timer } of waiting) {
      clearTimeout(timer);
      reject({ code: 0, message: 'connection lost' });
    }
  }

  #changeState(detail) {
    this.dispatchEvent(new CustomEvent('state', { detail }));
  }
}
