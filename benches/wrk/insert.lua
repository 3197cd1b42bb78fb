-- One INSERT per request, with an argument that changes. For run.sh, which gives the environment.
dofile(os.getenv("BENCH_DIR") .. "/case.lua")

local bodies = {}
for i = 1, 1000 do
  local argument = string.format("value %04d of a row that is short", i)
  bodies[i] = post("/v1/rqlite/exec", '{"sql": "INSERT INTO t (v) VALUES (?)", "args": ["' .. argument .. '"]}')
end
local n = 0

function request()
  n = n % #bodies + 1
  return bodies[n]
end
