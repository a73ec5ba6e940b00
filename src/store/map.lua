-- Values that are MessagePack maps. Members that are not known here are kept, so a later version may
-- add some; only what changes the meaning of these needs another form.

-- What is stored at a key: `empty` if nothing is, nil if this version can't read it.
local function load(key, empty)
  local stored = redis.call('GET', key)
  if not stored then
    return empty
  end
  if stored:sub(1, 1) ~= MAP then
    return nil
  end
  local readable, content = pcall(cmsgpack.unpack, stored:sub(2))
  if readable and type(content) == 'table' then
    return content
  end
  return nil
end

local function save(key, content, ttl_ms)
  redis.call('SET', key, MAP .. cmsgpack.pack(content), 'PX', ttl_ms)
end
