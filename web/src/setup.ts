/** The view behind the one-time link that the first start prints: choosing the administrator. */

import { enter, passwordField, usernameField } from './account';
import * as api from './api';
import { h } from './dom';
import { form } from './form';

export function setupView(): HTMLElement {
  const token = new URLSearchParams(location.hash.slice(1)).get('k');
  return h(
    'main',
    { class: 'setup' },
    h(
      'section',
      { class: 'panel' },
      h('h1', { class: 'panel-title' }, 'Set up Sluice'),
      ...(token ? choosing(token) : incomplete()),
    ),
  );
}

function choosing(token: string): HTMLElement[] {
  const children = [
    usernameField('3 to 32 of a–z, 0–9, “_” and “.”'),
    passwordField('new-password', 'At least 8 characters'),
  ];
  return [
    h('p', { class: 'panel-detail' }, 'Choose the name and password of the administrator. This link works once.'),
    form('Create administrator', children, async ({ username, password }) => {
      await api.setUp(token, username ?? '', password ?? '');
      await enter(username ?? '', password ?? '');
      location.replace('/');
    }),
  ];
}

function incomplete(): HTMLElement[] {
  return [
    h('p', { class: 'panel-detail' }, 'This address is not complete. Open the whole link that the server printed when it started.'),
    h('a', { class: 'button', href: '/' }, 'To the first page'),
  ];
}
