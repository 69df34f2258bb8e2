const SIZES = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const;

export function bytes(count: number): string {
  let value = count;
  let step = 0;
  // What would be rounded to 1000 is 1 of the next.
  while (value >= 999.5 && step < SIZES.length - 1) {
    value /= 1000;
    step += 1;
  }
  const digits = step > 0 && value < 10 ? 1 : 0;
  return `${value.toFixed(digits)} ${SIZES[step] ?? ''}`;
}

/** Never says 100 before the thing is done: the last percent is for the server's word. */
export function percent(fraction: number): string {
  return `${Math.min(99, Math.floor(fraction * 100))} %`;
}

/** A length as players write it: 0:07, 12:30, 1:02:03. */
export function clock(duration_s: number): string {
  const whole_s = Math.max(0, Math.round(duration_s));
  const seconds = String(whole_s % 60).padStart(2, '0');
  const minutes = Math.floor(whole_s / 60) % 60;
  const hours = Math.floor(whole_s / 3600);
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}` : `${minutes}:${seconds}`;
}

/** A waiting time as people say it, coarser the longer it is. */
export function timeLeft(left_s: number): string {
  if (left_s < 1.5) return 'a second left';
  if (left_s < 60) return `${Math.round(left_s)} s left`;
  if (left_s < 3600) return `${Math.round(left_s / 60)} min left`;
  return `${(left_s / 3600).toFixed(1)} h left`;
}

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_557_600],
  ['month', 2_629_800],
  ['week', 604_800],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
];

export function ago(time: string): string {
  const past_s = (Date.now() - Date.parse(time)) / 1000;
  for (const [unit, unit_s] of UNITS) {
    if (past_s >= unit_s) return relative.format(-Math.floor(past_s / unit_s), unit);
  }
  return 'just now';
}

export function count(number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

/** `holiday_2026-07.final.mp4` → `holiday 2026-07.final`: a title to start with. */
export function titleOf(filename: string): string {
  const stem = filename.replace(/\.[^.]{1,5}$/, '').replace(/_+/g, ' ').trim();
  return [...(stem || 'Untitled')].slice(0, 128).join('');
}
