/**
 * Watches a film with players that other people made, in a browser, from a page of another origin than the service's:
 * plays, seeks to twenty places, changes the quality to each that there is, and looks at the picture above the seek bar.
 *
 *   node players.mjs BASE VIDEO SEED [PLAYER]
 *
 * Prints a line of JSON for each player.
 */

import { inChromium, PATIENCE_MS, servePage } from './elsewhere.mjs';

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

const page = await servePage('players-page.mjs', '<video></video>');
await inChromium(async (browser) => {
  for (const watcher of WATCHERS.filter(([name]) => !only || name === only)) await watch(browser, ...watcher);
}).finally(page.close);

async function watch(browser, name, player, source) {
  const tab = await browser.newPage();
  const refused = [];
  tab.on('response', (response) => {
    if (response.url().startsWith(base) && response.status() >= 400) refused.push(`${response.status()} ${response.url()}`);
  });
  tab.setDefaultTimeout(PATIENCE_MS);
  await tab.goto(page.address);
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
