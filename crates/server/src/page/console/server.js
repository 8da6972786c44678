// The requests of the console. The session is in a cookie that this script cannot read.

/** The session has ended. */
export class SignedOut extends Error {}

const HEADERS = { 'Sockeye-Console': '1' };

async function request(path, options = {}) {
  const response = await fetch(`/console${path}`, {
    cache: 'no-store',
    ...options,
    headers: { ...HEADERS, ...options.headers },
  });
  if (response.status === 401) throw new SignedOut();
  if (!response.ok) throw new Error((await response.text()).trim() || `HTTP ${response.status}`);
  return response;
}

const get = async (path, parameters) => (await request(`${path}?${new URLSearchParams(parameters)}`)).json();

const post = (path, body) => request(path, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
});

/** Starts a session. Throws an error with a message for the operator. */
export async function signIn(password) {
  try {
    await post('/login', { password });
  } catch (error) {
    if (error instanceof SignedOut) throw new Error('This is not the password.');
    throw error;
  }
}

export const signOut = () => post('/logout', {});

/** The samples from a number on. */
export const stats = (since) => get('/stats', { since });

export const channels = (pattern) => get('/channels', { pattern });

/** A page of the history, newest first, from the publications before a position. */
export const history = (channel, before) => get('/history', {
  channel, ...(before && { before: before.offset, epoch: before.epoch }),
});

/** A call of the HTTP API. */
export async function call(method, parameters) {
  const reply = await (await post(`/api/${method}`, parameters)).json();
  if (reply.error) throw new Error(`${reply.error.message} (${reply.error.code})`);
  return reply.result;
}

/** The lines of a live view, as they come, in batches. Ends when the server ends it. */
export async function* tap(channel, signal) {
  const response = await request(`/tap?${new URLSearchParams({ channel })}`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    yield lines.filter(Boolean).map((line) => JSON.parse(line));
  }
}
