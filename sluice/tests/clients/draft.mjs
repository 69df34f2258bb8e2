/**
 * Uploads a clip with tus-js-client as it speaks the IETF's draft (-05, interop version 6).
 *
 *   node draft.mjs BASE TOKEN CLIP
 *
 * Prints a line of JSON for each video that was uploaded; fails on the first error.
 */

import { createReadStream, readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';

import { Upload } from 'tus-js-client';

import { createVideo, uploaded } from './sluice.mjs';

const CHUNK_BYTES = 1024 * 1024;

const [base, token, clip] = process.argv.slice(2);
const bytes = readFileSync(clip);

const ways = {
  'in one request after an empty one': (video) => upload(bytes, options(video)),
  'in chunks': (video) => upload(bytes, { ...options(video), chunkSize: CHUNK_BYTES }),
  'with data in the first request': (video) =>
    upload(bytes, { ...options(video), uploadDataDuringCreation: true, chunkSize: CHUNK_BYTES }),
  'all in the first request': (video) => upload(bytes, { ...options(video), uploadDataDuringCreation: true }),
  'of a length that is said last': (video) =>
    upload(createReadStream(clip).pipe(new PassThrough()), { ...options(video), uploadLengthDeferred: true, chunkSize: CHUNK_BYTES }),
  'with another method in its name': (video) =>
    upload(bytes, { ...options(video), overridePatchMethod: true, chunkSize: CHUNK_BYTES }),
  'broken off and gone on with': brokenOff,
};

for (const [way, run] of Object.entries(ways)) {
  const video = await createVideo(base, token, way);
  await run(video);
  uploaded(way, video.id);
}
await terminated();

function options(video) {
  return {
    protocol: 'ietf-draft-05',
    endpoint: video.upload.url,
    headers: { Authorization: `Bearer ${token}` },
    retryDelays: [0, 200, 1000],
    storeFingerprintForResuming: false,
  };
}

function upload(source, options) {
  return new Promise((onSuccess, onError) => new Upload(source, { ...options, onSuccess, onError }).start());
}

async function brokenOff(video) {
  const url = await afterOneChunk(video, (first) => first.abort());
  let again = 0;
  await upload(bytes, { ...options(video), uploadUrl: url, onChunkComplete: (size) => (again += size) });
  if (again >= bytes.length) throw new Error('all of it was sent again');
}

async function terminated() {
  const video = await createVideo(base, token, 'ended');
  const url = await afterOneChunk(video, (first) => first.abort(true));
  const headers = { Authorization: `Bearer ${token}`, 'Upload-Draft-Interop-Version': '6' };
  const answer = await fetch(url, { method: 'HEAD', headers });
  if (answer.status !== 410) throw new Error(`an upload that was ended: ${answer.status}`);
}

/** The address of an upload that was stopped there. */
function afterOneChunk(video, stop) {
  return new Promise((resolve, reject) => {
    const first = new Upload(bytes, {
      ...options(video),
      chunkSize: CHUNK_BYTES,
      onError: reject,
      onSuccess: () => reject(new Error('it was to be stopped')),
      onChunkComplete: () => {
        const { url } = first;
        stop(first).then(() => resolve(url), reject);
      },
    });
    first.start();
  });
}
