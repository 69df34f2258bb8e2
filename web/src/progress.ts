/** Follows a video through the server's work: by its event stream, and by asking where that is not to be had. */

import * as api from './api';
import { events } from './events';
import { Problem } from './problem';

/** Browsers open six connections to a server; streams may not take the ones that uploads and playback need. */
const STREAMS_MAX = 2;

const POLL_MS = 2000;

let openStreams = 0;

/** Calls `tell` with each change until nothing more will happen, the video is gone (`null`), or `signal` aborts. */
export async function follow(
  id: string,
  signal: AbortSignal,
  tell: (video: api.Video | null) => void,
): Promise<void> {
  while (!signal.aborted) {
    let wait_ms = POLL_MS;
    try {
      if (openStreams < STREAMS_MAX) await listen(id, signal, tell);
      const video = await api.video(id, signal);
      tell(video);
      if (!api.isMoving(video.state)) return;
    } catch (error) {
      if (signal.aborted) return;
      const problem = Problem.from(error);
      if (problem.status === 404 || problem.status === 401) return tell(null);
      wait_ms = (problem.retry_after_s ?? 5) * 1000;
    }
    await pause(wait_ms, signal);
  }
}

/** Returns when the stream ends or breaks; the caller then asks how things stand. */
async function listen(id: string, signal: AbortSignal, tell: (video: api.Video) => void): Promise<void> {
  openStreams += 1;
  try {
    let video = await api.video(id, signal);
    tell(video);
    if (!api.isMoving(video.state)) return;
    const response = await api.videoEvents(id, signal);
    if (!response.body) return;
    for await (const event of events(response.body)) {
      const news = parse(event.data);
      if (typeof news.progress === 'number') {
        const { progress, stage = null, eta_s = null } = news as Pick<api.Video, 'progress' | 'stage' | 'eta_s'>;
        video = { ...video, progress, stage, eta_s };
      } else if (news.state !== video.state && event.name === 'state') {
        // A new state brings addresses, sizes or reasons with it.
        video = await api.video(id, signal);
      } else {
        continue;
      }
      tell(video);
    }
  } catch (error) {
    if (signal.aborted || error instanceof Problem) throw error;
    // The connection broke: asking goes on from here.
  } finally {
    openStreams -= 1;
  }
}

function parse(data: string): { progress?: unknown; state?: unknown } {
  try {
    return (JSON.parse(data) as object | null) ?? {};
  } catch {
    return {};
  }
}

/** Ends early when `signal` aborts. */
function pause(delay_ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, delay_ms);
    signal.addEventListener('abort', end);
  });
}
