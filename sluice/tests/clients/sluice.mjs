/** What every walk needs of the service itself. */

export async function createVideo(base, token, title) {
  const answer = await fetch(`${base}/api/videos`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ title }),
  });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.json();
}

/** Addresses that a player opens as they are: of a private video, signed. */
export async function playback(base, token, video) {
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${base}/api/videos/${video}/playback`, { headers });
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.json();
}

/** One line for the test that started us. */
export function uploaded(way, video) {
  console.log(JSON.stringify({ way, video }));
}
