// The landing page: code to connect with, and a channel to try it on.

import { Connection, showState } from './connection.js';
import * as snippets from './snippets.js';

const CHANNEL = 'room:demo';
const SHOWN_MAX = 6;

const $ = (id) => document.getElementById(id);

snippets.fill($('snippet-javascript'), snippets.javascript(CHANNEL));
snippets.fill($('snippet-curl'), snippets.curl(CHANNEL));

const connection = new Connection({});
showState(connection, $('state'));
const channel = connection.subscription(CHANNEL);
channel.on('publication', ({ data }) => show(data));
channel.subscribe();
connection.connect();

function show(data) {
  const item = document.createElement('li');
  const time = document.createElement('time');
  time.textContent = new Date().toLocaleTimeString();
  const text = JSON.stringify(data);
  item.append(time, text.length > 300 ? `${text.slice(0, 300)}…` : text);
  $('live').append(item);
  while ($('live').childElementCount > SHOWN_MAX) $('live').firstElementChild.remove();
  $('live-empty').hidden = true;
}

$('publish').onsubmit = async (event) => {
  event.preventDefault();
  const text = $('text').value;
  $('text').value = '';
  try {
    await channel.publish({ text });
  } catch (error) {
    $('text').value = text;
    $('live-empty').hidden = false;
    $('live-empty').textContent = `Not published: ${error.message}.`;
  }
};
