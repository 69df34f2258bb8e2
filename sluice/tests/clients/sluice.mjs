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

/** One line for the test that started us. */
export function uploaded(way, video) {
  console.log(JSON.stringify({ way, video }));
}
