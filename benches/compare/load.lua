-- What wrk sends. Arguments: a file with one request a line (path, a tab, a token or nothing), and the mean pause in milliseconds
-- between an answer and the next request of a connection, 0 for none. wrk has no fixed rate; many connections with random pauses come close.
local requests, at = {}, 0

function init(args)
    for line in io.lines(args[1]) do
        local path, token = line:match("^([^\t]*)\t?(.*)$")
        local headers = { ["User-Agent"] = "wrk", ["X-Debug"] = "1" }
        if token ~= "" then headers["Authorization"] = "Bearer " .. token end
        requests[#requests + 1] = wrk.format("GET", path, headers)
    end
    local pause = tonumber(args[2])
    if pause > 0 then
        math.randomseed(os.time())
        delay = function() return math.random(0, 2 * pause) end
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency, _)
    local e = summary.errors
    io.write(string.format('SUMMARY {"requests":%d,"micros":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p99":%d,"max":%d}\n',
        summary.requests, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
        latency:percentile(50), latency:percentile(99), latency.max))
end
