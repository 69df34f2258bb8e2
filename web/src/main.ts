/** Starts the page: the bar, the view that the address names, and the uploads that outlive a change of view. */

import './style/base.css';
import './style/controls.css';
import './style/feed.css';
import './style/watch.css';

import { h } from './dom';
import { header } from './header';
import { homeView } from './home';
import { mountNotices } from './notice';
import { session } from './session';
import { setupView } from './setup';
import { UploadQueue } from './upload';
import { watchView } from './watch';

const uploads = new UploadQueue();
const place = h('div', { class: 'place', id: 'content' });
let view = new AbortController();

function route(): void {
  // What the view before still does (requests, streams, listeners) ends with it.
  view.abort();
  view = new AbortController();
  document.title = 'Sluice';
  const main = viewAt(location.pathname, location.hash, view.signal);
  main.tabIndex = -1;
  place.replaceChildren(main);
}

function viewAt(path: string, hash: string, signal: AbortSignal): HTMLElement {
  if (path === '/setup') return setupView();
  const video = /^#\/v\/([\w-]+)$/.exec(hash)?.[1];
  return video ? watchView(video, signal) : homeView(uploads, signal);
}

const footer = h('footer', { class: 'foot' }, h('a', { href: '/docs' }, 'API'));

document.body.append(header(), place, footer);
mountNotices();
addEventListener('hashchange', () => {
  route();
  scrollTo(0, 0);
  // A link was followed within the page: readers of the screen are taken to where it leads.
  place.querySelector('main')?.focus({ preventScroll: true });
});
session.addEventListener('change', route);
route();
