/**
 * Plays the progressive file in Firefox, from a page of another origin than the service's, and seeks in it. The page tells
 * by itself how it went, so that the browser needs no driver.
 *
 *   node firefox.mjs BASE TOKEN SEED VIDEO
 *
 * FIREFOX names the browser where it is not /usr/bin/firefox-esr. Prints a line of JSON.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { PATIENCE_MS, servePage } from './elsewhere.mjs';
import { playback } from './sluice.mjs';

const SEEKS = 20;

const [base, token, seed, video] = process.argv.slice(2);
const lent = await playback(base, token, video);
const source = { url: lent.play_url };

const start = `
  const tell = (said) => fetch('/done', { method: 'POST', body: JSON.stringify(said) });
  window.watch('file', ${JSON.stringify(source)}, ${Number(seed)}, ${SEEKS}).then(tell, (error) => tell({ error: error.message }));
`;
let told;
const done = new Promise((resolve) => {
  told = resolve;
});
const page = await servePage('players-page.mjs', '<video></video>', { start, told });

const profile = await mkdtemp(join(tmpdir(), 'firefox-'));
const firefox = spawn(
  process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  ['--headless', '--no-remote', '--profile', profile, page.address],
  { stdio: 'ignore', env: { ...process.env, HOME: profile, MOZ_CRASHREPORTER_DISABLE: '1' } },
);
const gone = once(firefox, 'exit');
let patience;
const tooLong = new Promise((resolve) => {
  patience = setTimeout(() => resolve({ error: `not done within ${PATIENCE_MS / 1000} s` }), PATIENCE_MS);
});
const said = await Promise.race([done, tooLong, gone.then(() => ({ error: 'Firefox ended' }))]);
clearTimeout(patience);
firefox.kill();
await gone;
page.close();
await rm(profile, { recursive: true, force: true });
if (said.error) throw new Error(said.error);
console.log(JSON.stringify({ player: 'Firefox', is_private: lent.expires_at !== null, ...said }));
