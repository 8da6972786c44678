// What the scripts for the pages of the real-time server share: windows, labels, screenshots.

import { strict as assert } from 'node:assert';

export const DESK = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 780, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
/** The smallest window in which nothing may be cut off, and a large one. */
const WIDTHS = [320, 768, 1920];

/** Faults that the pages reported, in all windows. */
export const errors = [];

/** A window with its own profile. */
export async function open(browser, who, viewport, address) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => errors.push(`${who}: ${error}`));
  page.on('console', (message) => {
    if (message.text().includes('Content Security Policy')) errors.push(`${who}: ${message.text()}`);
  });
  page.on('request', (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol.startsWith('http') && host !== new URL(address).host) errors.push(`${who}: requests ${request.url()}`);
  });
  await page.setViewport(viewport);
  await page.goto(address);
  return page;
}

export const field = (page, label) => page.locator(`::-p-aria([name="${label}"][role="textbox"])`);
export const button = (page, label) => page.locator(`::-p-aria([name="${label}"][role="button"])`);

/** Waits until the part of the page that `selector` names shows this text. */
export const shows = (page, selector, text) =>
  page.waitForFunction((selector, text) => document.querySelector(selector)?.textContent.includes(text), {}, selector, text);
export const showsNot = (page, selector, text) =>
  page.waitForFunction((selector, text) => !document.querySelector(selector)?.textContent.includes(text), {}, selector, text);
/** Waits until the text of an element, as a number, passes a test. */
export const measures = (page, selector, test, ...values) => page.waitForFunction(
  (selector, test, values) => {
    const text = document.querySelector(selector)?.textContent ?? '';
    const number = Number.parseFloat(text.replace('−', '-'));
    // Milliseconds, where both units occur.
    const value = text.trim().endsWith(' s') ? number * 1000 : number;
    return test === 'above' ? value > values[0] : value < values[0];
  }, {}, selector, test, values,
);

export const connected = (page) => page.waitForSelector('[data-state=connected]');
export const away = (page) => page.waitForSelector('[data-state]:not([data-state=connected])');

/** Takes pictures in both colour schemes, and checks that nothing is wider than the window. */
export async function picture(page, path) {
  for (const scheme of ['light', 'dark']) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    // Animations have finished.
    await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
    await page.screenshot({ path: `${path}-${scheme}.png` });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  }
}

/** Checks that no width of the window makes the page scroll sideways. */
export async function fits(page) {
  const before = page.viewport();
  for (const width of WIDTHS) {
    await page.setViewport({ width, height: 800 });
    await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
    const [inner, scroll] = await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
    assert.ok(scroll <= inner, `${scroll} pixels in ${inner}`);
  }
  await page.setViewport(before);
}

/** Checks that every control has a name for screen readers. */
export async function named(page) {
  const { children } = await page.accessibility.snapshot();
  const controls = ['button', 'textbox', 'searchbox', 'slider', 'checkbox', 'radio', 'link', 'combobox'];
  const nameless = [];
  const visit = (node) => {
    if (controls.includes(node.role) && !node.name) nameless.push(node.role);
    for (const child of node.children ?? []) visit(child);
  };
  children.forEach(visit);
  assert.deepEqual(nameless, []);
}
