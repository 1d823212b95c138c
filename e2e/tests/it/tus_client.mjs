// Sends a file by tus-js-client: begins at the first gateway, is broken off half way, and goes on at the second.
// Says the URL of the upload at the end.
import { createReadStream, statSync } from "node:fs";
import * as tus from "tus-js-client";

const [first, second, token, path] = process.argv.slice(2);
const size = statSync(path).size;

function send(endpoint, uploadUrl, breakAt) {
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(createReadStream(path), {
      endpoint: `${endpoint}/v1/uploads`,
      uploadUrl,
      uploadSize: size,
      chunkSize: 4_000_000,
      retryDelays: [0, 200, 1000],
      metadata: { filename: "film.bin" },
      headers: { Authorization: `Bearer ${token}` },
      onError: reject,
      onSuccess: () => resolve(upload.url),
      onChunkComplete: (_, accepted) => {
        if (accepted >= breakAt) {
          upload.abort().then(() => resolve(upload.url), reject);
        }
      },
    });
    upload.start();
  });
}

const begun = new URL(await send(first, null, size / 2));
const done = await send(second, `${second}${begun.pathname}`, Infinity);
console.log(done);
