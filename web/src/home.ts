/** The first view: a place to drop a file, one's own videos, and everyone else's. */

import { signIn } from './account';
import * as api from './api';
import { VideoCard, type CardContext } from './card';
import { DropZone } from './drop';
import { h } from './dom';
import { Feed } from './feed';
import { session } from './session';
import type { Upload, UploadQueue } from './upload';

export function homeView(uploads: UploadQueue, signal: AbortSignal): HTMLElement {
  const user = session.user;
  const drop = new DropZone((files) => void receive(files, uploads), signal);
  const context: CardContext = {
    uploads,
    signal,
    chooseFile: (video) =>
      drop.choose(([file]) => {
        if (file) uploads.add(file, video);
      }),
  };
  const card = (video: api.Video): HTMLElement => new VideoCard(context, video).element;
  const feeds: Feed[] = [];
  // While there is nothing to see, the place to drop a file is the page.
  const settle = (): void => {
    drop.element.classList.toggle('drop-large', feeds.every((feed) => feed.isEmpty));
  };

  if (user) feeds.push(ownFeed(user.id, context, card, settle));
  feeds.push(
    new Feed(
      {
        heading: user ? 'From others' : 'Videos',
        page: (cursor) => api.publicVideos(cursor, signal),
        card,
        keep: (video) => video.author.id !== user?.id,
      },
      settle,
    ),
  );
  for (const feed of feeds) void feed.read();
  settle();
  return h('main', { class: 'home' }, drop.element, ...feeds.map((feed) => feed.element));
}

function ownFeed(
  user: string,
  context: CardContext,
  card: (video: api.Video) => HTMLElement,
  settle: () => void,
): Feed {
  const { uploads, signal } = context;
  const feed = new Feed(
    {
      heading: 'Your videos',
      page: (cursor) => api.videosOf(user, cursor, signal),
      card,
      keep: (video) => uploads.of(video.id) === undefined,
    },
    settle,
  );
  const shown = new Set<Upload>();
  const showNew = (): void => {
    for (const upload of uploads.all.toReversed()) {
      if (upload.owner !== user || shown.has(upload)) continue;
      shown.add(upload);
      feed.element.querySelector(`[data-video="${upload.video?.id ?? 'none'}"]`)?.remove();
      feed.prepend(new VideoCard(context, null, upload).element);
    }
  };
  uploads.addEventListener('change', showNew, { signal });
  showNew();
  return feed;
}

/** A stranger's file is kept while they sign in, and sent when they have. */
async function receive(files: File[], uploads: UploadQueue): Promise<void> {
  if (!session.user && !(await signIn('register'))) return;
  for (const file of files) uploads.add(file);
}
