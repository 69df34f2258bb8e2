/** The page that players run in: each behind the same few words. */

import { MediaPlayer } from 'dashjs';
import Hls from 'hls.js';
import shaka from 'shaka-player';

const STEP_PATIENCE_MS = 20_000;
/** So much of the film must go by before it counts as playing. */
const WATCHED_S_MIN = 0.3;
/** A picture above the seek bar may be as far away as two of them are apart. */
const PICTURE_AWAY_S_MAX = 2.5;

const PLAYERS = { file, hlsJs, shakaPlayer, dashJs };

/** What a player has: `heights`, of the qualities there are, `choose(height)`, `hover(time_s)`, and `complaints`. */
window.watch = async (name, source, seed, seeks) => {
  const element = document.querySelector('video');
  element.muted = true;
  const player = await PLAYERS[name](element, source);
  let doing = 'play';
  try {
    await plays(element);
    doing = 'seek';
    for (const place of places(seed, seeks, element.duration - 2)) {
      doing = `seek to ${place}`;
      element.currentTime = place;
      await until(() => !element.seeking && element.currentTime >= place - 0.1 && element.currentTime < place + 10);
      await plays(element);
    }
    const heights = player.heights();
    const shown = [];
    for (const height of [...heights, heights[0]]) {
      doing = `show ${height} lines`;
      if (element.currentTime > element.duration / 2) element.currentTime = 1;
      player.choose(height);
      await until(() => element.videoHeight === height);
      await plays(element);
      shown.push(element.videoHeight);
    }
    doing = 'hover';
    const pictures = [];
    for (const place of places(seed + 1, 3, element.duration - 2)) pictures.push(await player.hover(place));
    if (player.complaints.length > 0) throw new Error(player.complaints.join('; '));
    return { duration_s: element.duration, seeks, shown, pictures };
  } catch (error) {
    const buffered = [...Array(element.buffered.length)].map((_, i) => [element.buffered.start(i), element.buffered.end(i)]);
    const state = { at_s: element.currentTime, ready: element.readyState, height: element.videoHeight, buffered };
    throw new Error(`${doing}: ${error.message} ${JSON.stringify(state)} ${player.complaints.join('; ')}`);
  }
};

/** No player at all: one quality, and no pictures. */
async function file(element, { url }) {
  const complaints = [];
  element.addEventListener('error', () => complaints.push(element.error.message));
  element.src = url;
  await until(() => element.readyState >= 1 || complaints.length > 0);
  return { complaints, heights: () => [element.videoHeight], choose: () => {}, hover: async () => null };
}

async function hlsJs(element, { url, token }) {
  const xhrSetup = (request) => request.setRequestHeader('authorization', `Bearer ${token}`);
  const hls = new Hls(token ? { xhrSetup } : {});
  const complaints = [];
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (data.fatal || /append|parsing/i.test(data.details)) complaints.push(`${data.details} ${data.error?.message}`);
  });
  hls.attachMedia(element);
  hls.loadSource(url);
  await new Promise((resolve) => hls.once(Hls.Events.MANIFEST_PARSED, resolve));
  const small = document.body.appendChild(document.createElement('video'));
  let keyframes;
  return {
    complaints,
    heights: () => hls.levels.map((level) => level.height),
    choose: (height) => {
      hls.currentLevel = hls.levels.findIndex((level) => level.height === height);
    },
    hover: async (time_s) => {
      if (!keyframes) {
        keyframes = hls.createIFramePlayer();
        keyframes.attachMedia(small);
        keyframes.on(Hls.Events.ERROR, (_, data) => complaints.push(`keyframes: ${data.details}`));
      }
      const isShown = () => {
        return small.readyState >= 2 && !small.seeking && Math.abs(small.currentTime - time_s) <= PICTURE_AWAY_S_MAX;
      };
      // As a pointer does that moves: a call that comes while another picture is put in place is not always heard.
      const moves = setInterval(() => isShown() || keyframes.loadMediaAt(time_s), 250);
      // A frame that is ready is painted a moment later.
      let size;
      const isPainted = () => {
        try {
          size = seen(small, [0, 0, small.videoWidth, small.videoHeight]);
        } catch {
          size = null;
        }
        return size !== null;
      };
      await until(() => isShown() && isPainted()).finally(() => clearInterval(moves));
      return size;
    },
  };
}

async function shakaPlayer(element, { url, cues }) {
  shaka.polyfill.installAll();
  const player = new shaka.Player();
  const complaints = [];
  player.addEventListener('error', ({ detail }) => complaints.push(`${detail.code} ${detail.data}`));
  await player.attach(element);
  player.configure({ abr: { enabled: false } });
  await player.load(url).catch(({ code, data }) => {
    throw new Error(`load: ${code} ${data}`);
  });
  if (cues) await player.addThumbnailsTrack(cues, 'text/vtt');
  const place = async (track, time_s) => {
    const found = await player.getThumbnails(track, time_s);
    if (Math.abs(found.startTime - time_s) > PICTURE_AWAY_S_MAX) throw new Error(`a picture of ${found.startTime}`);
    const place = [found.positionX, found.positionY, found.width, found.height];
    seen(await image(found.uris[0]), place);
    return place;
  };
  return {
    complaints,
    heights: () => [...new Set(player.getVariantTracks().map((track) => track.height))],
    choose: (height) => {
      player.selectVariantTrack(player.getVariantTracks().find((track) => track.height === height), true);
    },
    hover: async (time_s) => {
      // Those of the manifest, and of the cues where there are some.
      const tracks = player.getImageTracks();
      if (tracks.length !== (cues ? 2 : 1)) throw new Error(`${tracks.length} tracks of pictures`);
      const places = await Promise.all(tracks.map(({ id }) => place(id, time_s)));
      if (new Set(places.map(String)).size !== 1) throw new Error(`pictures at ${places.join(' and at ')}`);
      return places[0].slice(2);
    },
  };
}

async function dashJs(element, { url }) {
  const player = MediaPlayer().create();
  const complaints = [];
  player.on('error', ({ error }) => complaints.push(`${error.code} ${error.message}`));
  player.initialize(element, url, false);
  player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
  await new Promise((resolve) => player.on('streamInitialized', resolve));
  const qualities = () => player.getRepresentationsByType('video');
  return {
    complaints,
    heights: () => qualities().map((quality) => quality.height),
    choose: (height) => {
      player.setRepresentationForTypeById('video', qualities().find((quality) => quality.height === height).id, true);
    },
    hover: async (time_s) => {
      const found = await new Promise((resolve) => player.provideThumbnail(time_s, resolve));
      if (!found) throw new Error('no picture');
      return seen(await image(found.url), [found.x, found.y, found.width, found.height]);
    },
  };
}

async function plays(element) {
  const before = element.currentTime;
  await element.play();
  await until(() => element.currentTime > before + WATCHED_S_MIN || element.ended);
}

async function image(url) {
  const picture = new Image();
  picture.crossOrigin = 'anonymous';
  picture.src = url;
  await picture.decode();
  return picture;
}

/** The part of a picture that a player names must lie within it, and be more than one colour. */
function seen(picture, [x, y, width, height]) {
  const [whole_width, whole_height] = [picture.naturalWidth ?? picture.videoWidth, picture.naturalHeight ?? picture.videoHeight];
  if (!(width > 0 && height > 0) || x + width > whole_width || y + height > whole_height) {
    throw new Error(`${width}x${height} at ${x},${y} of ${whole_width}x${whole_height}`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  context.drawImage(picture, x, y, width, height, 0, 0, width, height);
  const colours = new Set(new Uint32Array(context.getImageData(0, 0, width, height).data.buffer));
  if (colours.size < 50) throw new Error(`a picture of ${colours.size} colours`);
  return [width, height];
}

/** Of a film, in seconds: the same for the same seed (mulberry32). */
function places(seed, count, end_s) {
  let state = seed;
  return [...Array(count)].map(() => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end_s;
  });
}

async function until(isSo) {
  const patience = performance.now() + STEP_PATIENCE_MS;
  while (!isSo()) {
    if (performance.now() > patience) throw new Error(`not within ${STEP_PATIENCE_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
