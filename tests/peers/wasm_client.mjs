// The crate sockeye in a page of headless Chromium.
// usage: node wasm_client.mjs ADDRESS
// ADDRESS, such as 127.0.0.1:4711, serves both the page and the WebSockets.

import { launch } from './browser.mjs';
import { check, finish } from './report.mjs';

const address = process.argv[2];
const browser = await launch();
const page = await browser.newPage();
page.on('pageerror', (error) => console.error(`page: ${error}`));
page.on('console', (message) => console.error(`console: ${message.text()}`));

await page.goto(`http://${address}/index.html`);
await page.waitForFunction('window.ready');
for (const name of await page.evaluate('cases()')) {
  await check(name, async () => {
    const failure = await page.evaluate(
      (name, base) => run(name, base).then(() => null, (error) => String(error)), name, `ws://${address}`,
    );
    if (failure !== null) throw new Error(failure);
  });
}

await browser.close();
finish();
