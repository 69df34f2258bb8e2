/**
 * Uploads a clip with tus-js-client in all the ways it knows.
 *
 *   node tus.mjs BASE TOKEN CLIP
 *
 * Prints a line of JSON for each video that was uploaded; fails on the first error.
 */

import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';

import { Upload } from 'tus-js-client';

import { createVideo, uploaded } from './sluice.mjs';

const CHUNK_BYTES = 1024 * 1024;

const [base, token, clip] = process.argv.slice(2);
const bytes = readFileSync(clip);

const ways = {
  'in one request': (video) => upload(bytes, options(video)),
  'in chunks': (video) => upload(bytes, { ...options(video), chunkSize: CHUNK_BYTES }),
  'three parts at once': (video) =>
    upload(bytes, {
      ...options(video),
      parallelUploads: 3,
      chunkSize: CHUNK_BYTES,
      metadataForPartialUploads: { video_id: video.id },
    }),
  'three parts with the token of the upload': (video) =>
    upload(bytes, { ...options(video), headers: bearer(video.upload.token), parallelUploads: 3 }),
  'of a length that is said last': (video) =>
    // Of a stream of a file it announces more than it sends at the end; of any other it does not.
    upload(createReadStream(clip).pipe(new PassThrough()), { ...options(video), uploadLengthDeferred: true, chunkSize: CHUNK_BYTES }),
  'with data in the first request': (video) =>
    upload(bytes, { ...options(video), uploadDataDuringCreation: true, chunkSize: CHUNK_BYTES }),
  'with another method in its name': (video) =>
    upload(bytes, { ...options(video), overridePatchMethod: true, chunkSize: CHUNK_BYTES }),
  'with checksums': (video) => upload(bytes, { ...options(video), chunkSize: CHUNK_BYTES, onBeforeRequest: vouch }),
  'broken off and gone on with': brokenOff,
};

for (const [way, run] of Object.entries(ways)) {
  const video = await createVideo(base, token, way);
  await run(video);
  uploaded(way, video.id);
}
await wrongChecksum();
await terminated();

function options(video) {
  return {
    endpoint: video.upload.tus_url,
    headers: bearer(token),
    metadata: { video_id: video.id, filename: 'clip.mp4', filetype: 'video/mp4' },
    retryDelays: [0, 200, 1000],
    storeFingerprintForResuming: false,
  };
}

function bearer(token) {
  return { Authorization: `Bearer ${token}` };
}

function upload(source, options) {
  return new Promise((onSuccess, onError) => new Upload(source, { ...options, onSuccess, onError }).start());
}

/** The sum of the bytes that this request brings. */
function vouch(request) {
  if (request.getMethod() !== 'PATCH') return;
  const offset = Number(request.getHeader('Upload-Offset'));
  const sum = createHash('sha1').update(bytes.subarray(offset, offset + CHUNK_BYTES)).digest('base64');
  request.setHeader('Upload-Checksum', `sha1 ${sum}`);
}

async function brokenOff(video) {
  const url = await new Promise((resolve, reject) => {
    const first = new Upload(bytes, {
      ...options(video),
      chunkSize: CHUNK_BYTES,
      onError: reject,
      onSuccess: () => reject(new Error('it was to be broken off')),
      onChunkComplete: () => first.abort().then(() => resolve(first.url), reject),
    });
    first.start();
  });
  let again = 0;
  await upload(bytes, { ...options(video), uploadUrl: url, onChunkComplete: (size) => (again += size) });
  if (again >= bytes.length) throw new Error('all of it was sent again');
}

/** Nothing is kept of it, and the client hears why. */
async function wrongChecksum() {
  const video = await createVideo(base, token, 'with a wrong checksum');
  const wrong = (request) => {
    if (request.getMethod() === 'PATCH') request.setHeader('Upload-Checksum', 'sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=');
  };
  const error = await upload(bytes, { ...options(video), onBeforeRequest: wrong }).then(
    () => null,
    (error) => error,
  );
  if (error?.originalResponse?.getStatus() !== 460) throw new Error(`a wrong checksum: ${error}`);
}

async function terminated() {
  const video = await createVideo(base, token, 'ended');
  const url = await new Promise((resolve, reject) => {
    const first = new Upload(bytes, {
      ...options(video),
      chunkSize: CHUNK_BYTES,
      onError: reject,
      onSuccess: () => reject(new Error('it was to be ended')),
      onChunkComplete: () => first.abort(true).then(() => resolve(first.url ?? url), reject),
    });
    first.start();
  });
  if (url) {
    const answer = await fetch(url, { method: 'HEAD', headers: { ...bearer(token), 'Tus-Resumable': '1.0.0' } });
    if (![404, 410].includes(answer.status)) throw new Error(`an upload that was ended: ${answer.status}`);
  }
}
