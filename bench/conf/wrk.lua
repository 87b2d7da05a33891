-- Arguments after "--": method, bytes of request body, mean pause between two
-- requests of a connection in ms (0: none). Prints one line for bench to read.
local pause = 0

function init(args)
	wrk.method = args[1]
	local bytes = tonumber(args[2])
	if bytes > 0 then
		wrk.body = string.rep("x", bytes)
	end
	pause = tonumber(args[3])
	if pause > 0 then
		math.randomseed(os.time())
		function delay()
			return math.random(1, 2 * pause - 1)
		end
	end
end

function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format(
		"bench requests=%d duration_us=%d bytes=%d failed=%d status=%d timeout=%d p50_us=%d p99_us=%d p999_us=%d max_us=%d\n",
		summary.requests, summary.duration, summary.bytes,
		e.connect + e.read + e.write, e.status, e.timeout,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
