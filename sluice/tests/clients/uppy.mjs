/**
 * Uploads a clip with Uppy in a browser, from a page of another origin than the service's.
 *
 *   node uppy.mjs BASE TOKEN CLIP
 *
 * Prints a line of JSON for each video.
 */

import { inChromium, PATIENCE_MS, servePage } from './elsewhere.mjs';
import { createVideo, uploaded } from './sluice.mjs';

const [base, token, clip] = process.argv.slice(2);

const page = await servePage('uppy-page.mjs', '<input type="file">');
await inChromium(async (browser) => {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(PATIENCE_MS);
  await tab.goto(page.address);
  await tab.setInputFiles('input', clip);
  await send(tab, 'from a page elsewhere', {});
  await send(tab, 'from a page elsewhere, in chunks', { chunkSize: 1024 * 1024 });
  await send(tab, 'from a page elsewhere, in parts', { parallelUploads: 3 });
}).finally(page.close);

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
