// The peer of bench/upload.py for tus: @tus/server with its store of files. `node tus.mjs FOLDER`
import { createServer } from 'node:http';

import { FileStore } from '@tus/file-store';
import { Server } from '@tus/server';

const tus = new Server({ path: '/files', datastore: new FileStore({ directory: process.argv[2] }), relativeLocation: true });
const server = createServer((request, response) => tus.handle(request, response));
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
