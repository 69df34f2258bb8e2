/** What a card says about a video that is on its way: one place for the words of every state. */

import type { Video } from './api';
import * as format from './format';
import type { Upload } from './upload';

export interface Stage {
  label: string;
  detail: string;
  /** How far this stage is, 0 to 1; null where that is unknown. */
  level: number | null;
  tone: 'moving' | 'waiting' | 'bad';
}

/** Null when nothing is worth saying: the video is simply there. */
export function stageOf(video: Video): Stage | null {
  switch (video.state) {
    case 'awaiting_upload':
    case 'uploading':
      return stage('Waiting for its file', 'The upload did not finish.', null, 'waiting');
    case 'uploaded':
      return stage('Uploaded', 'Waiting for its turn', null, 'moving');
    case 'processing':
      return working('Processing', doing(video) || 'You can close this page.', video.progress);
    case 'playable':
      return working('Ready to watch', doing(video) || 'More versions are coming', video.progress);
    case 'expired':
      return stage('Expired', 'No file came in time. Delete it, then upload again.', null, 'bad');
    case 'rejected':
    case 'failed':
      return refused(video);
    case 'ready':
    case 'deleted':
      return null;
  }
}

export function stageOfUpload(upload: Upload): Stage | null {
  const size_bytes = upload.file.size;
  switch (upload.state) {
    case 'waiting':
      return stage('Waiting', `${format.bytes(size_bytes)}, after the others`, 0, 'waiting');
    case 'sending': {
      const level = size_bytes > 0 ? upload.sent_bytes / size_bytes : 0;
      return stage(`Uploading ${format.percent(level)}`, speed(upload), level, 'moving');
    }
    case 'storing':
      return stage('Uploaded', 'The server is putting it away', 1, 'moving');
    case 'failed':
      return stage(upload.problem?.title ?? 'The upload failed', upload.problem?.detail ?? '', null, 'bad');
    case 'sent':
    case 'cancelled':
      return null;
  }
}

function speed(upload: Upload): string {
  const amount = `${format.bytes(upload.sent_bytes)} of ${format.bytes(upload.file.size)}`;
  const parts = [amount];
  if (upload.bytes_per_s > 0) parts.push(`${format.bytes(upload.bytes_per_s)}/s`);
  if (upload.left_s !== null) parts.push(format.timeLeft(upload.left_s));
  return parts.join(' · ');
}

const DOING = {
  waiting: 'Waiting for its turn',
  checking: 'Checking the file',
  encoding: 'Encoding',
  assembling: 'Putting it together',
};

/** What the server does, and for how long. */
function doing(video: Video): string {
  const words = video.stage ? [DOING[video.stage]] : [];
  if (typeof video.eta_s === 'number') words.push(`about ${format.timeLeft(video.eta_s)}`);
  return words.join(' · ');
}

function working(label: string, detail: string, progress: number | null): Stage {
  const known = progress !== null && progress > 0;
  if (label === 'Processing' && known) return stage(`${label} ${format.percent(progress)}`, detail, progress, 'moving');
  const text = known ? `${detail} (${format.percent(progress)})` : detail;
  return stage(label, text, known ? progress : null, 'moving');
}

function refused(video: Video): Stage {
  const label = video.error?.title ?? (video.state === 'failed' ? 'Processing failed' : 'The file was refused');
  const detail = video.error?.detail ?? '';
  // Where there is nothing to add to the title, it need not be said twice.
  return stage(label, detail === `${label}.` ? '' : detail, null, 'bad');
}

function stage(label: string, detail: string, level: number | null, tone: Stage['tone']): Stage {
  return { label, detail, level, tone };
}
