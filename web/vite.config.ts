import { defineConfig } from 'vite';

// Where `npm run dev` sends what the page asks of the server.
const server = 'http://127.0.0.1:8000';

export default defineConfig({
  build: {
    target: 'es2022',
    // The page is served under a policy of same-origin files only: nothing may end up as a data: URL.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // hls.js is one file of half a megabyte, loaded when the first video is opened.
    chunkSizeWarningLimit: 700,
  },
  server: {
    port: 5173,
    proxy: { '/api': server, '/stream': server },
  },
});
