/** One video: the player, what is known about it, and what its owner may do with it. */

import * as api from './api';
import { deleteVideo } from './card';
import { Comments } from './comments';
import { openDialog } from './dialog';
import { h, replace } from './dom';
import { field, form, input } from './form';
import * as format from './format';
import { icon } from './icons';
import { notify } from './notice';
import { Player } from './player';
import { Problem } from './problem';
import { follow } from './progress';
import { session } from './session';
import { stageOf } from './stage';

export function watchView(id: string, signal: AbortSignal): HTMLElement {
  const main = h('main', { class: 'watch' }, h('p', { class: 'watch-wait', role: 'status' }, 'Loading…'));
  api
    .video(id, signal)
    .then((video) => show(main, video, signal))
    .catch((error: unknown) => {
      if (!signal.aborted) showProblem(main, Problem.from(error));
    });
  return main;
}

function show(main: HTMLElement, video: api.Video, signal: AbortSignal): void {
  document.title = `${video.title} – Sluice`;
  if (api.isWatchable(video.state)) return showPlayer(main, video, signal);
  showStage(main, video);
  if (!api.isMoving(video.state)) return;
  const own = new AbortController();
  void follow(video.id, AbortSignal.any([signal, own.signal]), (now) => {
    if (now === null) return showProblem(main, new Problem(404, 'This video is gone', 'It was deleted.'));
    if (!api.isWatchable(now.state)) return showStage(main, now);
    own.abort();
    showPlayer(main, now, signal);
  });
}

function showPlayer(main: HTMLElement, video: api.Video, signal: AbortSignal): void {
  const player = new Player(video, signal);
  const comments = new Comments(video, signal);
  const news = video.state === 'playable' && offerMore(video, player, signal);
  replace(main, player.element, news, ...about(video), comments.element);
  void player.play('adaptive');
  void comments.read();
}

/** Offers the other qualities once they are there; the picture that is running is left alone until asked. */
function offerMore(video: api.Video, player: Player, signal: AbortSignal): HTMLElement {
  const news = h('div', { class: 'watch-news', role: 'status' }, 'More qualities are being made.');
  void follow(video.id, signal, (now) => {
    if (now === null) return news.remove();
    if (now.state !== 'ready') return;
    const click = (): void => {
      news.remove();
      void player.renew(now);
    };
    const use = h('button', { class: 'button button-small', type: 'button', click }, 'Use them');
    replace(news, 'More qualities are ready.', use);
  });
  return news;
}

function about(video: api.Video): HTMLElement[] {
  const author = video.author.display_name ?? video.author.username;
  const facts = [author, format.ago(video.published_at ?? video.created_at)];
  if (video.counts.views > 0) facts.push(format.count(video.counts.views, 'view'));
  if (video.visibility !== 'public') facts.push(video.visibility);
  const head = h(
    'div',
    { class: 'watch-head' },
    h('div', {}, h('h1', { class: 'watch-title' }, video.title), h('p', { class: 'watch-facts' }, facts.join(' · '))),
    actions(video),
  );
  const parts: HTMLElement[] = [head];
  if (video.description) parts.push(h('p', { class: 'watch-description' }, video.description));
  if (isMine(video)) parts.push(...video.warnings.map((warning) => h('p', { class: 'watch-warning' }, icon('alert'), warning)));
  return parts;
}

function actions(video: api.Video): HTMLElement {
  const row = h('div', { class: 'watch-actions' });
  row.append(action('link', 'Copy link', () => void copyLink(video)));
  if (video.play_url && video.visibility !== 'private') row.append(downloadLink(video.play_url));
  if (isMine(video)) {
    row.append(action('edit', 'Edit', () => edit(video)));
    row.append(action('trash', 'Delete', () => void remove(video)));
  }
  return row;
}

function isMine(video: api.Video): boolean {
  return video.author.id === session.user?.id;
}

function action(name: 'link' | 'edit' | 'trash', label: string, click: () => void): HTMLElement {
  return h('button', { class: 'button', type: 'button', click }, icon(name), label);
}

function downloadLink(play_url: string): HTMLElement {
  const url = new URL(play_url, location.href);
  url.searchParams.set('download', '1');
  return h('a', { class: 'button', href: url.href, download: true }, icon('download'), 'Download');
}

async function copyLink(video: api.Video): Promise<void> {
  const link = `${location.origin}/#/v/${video.id}`;
  try {
    await navigator.clipboard.writeText(link);
    notify('The link is copied.');
  } catch {
    // No clipboard without HTTPS: show it to be copied by hand.
    const text = input({ type: 'text', readonly: true, value: link, 'aria-label': 'Link to this video' });
    openDialog('Link to this video', text);
    text.select();
  }
}

function edit(video: api.Video): void {
  const title = input({ type: 'text', required: true, maxlength: 128, value: video.title });
  const description = h('textarea', { class: 'input', rows: 5, maxlength: 5000 }, video.description);
  const visibility = h('select', { class: 'select' });
  visibility.append(
    h('option', { value: 'public' }, 'Public: in everyone’s list'),
    h('option', { value: 'unlisted' }, 'Unlisted: for those who have the link'),
    h('option', { value: 'private' }, 'Private: for you alone'),
  );
  visibility.value = video.visibility;
  const children = [
    field('Title', 'title', title),
    field('Description', 'description', description),
    field('Who may see it', 'visibility', visibility),
  ];
  const { element } = openDialog(
    'Edit video',
    form('Save', children, async (values) => {
      await api.updateVideo(video.id, values as api.VideoPatch);
      element.close();
      dispatchEvent(new HashChangeEvent('hashchange'));
    }),
  );
}

async function remove(video: api.Video): Promise<void> {
  if (await deleteVideo(video)) location.hash = '#/';
}

function showStage(main: HTMLElement, video: api.Video): void {
  const stage = stageOf(video);
  if (!stage) return;
  const panel = h(
    'section',
    { class: 'panel', 'data-tone': stage.tone },
    h('h1', { class: 'panel-title' }, video.title),
    h('p', { class: 'panel-label' }, stage.label),
    h('p', { class: 'panel-detail' }, stage.detail),
    h('a', { class: 'button', href: '#/' }, icon('back'), 'All videos'),
  );
  replace(main, panel);
}

function showProblem(main: HTMLElement, problem: Problem): void {
  const missing = problem.status === 404 || problem.status === 400;
  replace(
    main,
    h(
      'section',
      { class: 'panel', 'data-tone': 'bad' },
      icon('alert'),
      h('h1', { class: 'panel-title' }, missing ? 'This video is not here' : problem.title),
      h('p', { class: 'panel-detail' }, missing ? 'It was deleted, is private, or the link is not complete.' : problem.detail),
      h('a', { class: 'button', href: '#/' }, icon('back'), 'All videos'),
    ),
  );
}
