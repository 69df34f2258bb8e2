/** Logging in, registering and logging out. */

import * as api from './api';
import { openDialog } from './dialog';
import { h } from './dom';
import { field, form, input } from './form';
import { notifyProblem } from './notice';
import { session } from './session';

export type Door = 'login' | 'register';

/** Resolves to whether someone is signed in once the dialog is closed. */
export async function signIn(door: Door = 'login'): Promise<boolean> {
  const body = h('div', {});
  const { element, closed } = openDialog('Welcome to Sluice', body);
  const done = (): void => element.close();
  const show = (which: Door): void => {
    body.replaceChildren(doors(which, show), which === 'login' ? loginForm(done) : registerForm(done));
    body.querySelector('input')?.focus();
  };
  show(door);
  await closed;
  return session.user !== null;
}

export async function signOut(): Promise<void> {
  try {
    await api.logOut();
  } catch (error) {
    notifyProblem(error);
  }
  session.end();
}

/** Where the password managers of browsers look for them. */
export function usernameField(hint = ''): HTMLElement {
  const control = input({
    type: 'text',
    autocomplete: 'username',
    autocapitalize: 'none',
    spellcheck: 'false',
    required: true,
    maxlength: 254,
  });
  return field('Username', 'username', control, hint);
}

export function passwordField(kind: 'current-password' | 'new-password', hint = ''): HTMLElement {
  const control = input({ type: 'password', autocomplete: kind, required: true, maxlength: 128 });
  return field('Password', 'password', control, hint);
}

export async function enter(username: string, password: string): Promise<void> {
  session.start(await api.logIn(username, password));
}

function loginForm(done: () => void): HTMLElement {
  return form('Log in', [usernameField(), passwordField('current-password')], async ({ username, password }) => {
    await enter(username ?? '', password ?? '');
    done();
  });
}

function registerForm(done: () => void): HTMLElement {
  const children = [
    usernameField('3 to 32 of a–z, 0–9, “_” and “.”'),
    passwordField('new-password', 'At least 8 characters'),
  ];
  return form('Create account', children, async ({ username, password }) => {
    await api.register(username ?? '', password ?? '');
    await enter(username ?? '', password ?? '');
    done();
  });
}

function doors(current: Door, show: (which: Door) => void): HTMLElement {
  const door = (which: Door, label: string): HTMLElement =>
    h(
      'button',
      {
        class: 'segment',
        type: 'button',
        'aria-pressed': String(which === current),
        click: () => show(which),
      },
      label,
    );
  return h(
    'div',
    { class: 'segments', role: 'group', 'aria-label': 'Log in or register' },
    door('login', 'Log in'),
    door('register', 'Create account'),
  );
}
