/** The parts of the page that are plain functions. Vite, which is here anyway, turns them into JavaScript. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { createServer } from 'vite';

let vite;
let format;
let events;
let Problem;
let stageOf;
let reachable;

before(async () => {
  vite = await createServer({
    root: fileURLToPath(new URL('..', import.meta.url)),
    configFile: false,
    logLevel: 'error',
    appType: 'custom',
    server: { middlewareMode: true, ws: false, watch: null },
    optimizeDeps: { noDiscovery: true },
  });
  format = await vite.ssrLoadModule('/src/format.ts');
  ({ events } = await vite.ssrLoadModule('/src/events.ts'));
  ({ Problem } = await vite.ssrLoadModule('/src/problem.ts'));
  ({ reachable } = await vite.ssrLoadModule('/src/address.ts'));
  ({ stageOf } = await vite.ssrLoadModule('/src/stage.ts'));
});

after(() => vite.close());

test('sizes change their unit before four digits', () => {
  assert.equal(format.bytes(999), '999 bytes');
  assert.equal(format.bytes(1000), '1.0 kB');
  assert.equal(format.bytes(999_999), '1.0 MB');
  assert.equal(format.bytes(10_737_418_240), '11 GB');
});

test('no percentage says that all is done', () => {
  assert.equal(format.percent(0), '0 %');
  assert.equal(format.percent(0.429), '42 %');
  assert.equal(format.percent(1), '99 %');
});

test('lengths read as in players', () => {
  assert.equal(format.clock(7.2), '0:07');
  assert.equal(format.clock(750), '12:30');
  assert.equal(format.clock(3723), '1:02:03');
});

test('a title comes from the name of the file, within the limit of characters', () => {
  assert.equal(format.titleOf('my_holiday.final.mp4'), 'my holiday.final');
  assert.equal(format.titleOf('.mp4'), 'Untitled');
  assert.equal([...format.titleOf(`${'🎬'.repeat(200)}.mp4`)].length, 128);
});

test('events are read wherever the network cut them', async () => {
  const wire = ': hello\n\nevent: state\ndata: {"state":"processing"}\n\nevent: progress\r\ndata: {"progress":0.5}\r\n\r\ndata: é';
  const expected = [
    { name: 'state', data: '{"state":"processing"}' },
    { name: 'progress', data: '{"progress":0.5}' },
  ];
  for (const piece_bytes of [1, 2, 3, 7, 1000]) assert.deepEqual(await read(wire, piece_bytes), expected);
});

test('a problem keeps the words of the server', () => {
  const problem = Problem.of(
    400,
    JSON.stringify({ title: 'Bad field', detail: 'Mend it.', errors: [{ field: 'title', message: 'is empty' }] }),
    '7',
  );
  assert.equal(problem.title, 'Bad field');
  assert.deepEqual(problem.fields, [{ field: 'title', message: 'is empty' }]);
  assert.equal(problem.retry_after_s, 7);
});

test('an answer that is not ours is told apart', () => {
  assert.match(Problem.of(413, '<html>too large</html>', null).detail, /proxy/i);
});

test('a refusal is told in the words of the server, and a finished video needs none', () => {
  const error = { type: '/problems/media-not-media', title: 'The file is not a video', detail: 'It holds text.' };
  const { label, detail, tone } = stageOf({ state: 'rejected', error });
  assert.deepEqual({ label, detail, tone }, { label: error.title, detail: error.detail, tone: 'bad' });
  assert.equal(stageOf({ state: 'ready', error: null }), null);
});

test('what is being done is told with the time it takes', () => {
  const at = (video) => stageOf({ error: null, progress: 0.41, ...video });
  const { label, detail } = at({ state: 'processing', stage: 'encoding', eta_s: 130 });
  assert.deepEqual({ label, detail }, { label: 'Processing 41 %', detail: 'Encoding · about 2 min left' });
  assert.equal(at({ state: 'playable', stage: 'assembling', eta_s: null }).detail, 'Putting it together (41 %)');
  assert.equal(at({ state: 'playable' }).detail, 'More versions are coming (41 %)');
});

test('a server that knows itself by its loopback address is reached by the name that the page has', () => {
  const at = (address, here) => reachable(address, new URL(here));
  const media = 'http://127.0.0.1:8000/stream/videos/1?rendition=low';
  const path = '/stream/videos/1?rendition=low';
  assert.equal(at(media, 'http://127.0.0.1:8000'), media);
  assert.equal(at(media, 'http://localhost:8000'), `http://localhost:8000${path}`);
  assert.equal(at(media, 'http://192.168.1.5:8000'), `http://192.168.1.5:8000${path}`);
  assert.equal(at(media, 'https://v.example'), `https://v.example${path}`);
  assert.equal(at('http://127.0.0.1:9000/a', 'http://localhost:8000'), 'http://127.0.0.1:9000/a');
  assert.equal(at('https://cdn.example/a', 'https://v.example'), 'https://cdn.example/a');
});

async function read(wire, piece_bytes) {
  const all = new TextEncoder().encode(wire);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < all.length; at += piece_bytes) controller.enqueue(all.slice(at, at + piece_bytes));
      controller.close();
    },
  });
  const found = [];
  for await (const event of events(body)) found.push(event);
  return found;
}
