/** Addresses in answers, as this browser can reach them. */

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * A server that was not told its public address names itself by its loopback address. Seen from a page that was
 * opened under another name of the same server, that is this very server.
 */
export function reachable(address: string, here: { origin: string; hostname: string; port: string } = location): string {
  const url = new URL(address, here.origin);
  const isOurs = LOOPBACK.has(url.hostname) && (url.port === here.port || !LOOPBACK.has(here.hostname));
  return isOurs ? here.origin + url.pathname + url.search : url.href;
}
