/** The picture of a video: its thumbhash at once, the cover when it has come. */

import { thumbHashToRGBA } from 'thumbhash';

import * as api from './api';
import { h } from './dom';

/** Wide enough for a card on a dense screen; one of the widths that the server keeps. */
const CARD_WIDTH_PX = 480;

export function cover(video: api.Video, signal: AbortSignal): HTMLImageElement | null {
  if (!video.cover_url) return null;
  const image = h('img', { class: 'cover-image', alt: '', loading: 'lazy', decoding: 'async' });
  image.addEventListener('error', () => image.remove());
  const url = new URL(video.cover_url, location.href);
  url.searchParams.set('w', String(CARD_WIDTH_PX));
  if (video.visibility === 'private') void showPrivately(image, url.href, signal);
  else image.src = url.href;
  return image;
}

export function posterUrl(video: api.Video): string | null {
  return video.visibility === 'private' ? null : video.cover_url;
}

/** A blurred picture of thirty bytes, for the time until the cover has come, and for the room beside it. */
export function tint(video: api.Video): HTMLCanvasElement | null {
  if (!video.thumbhash) return null;
  try {
    const { w, h: height, rgba } = thumbHashToRGBA(Uint8Array.from(atob(video.thumbhash), (char) => char.charCodeAt(0)));
    const canvas = h('canvas', { class: 'cover-tint', width: w, height });
    canvas.getContext('2d')?.putImageData(new ImageData(new Uint8ClampedArray(rgba), w, height), 0, 0);
    return canvas;
  } catch {
    return null;
  }
}

async function showPrivately(image: HTMLImageElement, url: string, signal: AbortSignal): Promise<void> {
  try {
    const local = URL.createObjectURL(await api.picture(url, signal));
    image.addEventListener('load', () => URL.revokeObjectURL(local), { once: true });
    image.src = local;
  } catch {
    image.remove();
  }
}
