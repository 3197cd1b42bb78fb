-- One SELECT by primary key per request, of a row chosen at random. For run.sh, which gives the environment.
dofile(os.getenv("BENCH_DIR") .. "/case.lua")

local bodies = {}
for id = 1, tonumber(os.getenv("BENCH_ROWS")) do
  bodies[id] = post("/v1/rqlite/query", '{"sql": "SELECT id, v FROM k WHERE id = ?", "args": [' .. id .. "]}")
end

function request()
  return bodies[math.random(#bodies)]
end
