// What the page asks of its service. Paths are relative: the service may live below a prefix.

export class Fault extends Error {}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The service does not answer; is it still running?");
  }
  if (response.ok) return response;
  let message = `The service answers with status ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* a proxy's own page: the status has to do */ }
  throw new Fault(message);
}

export const getJson = async (path) => (await answer(fetch(path))).json();

export async function getFile(path, name) {
  const blob = await (await answer(fetch(path))).blob();
  return new File([blob], name, { type: blob.type });
}

export async function segment(files, signal) {
  const form = new FormData();
  for (const [field, file] of Object.entries(files)) form.append(field, file, field);
  const query = "format=json&mask=both&confidence=deflate&probabilities=true&views=true";
  const response = await answer(fetch(`v1/segment?${query}`, { method: "POST", body: form, signal }));
  return response.json();
}

export function bytesOf(encoded) {
  return Uint8Array.from(atob(encoded.data), (letter) => letter.charCodeAt(0));
}

export const blobOf = (encoded) => new Blob([bytesOf(encoded)], { type: `image/${encoded.encoding}` });

// Not through a canvas: browsers that guard against fingerprints read back other values than were drawn.
export async function inflate(encoded) {
  const stream = new Blob([bytesOf(encoded)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
