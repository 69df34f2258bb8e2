/**
 * What a walk in a browser needs: a page of another origin than the service's, and Chromium to open it. CHROMIUM names
 * the browser where it is not /usr/bin/chromium.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

/** Long, because tests share their machine. */
export const PATIENCE_MS = 180_000;

/** Serves a page that shows `body` and runs the script of this name, then `start`. What it POSTs goes to `told`. */
export async function servePage(name, body, { start = '', told = () => {} } = {}) {
  const script = `${await bundle(name)}${start}`;
  const page = `<!doctype html><title>Elsewhere</title>${body}<script src="/page.js"></script>`;
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') told(JSON.parse(Buffer.concat(await request.toArray()).toString()));
    const isScript = request.url === '/page.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : page);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { address: `http://localhost:${server.address().port}/`, close };
}

/** Chromium is there until `walk` has ended. */
export async function inChromium(walk) {
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
    await walk(browser);
  } finally {
    await browser.close();
  }
}

async function bundle(name) {
  const bundled = await build({
    entryPoints: [fileURLToPath(new URL(name, import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    preserveSymlinks: true,
    logLevel: 'error',
  });
  return bundled.outputFiles[0].text;
}
