/** A picture from a file that is still on this computer, so that its card has a face before the server knows it. */

const WIDTH_MAX_PX = 640;
const PATIENCE_MS = 8000;

/** Null where this browser cannot decode the file; the server may well be able to. */
export async function drawFrame(file: File): Promise<HTMLCanvasElement | null> {
  const video = document.createElement('video');
  const url = URL.createObjectURL(file);
  video.muted = true;
  video.playsInline = true;
  video.preload = 'auto';
  video.src = url;
  try {
    await happens(video, 'loadeddata');
    // The first frame is often black.
    video.currentTime = Math.min(1, video.duration / 3 || 0);
    await happens(video, 'seeked');
    return draw(video);
  } catch {
    return null;
  } finally {
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(url);
  }
}

function draw(video: HTMLVideoElement): HTMLCanvasElement | null {
  const scale = Math.min(1, WIDTH_MAX_PX / video.videoWidth);
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  const context = canvas.getContext('2d');
  if (!context || canvas.width === 0) return null;
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function happens(video: HTMLVideoElement, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event}`)), PATIENCE_MS);
    const settle = (end: () => void) => () => {
      clearTimeout(timer);
      end();
    };
    video.addEventListener(event, settle(resolve), { once: true });
    video.addEventListener('error', settle(() => reject(new Error('cannot decode'))), { once: true });
  });
}
