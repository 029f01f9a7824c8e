-- Asks Rescind whether a request may pass: the half of the HAProxy configuration that is a script.
-- (rescind proxy-config haproxy --part lua)

local VERIFY = "http://127.0.0.1/verify?"
-- The "listen rescind" section of the configuration.
local THROUGH = "abns@rescind-verify"
local IDENTITY = { "x-rescind-client", "x-rescind-client-name", "x-rescind-scopes", "x-rescind-session" }
local PASSED_ON = { "www-authenticate", "content-type", "cache-control", "x-request-id" }

core.register_action("rescind_verify", { "http-req" }, function(txn)
    local asks = txn:get_var("txn.rescind_asks")
    if not asks then
        return
    end
    -- Of what the client sent, Rescind sees one header: the one that decides. Every line of it, so
    -- that two of them are refused.
    local headers = { ["x-forwarded-for"] = { tostring(txn.f:src()) } }
    for _, line in pairs(txn.http:req_get_headers()["authorization"] or {}) do
        headers["authorization"] = headers["authorization"] or {}
        table.insert(headers["authorization"], line)
    end

    local answer = core.httpclient():get({ url = VERIFY .. asks, dst = THROUGH, headers = headers, timeout = 3000 })
    if not answer then
        return
    end
    local function value(name)
        for _, line in pairs(answer.headers[name] or {}) do
            return line
        end
    end

    if answer.status == 401 or answer.status == 403 then
        local reply = txn:reply({ status = answer.status, body = answer.body })
        for _, name in ipairs(PASSED_ON) do
            if value(name) then
                reply:add_header(name, value(name))
            end
        end
        txn:done(reply)
    end

    -- Only exactly 200, and only from something that tells all of the identity, goes on.
    if answer.status ~= 200 then
        return
    end
    for _, name in ipairs(IDENTITY) do
        if not value(name) then
            return
        end
    end
    for _, name in ipairs(IDENTITY) do
        txn.http:req_set_header(name, value(name))
    end
    txn:set_var("txn.rescind_yes", "yes")
end)
