/** The page that Uppy runs in. */

import Uppy from '@uppy/core';
import Tus from '@uppy/tus';

window.send = (file, meta, endpoint, options) => {
  const uppy = new Uppy().use(Tus, { endpoint, ...options, allowedMetaFields: ['video_id', 'name'] });
  uppy.addFile({ name: file.name, type: file.type, data: file, meta });
  return uppy.upload().then(({ failed }) => failed.map(({ error }) => String(error)));
};
