-- Checks the listed keys against those that the data was made with, and notes them.
-- KEYS: the notes, one byte with the version, then a MessagePack map:
--   address   the address key's check value
--   at        when it was last noted
--   masters   a map from a master key's id to when it was last noted
-- Answers 'known', 'other_address_key', 'other_master_key' or 'unreadable'.

local now, memory, address = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local FIRST_MASTER <const> = 4

local notes = load(KEYS[1], { at = 0, masters = {} })
if not notes then
  return 'unreadable'
end
if notes.at + memory <= now then
  notes.address = nil
end
if notes.address and notes.address ~= address then
  return 'other_address_key'
end

local none_is_noted, one_is_known = true, false
for id, at in pairs(notes.masters) do
  if at + memory <= now then
    notes.masters[id] = nil
  else
    none_is_noted = false
    for place = FIRST_MASTER, #ARGV do
      one_is_known = one_is_known or ARGV[place] == id
    end
  end
end
if not (none_is_noted or one_is_known) then
  return 'other_master_key'
end

notes.address, notes.at = address, now
for place = FIRST_MASTER, #ARGV do
  notes.masters[ARGV[place]] = now
end
save(KEYS[1], notes, memory)
return 'known'
