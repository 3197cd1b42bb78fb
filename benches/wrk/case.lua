-- What all cases share: how a request looks on the wire, and the one line that run.sh reads at the end.

-- The bytes of a POST on a connection that stays open. Ready before the first is sent: the generator shares
-- its processors with what it measures, so it should cost little.
function post(path, body)
  return table.concat({
    "POST " .. path .. " HTTP/1.1",
    "Host: " .. wrk.host .. ":" .. wrk.port,
    "X-API-Key: " .. os.getenv("BENCH_KEY"),
    "Content-Type: application/json",
    "Content-Length: " .. #body,
    "",
    body,
  }, "\r\n")
end

-- requests, microseconds, p50, p99 and maximum latency in microseconds, non-2xx/3xx replies, socket errors
function done(summary, latency, _)
  local errors = summary.errors
  local sockets = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("case %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max, errors.status, sockets))
end
