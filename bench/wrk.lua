-- wrk -s wrk.lua URL -- [METHOD BODY]: every request is the same, so no Lua runs for a request. Prints one line of JSON.
function init(args)
    wrk.method = args[1] or "GET"
    wrk.body = args[2]
end

-- Empty if every answer was a 200.
local function describe(errors)
    local text = ""
    for kind, count in pairs(errors) do
        if count > 0 then text = text .. kind .. " " .. count .. " " end
    end
    return text
end

function done(summary, latency)
    io.write(string.format(
        '{"requests": %d, "requests_per_second": %f, "p50_ms": %f, "p99_ms": %f, "errors": "%s"}\n',
        summary.requests, summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        describe(summary.errors)
    ))
end
