// Runs cases in a worker: `[name, base]` is answered with null, or with why the case failed.

import load, { run } from './page.js';

const loaded = load({ module_or_path: 'page_bg.wasm' });
onmessage = async ({ data: [name, base] }) => {
  await loaded;
  run(name, base).then(() => postMessage(null), (error) => postMessage(String(error)));
};
