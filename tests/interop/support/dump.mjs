// Everything that a Redis server holds, as bytes.

/** All keys with their remaining time and every piece of their contents. */
export async function dump(client) {
  const entries = [];
  for (const key of await keys(client)) {
    const type = await client.type(key);
    const [pieces, ttlMs] = await Promise.all([contents(client, key, type), client.pttl(key)]);
    entries.push({ key: key.toString('latin1'), type, ttlMs, pieces: [key, ...pieces] });
  }
  return entries;
}

async function keys(client) {
  const found = new Map();
  let cursor = '0';
  do {
    const [next, page] = await client.scanBuffer(cursor, 'COUNT', 1000);
    page.forEach((key) => found.set(key.toString('latin1'), key));
    cursor = next.toString();
  } while (cursor !== '0');
  return [...found.values()];
}

async function contents(client, key, type) {
  switch (type) {
    case 'string':
      return [await client.getBuffer(key)];
    case 'hash':
      return flat(await client.callBuffer('HGETALL', key));
    case 'list':
      return client.lrangeBuffer(key, 0, -1);
    case 'set':
      return client.smembersBuffer(key);
    case 'zset':
      return client.zrangeBuffer(key, 0, -1, 'WITHSCORES');
    case 'stream':
      return flat(await client.callBuffer('XRANGE', key, '-', '+'));
    default:
      throw new Error(`a value of type ${type} can't be read`);
  }
}

function flat(reply) {
  return Array.isArray(reply) ? reply.flatMap(flat) : [reply];
}
