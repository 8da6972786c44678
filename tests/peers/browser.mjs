// Starts Chromium for the other scripts.

import puppeteer from 'puppeteer-core';

/** A fresh profile, no window, and nothing that talks to the outside. It ends with this program. */
export function launch() {
  return puppeteer.launch({
    executablePath: process.env.SOCKEYE_TOOL_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    // Over a pipe, so that no port is opened and the browser exits with this program.
    pipe: true,
    acceptInsecureCerts: true,
    args: [
      '--no-sandbox', // As root Chromium refuses to run with it.
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-dev-shm-usage',
    ],
  });
}
