/**
 * Watches a film with players that other people made, in a browser, from a page of another origin than the service's:
 * plays, seeks to twenty places, changes the quality to each that there is, and looks at the picture above the seek bar.
 * A private film is watched by its links, which know no token, and then with its owner's token and no link.
 *
 *   node players.mjs BASE TOKEN SEED VIDEO [PLAYER]
 *
 * Prints a line of JSON for each player.
 */

import { inChromium, PATIENCE_MS, servePage } from './elsewhere.mjs';
import { playback } from './sluice.mjs';

const SEEKS = 20;

const [base, token, seed, video, only] = process.argv.slice(2);
const lent = await playback(base, token, video);
const { hls_url: hls, dash_url: dash, storyboard_url: cues } = lent;
const ranges = `${dash}${dash.includes('?') ? '&' : '?'}addressing=ranges`;
const isPrivate = lent.expires_at !== null;

const watchers = [
  ['hls.js', 'hlsJs', { url: hls }],
  ['shaka, HLS', 'shakaPlayer', { url: hls, cues }],
  ['shaka, DASH', 'shakaPlayer', { url: dash }],
  ['shaka, DASH by ranges', 'shakaPlayer', { url: ranges }],
  ['dash.js', 'dashJs', { url: dash }],
  ['dash.js by ranges', 'dashJs', { url: ranges }],
];
if (isPrivate) watchers.push(['hls.js with a token', 'hlsJs', { url: hls.split('?')[0], token }]);

const page = await servePage('players-page.mjs', '<video></video>');
await inChromium(async (browser) => {
  for (const watcher of watchers.filter(([name]) => !only || name === only)) await watch(browser, ...watcher);
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
  const seen = await Promise.race([watched, tooLong()]).catch((error) => {
    throw new Error(`${name}: ${error.message} ${refused.join(', ')}`);
  });
  if (refused.length > 0) throw new Error(`${name}: ${refused.join(', ')}`);
  console.log(JSON.stringify({ player: name, is_private: isPrivate, ...seen }));
  await tab.close();
}

async function tooLong() {
  await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS).unref());
  throw new Error(`not done within ${PATIENCE_MS / 1000} s`);
}
