// The details of one channel: live publications, history, members, and publishing by hand.
// Everything that comes from channels becomes text, never markup.

import { SignedOut, call, history, tap } from './server.js';

/** Rows of the live view, of a page of history (which the server sets), and of members. */
const LIVE_MAX = 200;
const PAGE = 50;
const MEMBERS_MAX = 200;

/** Characters of one publication that a row shows. */
const PREVIEW_MAX = 300;
const DATA_MAX = 50_000;

const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const created = document.createElement(tag);
  if (className) created.className = className;
  if (text !== undefined) created.textContent = text;
  return created;
}

// Made once: a busy channel has thousands of times per second.
const TIME = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
});
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

/** The time of a publication, with its day if it is not today. */
function clock(milliseconds) {
  const date = new Date(milliseconds || Date.now());
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? TIME : DAY).format(date);
}

const plural = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

const who = (info) => info?.user || (info ? 'anonymous' : 'server');

/** A row for a publication, which opens to show all of it. */
function publication({ data, offset, time, info, tags }) {
  const row = element('li');
  const details = element('details');
  const summary = element('summary');
  const text = JSON.stringify(data) ?? '';
  summary.append(
    element('time', '', clock(time)),
    element('span', 'offset', offset ? `#${offset}` : ''),
    element('span', 'who', who(info)),
    element('code', '', text.slice(0, PREVIEW_MAX)),
  );
  details.append(summary);
  details.addEventListener('toggle', () => {
    if (!details.open || details.childElementCount > 1) return;
    const full = JSON.stringify(data, null, 2) ?? '';
    details.append(element('pre', '', full.length > DATA_MAX ? `${full.slice(0, DATA_MAX)}\n…` : full));
    const facts = [
      info && `client ${info.client}`,
      info?.conn_info !== undefined && `info ${JSON.stringify(info.conn_info)}`,
      tags && `tags ${JSON.stringify(tags)}`,
    ].filter(Boolean);
    if (facts.length) details.append(element('p', 'more-facts', facts.join(' · ')));
  });
  row.append(details);
  return row;
}

/** A row for a client that came or went. */
function movement(kind, info) {
  const row = element('li', 'movement');
  row.append(
    element('time', '', clock()),
    element('span', 'offset'),
    element('span', 'who', who(info)),
    element('span', '', kind === 'join' ? 'joined' : 'left'),
  );
  return row;
}

export class Channel {
  /** `fail` handles errors of requests; `confirm` asks before something is disconnected or removed. */
  constructor({ fail, confirm }) {
    Object.assign(this, { fail, confirm, name: null, tab: 'live' });
    const tabs = [...document.querySelectorAll('[role=tab]')];
    tabs.forEach((tab, index) => {
      tab.addEventListener('click', () => this.select(tab.id.slice('tab-'.length)));
      tab.addEventListener('keydown', ({ key }) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
        if (!step) return;
        const next = tabs[(index + step + tabs.length) % tabs.length];
        next.focus();
        next.click();
      });
    });
    $('pause').addEventListener('click', () => this.pause(!this.isPaused));
    $('clear').addEventListener('click', () => this.clear());
    $('history-again').addEventListener('click', () => this.loadHistory());
    $('older').addEventListener('click', () => this.loadHistory(this.oldest));
    $('history-remove').addEventListener('click', () => this.removeHistory());
    $('publish').addEventListener('submit', (event) => {
      event.preventDefault();
      this.publish();
    });
  }

  /** Shows a channel, or none. */
  open(name) {
    if (this.name === name) return;
    this.name = name;
    $('channel').hidden = name === null;
    this.abort?.abort();
    if (name === null) return;
    $('channel-name').textContent = name;
    $('channel-facts').textContent = '';
    $('history').replaceChildren();
    $('members').replaceChildren();
    $('published').textContent = '';
    this.clear();
    this.pause(false);
    this.select('live');
    this.listen();
  }

  close() {
    this.open(null);
  }

  /** Shows figures from the list of channels. */
  describe(channel) {
    const clients = channel?.clients ?? 0;
    const facts = [plural(clients, 'subscriber')];
    if (channel?.position) facts.push(`offset ${channel.position.offset}`, `epoch ${channel.position.epoch}`);
    $('channel-facts').textContent = facts.join(' · ');
  }

  select(tab) {
    this.tab = tab;
    for (const button of document.querySelectorAll('[role=tab]')) {
      const isSelected = button.id === `tab-${tab}`;
      button.setAttribute('aria-selected', isSelected);
      button.tabIndex = isSelected ? 0 : -1;
      $(button.getAttribute('aria-controls')).hidden = !isSelected;
    }
    if (tab === 'history') this.loadHistory();
    if (tab === 'present') this.loadMembers();
  }

  /** To be called every few seconds. */
  refresh() {
    if (this.name !== null && this.tab === 'present') this.loadMembers();
  }

  // Live

  /** Follows the channel until another one is opened. Starts again if the connection is lost. */
  async listen() {
    const { name } = this;
    const abort = new AbortController();
    this.abort = abort;
    while (!abort.signal.aborted) {
      try {
        for await (const lines of tap(name, abort.signal)) {
          if (abort.signal.aborted) return;
          this.tapState = 'Live';
          this.receive(lines);
        }
        this.tapState = 'Connecting again';
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof SignedOut) {
          this.fail(error);
          return;
        }
        this.tapState = error instanceof TypeError ? 'Connecting again' : error.message;
      }
      this.showState();
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }

  receive(lines) {
    for (const line of lines) {
      if (line.dropped) {
        this.droppedCount += line.dropped;
        const row = element('li', 'gap', `${plural(line.dropped, 'publication')} dropped here: this page reads too slowly`);
        this.waiting.push(row);
        continue;
      }
      const push = line.push ?? {};
      if (push.pub) {
        this.seen += 1;
        this.waiting.push(push.pub);
      } else if (push.join || push.leave) {
        this.waiting.push(push.join ? movement('join', push.join.info) : movement('leave', push.leave.info));
      }
    }
    // A row that would be removed at once is not made.
    this.waiting.splice(0, Math.max(0, this.waiting.length - LIVE_MAX));
    if (!this.isPaused) this.draw();
    this.showState();
  }

  draw() {
    const rows = this.waiting.map((entry) => (entry instanceof Node ? entry : publication(entry)));
    this.waiting = [];
    $('live').prepend(...rows.reverse());
    while ($('live').childElementCount > LIVE_MAX) $('live').lastElementChild.remove();
    $('live-none').hidden = $('live').childElementCount > 0;
  }

  showState() {
    const waiting = this.isPaused && this.waiting.length ? ` · ${this.waiting.length} new` : '';
    $('tap-state').textContent = `${this.isPaused ? 'Paused' : this.tapState} · ${this.seen} received${waiting}`;
    $('tap-state').dataset.live = this.tapState === 'Live' && !this.isPaused;
    $('dropped').hidden = this.droppedCount === 0;
    $('dropped').textContent = `Dropped, because this page reads too slowly: ${plural(this.droppedCount, 'publication')}.`;
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    $('pause').setAttribute('aria-pressed', isPaused);
    $('pause').textContent = isPaused ? 'Continue' : 'Pause';
    if (!isPaused) this.draw();
    this.showState();
  }

  clear() {
    Object.assign(this, { waiting: [], seen: 0, droppedCount: 0, tapState: this.tapState ?? 'Connecting' });
    $('live').replaceChildren();
    $('live-none').hidden = false;
    this.showState();
  }

  // History

  async loadHistory(since) {
    const { name } = this;
    try {
      const { publications, offset, epoch } = await history(name, since);
      if (name !== this.name) return;
      const rows = publications.map(publication);
      if (since) $('history').append(...rows);
      else $('history').replaceChildren(...rows);
      const oldest = publications.at(-1)?.offset;
      this.oldest = oldest > 1 && publications.length === PAGE ? { offset: oldest, epoch } : null;
      $('older').hidden = !this.oldest;
      const shown = $('history').childElementCount;
      $('history-state').textContent = shown ? `${shown} shown · offset ${offset}` : `Empty · offset ${offset}`;
    } catch (error) {
      if (name !== this.name) return;
      $('history').replaceChildren();
      $('older').hidden = true;
      this.explain($('history-state'), error);
    }
  }

  async removeHistory() {
    const { name } = this;
    const answer = await this.confirm({
      title: 'Remove the history?',
      text: `All publications in the history of ${name} are removed. Clients that missed some of them cannot recover.`,
      yes: 'Remove all',
    });
    if (!answer) return;
    try {
      await call('history_remove', { channel: name });
      this.loadHistory();
    } catch (error) {
      this.explain($('history-state'), error);
    }
  }

  // Members

  async loadMembers() {
    const { name } = this;
    try {
      const { presence = {} } = await call('presence', { channel: name });
      if (name !== this.name) return;
      const members = Object.values(presence);
      members.sort((a, b) => who(a).localeCompare(who(b)) || a.client.localeCompare(b.client));
      const key = JSON.stringify(members.map(({ client }) => client));
      const users = new Set(members.map(who)).size;
      const more = members.length > MEMBERS_MAX ? ` · ${MEMBERS_MAX} shown` : '';
      $('present-state').textContent = `${plural(members.length, 'client')} · ${plural(users, 'user')}${more}`;
      // Unchanged rows keep the focus.
      if (this.membersKey === `${name} ${key}` && $('members').childElementCount) return;
      this.membersKey = `${name} ${key}`;
      $('members').replaceChildren(...members.slice(0, MEMBERS_MAX).map((member) => this.member(member)));
    } catch (error) {
      if (name !== this.name) return;
      $('members').replaceChildren();
      this.explain($('present-state'), error, 'This namespace has no presence.');
    }
  }

  member(info) {
    const row = element('li');
    const text = element('div');
    text.append(element('strong', '', who(info)), element('code', 'client', info.client));
    const more = info.conn_info ?? info.chan_info;
    if (more !== undefined) text.append(element('code', 'info', JSON.stringify(more).slice(0, PREVIEW_MAX)));
    const button = element('button', 'quiet danger', 'Disconnect');
    button.type = 'button';
    button.setAttribute('aria-label', `Disconnect ${who(info)}, client ${info.client}`);
    button.addEventListener('click', () => this.disconnect(info));
    row.append(text, button);
    return row;
  }

  async disconnect({ user, client }) {
    const answer = await this.confirm({
      title: 'Disconnect the client?',
      text: `Client ${client} of ${user || 'an anonymous user'} leaves all its channels.`,
      yes: 'Disconnect',
      reconnect: true,
    });
    if (!answer) return;
    try {
      await call('disconnect', { user: user ?? '', client, ...answer.disconnect });
      this.loadMembers();
    } catch (error) {
      this.explain($('present-state'), error);
    }
  }

  // Publish

  async publish() {
    const status = $('published');
    let data;
    try {
      data = JSON.parse($('data').value);
    } catch (error) {
      status.className = 'error';
      status.textContent = `This is not JSON: ${error.message}`;
      return;
    }
    try {
      const { offset } = await call('publish', { channel: this.name, data, skip_history: $('skip').checked });
      status.className = 'done';
      status.textContent = offset ? `Published at offset ${offset}.` : 'Published.';
    } catch (error) {
      this.explain(status, error);
    }
  }

  explain(status, error, notAvailable) {
    if (error instanceof SignedOut) {
      this.fail(error);
      return;
    }
    status.className = 'error';
    status.textContent = notAvailable && error.message.includes('(108)') ? notAvailable : error.message;
  }
}
