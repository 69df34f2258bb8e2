/** The bar at the top: the name, and who is signed in. */

import { signIn, signOut } from './account';
import { h, replace } from './dom';
import { session } from './session';

export function header(): HTMLElement {
  const account = h('div', { class: 'account' });
  const render = (): void => replace(account, ...(session.user ? inside(session.user.username) : outside()));
  session.addEventListener('change', render);
  render();
  const mark = h('img', { src: '/favicon.svg', alt: '', width: 28, height: 28 });
  const home = h('a', { class: 'brand', href: '/#/', 'aria-label': 'Sluice, all videos' }, mark, h('span', {}, 'Sluice'));
  return h('header', { class: 'top' }, h('div', { class: 'top-inner' }, home, account));
}

function outside(): HTMLElement[] {
  return [
    h('button', { class: 'button button-quiet', type: 'button', click: () => void signIn('login') }, 'Log in'),
    h('button', { class: 'button button-main', type: 'button', click: () => void signIn('register') }, 'Create account'),
  ];
}

function inside(username: string): HTMLElement[] {
  return [
    h('span', { class: 'account-name', title: `Signed in as ${username}` }, username),
    h('button', { class: 'button button-quiet', type: 'button', click: () => void signOut() }, 'Log out'),
  ];
}
