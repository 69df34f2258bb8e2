/** The picture of a video: its thumbhash at once, the cover when it has come. */

import { thumbHashToDataURL } from 'thumbhash';

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

/** A blurred picture of thirty bytes, as the background of the box that the cover will fill. */
export function tint(box: HTMLElement, video: api.Video): void {
  box.style.backgroundImage = video.thumbhash ? `url(${placeholder(video.thumbhash)})` : '';
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

function placeholder(thumbhash: string): string {
  try {
    return thumbHashToDataURL(Uint8Array.from(atob(thumbhash), (char) => char.charCodeAt(0)));
  } catch {
    return '';
  }
}
