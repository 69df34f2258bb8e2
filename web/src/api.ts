/** The server's HTTP contract as typed functions. Every failure is a `Problem`. */

import { reachable } from './address';
import { Problem } from './problem';
import { session, type Session, type User } from './session';

export type VideoState =
  | 'awaiting_upload'
  | 'uploading'
  | 'uploaded'
  | 'processing'
  | 'playable'
  | 'ready'
  | 'expired'
  | 'rejected'
  | 'failed'
  | 'deleted';

export type Visibility = 'public' | 'unlisted' | 'private';

export interface Rendition {
  name: string;
  state: 'pending' | 'ready';
  width: number | null;
  height: number | null;
  size_bytes: number | null;
  codecs: string | null;
  url: string | null;
}

export interface UploadTarget {
  url: string;
  token: string;
  max_bytes: number;
}

export interface Video {
  id: string;
  author: User;
  title: string;
  description: string;
  visibility: Visibility;
  state: VideoState;
  progress: number | null;
  /** What the server does for it; absent where nothing is done. */
  stage?: 'waiting' | 'checking' | 'encoding' | 'assembling' | null;
  eta_s?: number | null;
  duration_s: number | null;
  width: number | null;
  height: number | null;
  play_url: string | null;
  hls_url: string | null;
  cover_url: string | null;
  thumbhash: string | null;
  renditions: Rendition[];
  counts: { views: number; likes: number; comments: number };
  /** What was odd about the file, a sentence each. */
  warnings: string[];
  error: { type: string; title: string; detail: string } | null;
  upload?: UploadTarget | null;
  created_at: string;
  published_at: string | null;
}

export interface Comment {
  id: string;
  author: User;
  content: string;
  created_at: string;
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export type VideoPatch = Partial<Pick<Video, 'title' | 'description' | 'visibility'>>;

export const isWatchable = (state: VideoState): boolean => state === 'playable' || state === 'ready';

/** The server is at work on it and will tell of progress. */
export const isMoving = (state: VideoState): boolean =>
  state === 'uploaded' || state === 'processing' || state === 'playable';

export const register = (username: string, password: string): Promise<User> =>
  request('POST', '/api/users', { body: { username, password }, anonymous: true });

export const logIn = (username: string, password: string): Promise<Session> =>
  request('POST', '/api/sessions', { body: { username, password }, anonymous: true });

export const logOut = (): Promise<void> => request('DELETE', '/api/sessions');

export const setUp = (token: string, username: string, password: string): Promise<unknown> =>
  request('POST', '/api/setup', { body: { token, username, password }, anonymous: true });

export const publicVideos = (cursor: string | null, signal: AbortSignal): Promise<Page<Video>> =>
  request('GET', `/api/videos?${paging(cursor)}`, { signal });

export const videosOf = (user: string, cursor: string | null, signal: AbortSignal): Promise<Page<Video>> =>
  request('GET', `/api/users/${encodeURIComponent(user)}/videos?${paging(cursor)}`, { signal });

export const createVideo = (title: string): Promise<Video> => request('POST', '/api/videos', { body: { title } });

export const video = (id: string, signal?: AbortSignal): Promise<Video> =>
  request('GET', videoPath(id), signal ? { signal } : {});

export const updateVideo = (id: string, patch: VideoPatch): Promise<Video> =>
  request('PATCH', videoPath(id), { body: patch });

export const deleteVideo = (id: string): Promise<void> => request('DELETE', videoPath(id));

export const comments = (id: string, cursor: string | null, signal: AbortSignal): Promise<Page<Comment>> =>
  request('GET', `${videoPath(id)}/comments?${paging(cursor)}`, { signal });

export const addComment = (id: string, content: string): Promise<Comment> =>
  request('POST', `${videoPath(id)}/comments`, { body: { content } });

export const deleteComment = (id: string, comment: string): Promise<void> =>
  request('DELETE', `${videoPath(id)}/comments/${encodeURIComponent(comment)}`);

/** The stream of a video's state and progress; its body is `text/event-stream`. */
export const videoEvents = (id: string, signal: AbortSignal): Promise<Response> =>
  send('GET', `${videoPath(id)}/events`, { signal, accept: 'text/event-stream' });

/** A picture that only its owner may fetch, for an `<img>`, which cannot carry a token. */
export const picture = async (url: string, signal: AbortSignal): Promise<Blob> =>
  (await send('GET', url, { signal, accept: 'image/*' })).blob();

/** The header that proves who asks, for addresses of this server only: a token never goes elsewhere. */
export function bearer(url: string): string | null {
  const ours = new URL(url, location.href).origin === location.origin;
  return ours && session.token ? `Bearer ${session.token}` : null;
}

interface Options {
  body?: unknown;
  signal?: AbortSignal;
  accept?: string;
  /** What is asked before one is known, or to become another. */
  anonymous?: boolean;
}

async function request<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options);
  const text = await response.text();
  return (text === '' ? undefined : JSON.parse(text, asReachable)) as T;
}

async function send(method: string, path: string, options: Options): Promise<Response> {
  const { body, signal, accept, anonymous } = options;
  const headers = new Headers({ Accept: accept ?? 'application/json' });
  const authorization = anonymous ? null : bearer(path);
  if (authorization) headers.set('Authorization', authorization);
  if (body !== undefined) headers.set('Content-Type', 'application/json');
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? null : JSON.stringify(body),
    signal: signal ?? null,
  });
  if (response.ok) return response;
  // The session ended elsewhere: forget it, so that the page offers to log in again.
  if (response.status === 401 && authorization) session.end();
  throw Problem.of(response.status, await response.text(), response.headers.get('Retry-After'));
}

function asReachable(key: string, value: unknown): unknown {
  const isAddress = (key === 'url' || key.endsWith('_url')) && typeof value === 'string';
  return isAddress ? reachable(value) : value;
}

function videoPath(id: string): string {
  return `/api/videos/${encodeURIComponent(id)}`;
}

function paging(cursor: string | null): string {
  return cursor === null ? 'limit=24' : `limit=24&cursor=${encodeURIComponent(cursor)}`;
}
