/** What went wrong, in the words of RFC 9457, whoever said it: the server, a proxy on the way, or the network. */

export interface FieldError {
  field: string;
  message: string;
}

interface ProblemBody {
  type?: string;
  title?: string;
  detail?: string;
  request_id?: string;
  errors?: FieldError[];
}

export class Problem extends Error {
  override name = 'Problem';

  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly fields: FieldError[] = [],
    readonly request_id: string | null = null,
    readonly retry_after_s: number | null = null,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }

  /** `text` is the body of an answer that was not a success. */
  static of(status: number, text: string, retryAfter: string | null): Problem {
    const body = parse(text);
    const retry_after_s = retryAfter === null ? null : Number(retryAfter) || null;
    if (!body?.title) return Problem.foreign(status, retry_after_s);
    return new Problem(
      status,
      body.title,
      body.detail ?? '',
      body.errors ?? [],
      body.request_id ?? null,
      retry_after_s,
    );
  }

  static offline(): Problem {
    return new Problem(0, 'The server cannot be reached', 'Check the connection, then try again.');
  }

  /** Anything that was thrown, as something that can be shown. */
  static from(error: unknown): Problem {
    if (error instanceof Problem) return error;
    if (error instanceof TypeError) return Problem.offline();
    return new Problem(0, 'Something went wrong in this page', String(error));
  }

  /** An answer without a problem body comes from something in front of the server. */
  private static foreign(status: number, retry_after_s: number | null): Problem {
    const detail =
      status === 413
        ? 'A proxy in front of the server refuses files of this size. Its operator can raise the limit.'
        : 'Something in front of the server answered in its place. Try again in a moment.';
    return new Problem(status, `The request failed (${status})`, detail, [], null, retry_after_s);
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

function parse(text: string): ProblemBody | null {
  try {
    return JSON.parse(text) as ProblemBody;
  } catch {
    return null;
  }
}
