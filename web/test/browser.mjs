/**
 * Goes the whole way in a real browser: registers, uploads a clip through the page, and sees it play,
 * as an adaptive stream and as one file. Fails on anything the page's console calls an error.
 *
 *   node test/browser.mjs --base http://127.0.0.1:8000 --clip clip.mp4 --screenshot page.png
 *
 * CHROMIUM names the browser where it is not /usr/bin/chromium.
 */

import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

/** Long, because tests share their machine. */
const PAGE_PATIENCE_MS = 60_000;
const PIPELINE_PATIENCE_MS = 180_000;

/** So much of the film must have gone by before it counts as playing. */
const WATCHED_S_MIN = 1;

const { values: options } = parseArgs({
  options: {
    base: { type: 'string' },
    clip: { type: 'string' },
    screenshot: { type: 'string' },
  },
});

if (!options.base || !options.clip) {
  console.error('usage: node test/browser.mjs --base URL --clip FILE [--screenshot FILE]');
  process.exit(64);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--autoplay-policy=no-user-gesture-required',
  ],
});

try {
  await goTheWholeWay(await browser.newPage({ viewport: { width: 1280, height: 860 } }));
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function goTheWholeWay(page) {
  const complaints = listenForComplaints(page);
  page.setDefaultTimeout(PAGE_PATIENCE_MS);
  try {
    await page.goto(options.base);
    await register(page);
    await upload(page);
    await openOnceWatchable(page);
    const adaptive = await watch(page, 'adaptive', 'hls.js');
    await screenshot(page);
    const file = await watch(page, 'file', 'file');
    console.log(`played ${adaptive.toFixed(1)} s adaptively, ${file.toFixed(1)} s as one file`);
  } catch (error) {
    await screenshot(page);
    throw new Error(`${error.message}\nconsole: ${complaints.join('\n') || 'silent'}`, { cause: error });
  }
  if (complaints.length > 0) throw new Error(`the page complained:\n${complaints.join('\n')}`);
}

/** A refused script, style or connection is told on the console, so the content policy is tested with the rest. */
function listenForComplaints(page) {
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(`uncaught: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(`${message.text()} (${message.location().url})`);
  });
  return complaints;
}

async function register(page) {
  await page.getByRole('button', { name: 'Create account' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Username').fill(`browser_${Date.now().toString(36)}`);
  await dialog.getByLabel('Password').fill('correct horse battery');
  await dialog.getByRole('button', { name: 'Create account' }).last().click();
  await page.getByRole('button', { name: 'Log out' }).waitFor();
}

async function upload(page) {
  const choosing = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: 'choose a file' }).click();
  await (await choosing).setFiles(options.clip);
  await page.locator('.card').first().waitFor();
}

async function openOnceWatchable(page) {
  const card = page.locator('.card').first();
  const watchable = card.locator('.card-title[href]');
  const refused = card.locator('.stage[data-tone="bad"]:not([hidden])');
  await watchable.or(refused).first().waitFor({ timeout: PIPELINE_PATIENCE_MS });
  if (await refused.isVisible()) throw new Error(`not accepted: ${await refused.innerText()}`);
  await watchable.click();
}

/** Chooses the way of playing and waits until time passes in the film; returns how far it came. */
async function watch(page, mode, engine) {
  const video = page.locator('video');
  const holds = (condition, value) => page.waitForFunction(condition, value, { timeout: PAGE_PATIENCE_MS });
  await page.locator(`[data-choose="${mode}"]`).click();
  await page.locator(`.player[data-mode="${mode}"][data-engine="${engine}"]`).waitFor();
  await holds(() => document.querySelector('video').readyState >= HTMLMediaElement.HAVE_FUTURE_DATA);
  await video.evaluate((element) => {
    element.muted = true;
    element.currentTime = 0;
    // A short film may be over by now.
    return element.play();
  });
  // A seek alone moves the time too, so the start is taken only once the picture runs from there.
  await holds(() => {
    const { seeking, paused, currentTime } = document.querySelector('video');
    return !seeking && !paused && currentTime > 0;
  });
  const from_s = await video.evaluate((element) => element.currentTime);
  await holds((until_s) => {
    const { videoWidth, currentTime } = document.querySelector('video');
    return videoWidth > 0 && currentTime >= until_s;
  }, from_s + WATCHED_S_MIN);
  return video.evaluate((element) => element.currentTime);
}

async function screenshot(page) {
  if (options.screenshot) await page.screenshot({ path: options.screenshot });
}
