/**
 * Uploads a clip with Uppy in a browser, from a page of another origin than the service's.
 *
 *   node uppy.mjs BASE TOKEN CLIP
 *
 * CHROMIUM names the browser where it is not /usr/bin/chromium. Prints a line of JSON for each video.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

import { createVideo, uploaded } from './sluice.mjs';

const PATIENCE_MS = 120_000;

const PAGE = `
  import Uppy from '@uppy/core';
  import Tus from '@uppy/tus';

  window.send = (file, meta, endpoint, options) => {
    const uppy = new Uppy().use(Tus, { endpoint, ...options, allowedMetaFields: ['video_id', 'name'] });
    uppy.addFile({ name: file.name, type: file.type, data: file, meta });
    return uppy.upload().then(({ failed }) => failed.map(({ error }) => String(error)));
  };
`;

const [base, token, clip] = process.argv.slice(2);

const bundled = await build({
  stdin: { contents: PAGE, resolveDir: process.cwd() },
  bundle: true,
  write: false,
  format: 'iife',
  logLevel: 'error',
});
const script = bundled.outputFiles[0].text;
const page = '<!doctype html><title>Elsewhere</title><input type="file"><script src="/page.js"></script>';
const elsewhere = createServer((request, response) => {
  const isScript = request.url === '/page.js';
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
  response.end(isScript ? script : page);
});
elsewhere.listen(0, '127.0.0.1');
await once(elsewhere, 'listening');

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking'],
});
try {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(PATIENCE_MS);
  await tab.goto(`http://localhost:${elsewhere.address().port}/`);
  await tab.setInputFiles('input', clip);
  await send(tab, 'from a page elsewhere', {});
  await send(tab, 'from a page elsewhere, in chunks', { chunkSize: 1024 * 1024 });
  await send(tab, 'from a page elsewhere, in parts', { parallelUploads: 3 });
} finally {
  await browser.close();
  elsewhere.close();
}

async function send(tab, way, options) {
  const video = await createVideo(base, token, way);
  const { tus_url: endpoint, token: place } = video.upload;
  const failed = await tab.evaluate(
    ([meta, endpoint, options]) => window.send(document.querySelector('input').files[0], meta, endpoint, options),
    [{ video_id: video.id }, endpoint, { ...options, headers: { authorization: `Bearer ${place}` } }],
  );
  if (failed.length > 0) throw new Error(`${way}: ${failed}`);
  uploaded(way, video.id);
}
