-- Counts answers by the field `x-target`. Argument: the mean pause in milliseconds between an answer and a connection's next request.
local pause = 0
local workers = {}

function setup(thread)
    workers[#workers + 1] = thread
end

function init(args)
    seen = ""
    counts = {}
    pause = tonumber(args[1])
    math.randomseed(os.time())
end

function delay()
    return math.random(0, 2 * pause)
end

function response(_, headers)
    local target = headers["x-target"] or headers["X-Target"] or "none"
    counts[target] = (counts[target] or 0) + 1
    local pairs_of = {}
    for name, count in pairs(counts) do pairs_of[#pairs_of + 1] = string.format('"%s":%d', name, count) end
    seen = table.concat(pairs_of, ",")
end

function done(summary, latency, _)
    local e = summary.errors
    io.write(string.format('SUMMARY {"requests":%d,"errors":%d,"p50":%d,"p99":%d,"targets":{%s}}\n', summary.requests,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99), workers[1]:get("seen")))
end
