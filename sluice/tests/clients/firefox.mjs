/**
 * Plays the progressive file in Firefox, from a page of another origin than the service's, and seeks in it. The page tells
 * by itself how it went, so that the browser needs no driver.
 *
 *   node firefox.mjs BASE VIDEO SEED
 *
 * FIREFOX names the browser where it is not /usr/bin/firefox-esr. Prints a line of JSON.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const PATIENCE_MS = 180_000;
const SEEKS = 20;

const [base, video, seed] = process.argv.slice(2);
const source = { url: `${base}/stream/videos/${video}` };

const bundled = await build({
  entryPoints: [fileURLToPath(new URL('players-page.mjs', import.meta.url))],
  bundle: true,
  write: false,
  format: 'iife',
  preserveSymlinks: true,
  logLevel: 'error',
});
const start = `
  const tell = (said) => fetch('/done', { method: 'POST', body: JSON.stringify(said) });
  window.watch('file', ${JSON.stringify(source)}, ${Number(seed)}, ${SEEKS}).then(tell, (error) => tell({ error: error.message }));
`;
const page = '<!doctype html><title>Elsewhere</title><video></video><script src="/page.js"></script>';
let told;
const done = new Promise((resolve) => {
  told = resolve;
});
const elsewhere = createServer(async (request, response) => {
  if (request.method === 'POST') told(JSON.parse(Buffer.concat(await request.toArray()).toString()));
  const isScript = request.url === '/page.js';
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
  response.end(isScript ? bundled.outputFiles[0].text + start : page);
});
elsewhere.listen(0, '127.0.0.1');
await once(elsewhere, 'listening');

const profile = await mkdtemp(join(tmpdir(), 'firefox-'));
const address = `http://localhost:${elsewhere.address().port}/`;
const firefox = spawn(
  process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  ['--headless', '--no-remote', '--profile', profile, address],
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
elsewhere.closeAllConnections();
elsewhere.close();
await rm(profile, { recursive: true, force: true });
if (said.error) throw new Error(said.error);
console.log(JSON.stringify({ player: 'Firefox', ...said }));
