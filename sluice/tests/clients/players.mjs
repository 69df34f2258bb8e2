/**
 * Watches a film with players that other people made, in a browser, from a page of another origin than the service's:
 * plays, seeks to twenty places, changes the quality to each that there is, and looks at the picture above the seek bar.
 *
 *   node players.mjs BASE VIDEO SEED [PLAYER]
 *
 * CHROMIUM names the browser where it is not /usr/bin/chromium. Prints a line of JSON for each player.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

/** Long, because tests share their machine. */
const PATIENCE_MS = 120_000;
const SEEKS = 20;

const [base, video, seed, only] = process.argv.slice(2);
const at = `${base}/stream/videos/${video}`;
const hls = `${at}/master.m3u8`;
const dash = `${at}/manifest.mpd`;
const ranges = `${dash}?addressing=ranges`;
const cues = `${at}/storyboard.vtt`;

const WATCHERS = [
  ['hls.js', 'hlsJs', { url: hls }],
  ['shaka, HLS', 'shakaPlayer', { url: hls, cues }],
  ['shaka, DASH', 'shakaPlayer', { url: dash }],
  ['shaka, DASH by ranges', 'shakaPlayer', { url: ranges }],
  ['dash.js', 'dashJs', { url: dash }],
  ['dash.js by ranges', 'dashJs', { url: ranges }],
];

const bundled = await build({
  entryPoints: [fileURLToPath(new URL('players-page.mjs', import.meta.url))],
  bundle: true,
  write: false,
  format: 'iife',
  preserveSymlinks: true,
  logLevel: 'error',
});
const script = bundled.outputFiles[0].text;
const page = '<!doctype html><title>Elsewhere</title><video></video><script src="/page.js"></script>';
const elsewhere = createServer((request, response) => {
  const isScript = request.url === '/page.js';
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
  response.end(isScript ? script : page);
});
elsewhere.listen(0, '127.0.0.1');
await once(elsewhere, 'listening');

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--autoplay-policy=no-user-gesture-required',
  ],
});
try {
  for (const watcher of WATCHERS.filter(([name]) => !only || name === only)) await watch(...watcher);
} finally {
  await browser.close();
  elsewhere.close();
}

async function watch(name, player, source) {
  const tab = await browser.newPage();
  const refused = [];
  tab.on('response', (response) => {
    if (response.url().startsWith(base) && response.status() >= 400) refused.push(`${response.status()} ${response.url()}`);
  });
  tab.setDefaultTimeout(PATIENCE_MS);
  await tab.goto(`http://localhost:${elsewhere.address().port}/`);
  const watched = tab.evaluate(
    ([player, source, seed, seeks]) => window.watch(player, source, seed, seeks),
    [player, source, Number(seed), SEEKS],
  );
  const seen = await Promise.race([watched, tooLong(name)]);
  if (refused.length > 0) throw new Error(`${name}: ${refused.join(', ')}`);
  console.log(JSON.stringify({ player: name, ...seen }));
  await tab.close();
}

async function tooLong(name) {
  await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS).unref());
  throw new Error(`${name}: not done within ${PATIENCE_MS / 1000} s`);
}
