/** Who is signed in. Kept in localStorage, so that a reload and other tabs know too. */

export interface User {
  id: string;
  username: string;
  display_name: string | null;
  avatar_url: string | null;
  role?: string;
}

export interface Session {
  token: string;
  expires_at: string;
  user: User;
}

const KEY = 'sluice.session';

class SessionStore extends EventTarget {
  #current: Session | null = read();

  constructor() {
    super();
    // Another tab signed in or out.
    addEventListener('storage', (event) => {
      if (event.key === KEY || event.key === null) this.#become(read());
    });
  }

  get user(): User | null {
    return this.#current?.user ?? null;
  }

  get token(): string | null {
    return this.#current?.token ?? null;
  }

  start(session: Session): void {
    localStorage.setItem(KEY, JSON.stringify(session));
    this.#become(session);
  }

  end(): void {
    localStorage.removeItem(KEY);
    this.#become(null);
  }

  #become(session: Session | null): void {
    const same = session?.token === this.#current?.token;
    this.#current = session;
    if (!same) this.dispatchEvent(new Event('change'));
  }
}

function read(): Session | null {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? 'null') as Session | null;
    return stored && Date.parse(stored.expires_at) > Date.now() ? stored : null;
  } catch {
    return null;
  }
}

export const session = new SessionStore();
