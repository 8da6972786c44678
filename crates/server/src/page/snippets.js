// Code that connects one's own program to this server, and the buttons that copy it.

/** A program that shows what is published in a channel. */
export function javascript(channel) {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return [
    "import { Centrifuge } from 'centrifuge';",
    `const client = new Centrifuge('${scheme}//${location.host}/connection/websocket');`,
    `const channel = client.newSubscription(${quoted(channel)});`,
    "channel.on('publication', ({ data }) => console.log(data));",
    'channel.subscribe(); client.connect();',
  ].join('\n');
}

/** A command that publishes to a channel. */
export function curl(channel) {
  const body = JSON.stringify({ channel, data: { text: 'Hello from curl' } });
  return `curl ${location.origin}/api/publish \\\n  -H 'X-API-Key: KEY' \\\n  -d ${shellQuoted(body)}`;
}

/** Puts a text into a `.snippet`, and lets its button copy it. */
export function fill(element, text) {
  element.querySelector('code').textContent = text;
  const button = element.querySelector('.copy');
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(element.querySelector('code'));
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  };
}

const quoted = (text) => `'${text.replace(/[\\']/g, '\\$&')}'`;
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
