"""Proves that every contestant does the job that it is measured at, and that the reasons that make a round void are noticed.

Each is started with a limit of 5 requests a second and asked with no token, a forged one, one of another issuer, a right one, and too often.
"""

import json
import pathlib
import time

import load
import peers

LIMIT = 5
ROUTES = [f"service-{i:04}" for i in range(1000)]


def verify(chosen, key):
    upstream, port = peers.start_upstream(peers.LOAD_CORE)
    failed = 0
    try:
        for peer in chosen:
            contestant = peers.Contestant(peer, "full", port, key, ROUTES, LIMIT, peers.PROXY_CORE)
            try:
                failed += judge(peer, contestant, key)
            finally:
                contestant.stop()
            if contestant.members():
                print(f"{peer.name:8} FAIL it is still running")
                failed += 1
        failed += judge_faults(key, port)
    finally:
        upstream.stop()
    print("all is as it should be" if not failed else f"{failed} failed")
    return 1 if failed else 0


def judge(peer, contestant, key):
    has_jwt = peer.name != "caddy"
    failed = 0

    def expect(what, found, wanted):
        nonlocal failed
        is_right = found in wanted if isinstance(wanted, tuple) else found == wanted
        failed += not is_right
        print(f"{peer.name:8} {'ok  ' if is_right else 'FAIL'} {what}{'' if is_right else f': {found!r} instead of {wanted!r}'}")

    def bearer(token):
        return {"Authorization": f"Bearer {token}", "X-Debug": "1", "X-User-ID": "forged"}

    def ask(path, headers):
        status, fields, text = peers.fetch(contestant.port, path, headers)
        return status, fields, text

    # A bucket of five is soon empty: every question has a subject of its own.
    contestant.wait_until_ready("/service-0001/items", bearer(key.token("ready")))
    if has_jwt:
        expect("no token is refused", ask("/service-0001/items", {})[0], (401, 403))
        good = key.token("forger")
        forged = good[:-8] + ("A" if good[-8] != "A" else "B") + good[-7:]
        expect("a forged token is refused", ask("/service-0001/items", bearer(forged))[0], (401, 403))
        expect("an expired token is refused", ask("/service-0001/items", bearer(key.token("late", exp=int(time.time()) - 3600)))[0], (401, 403))
        expect("another issuer is refused", ask("/service-0001/items", bearer(key.token("alien", iss="https://other.test")))[0], (401, 403))
        expect("another audience is refused", ask("/service-0001/items", bearer(key.token("alien", aud="other")))[0], (401, 403))
    status, fields, text = ask("/service-0999/items/1", bearer(key.token("reader")))
    expect("a right token passes", status, 200)
    expect("the body is that of the upstream", text, peers.BODY)
    expect("a response header is set", fields.get("x-frame-options"), "DENY")
    expect("a response header is removed", fields.get("x-powered-by"), None)
    user, internal, debug, id, path = ask("/service-0500/reflect", bearer(key.token("reader")))[2].split("|")
    if has_jwt:
        expect("the subject is forwarded, what the client sent is not", user, "reader")
    expect("a request header is set", internal, "bench")
    expect("a request header is removed", debug, "")
    expect("there is a request id", len(id) >= 16, True)
    expect("the path is kept", path, "/service-0500/reflect")
    expect("an unknown route is not there", ask("/service-1000/items", bearer(key.token("lost")))[0], 404)
    if has_jwt:
        greedy = bearer(key.token("greedy"))
        expect("one subject too often is refused", 429 in [ask("/service-0001/items", greedy)[0] for _ in range(4 * LIMIT)], True)
        expect("another subject passes", ask("/service-0001/items", bearer(key.token("modest")))[0], 200)
    load.settle(contestant.access_log)
    entries = [json.loads(line) for line in contestant.access_log.read_text().splitlines()]
    found = [entry for entry in entries if "/service-0500/reflect" in json.dumps(entry)]
    expect("the log has the request once", len(found), 1)
    if found:
        expect("with its status", found[0]["status"] in (200, "200"), True)
        expect("with its route", found[0].get("route"), "service-0500")
        if has_jwt:
            expect("with its subject", found[0].get("subject"), "reader")
    if peer.name == "nginx":
        return failed
    status, _, text = peers.fetch(contestant.admin, {"envoy": "/stats/prometheus"}.get(peer.name, "/metrics"), {})
    expect("there are metrics", status == 200 and len(text) > 50, True)
    return failed


def judge_faults(key, port):
    """Rounds that must be void: answers that are not 200, lines that are missing, lines that are not JSON."""
    nginx = next(peer for peer in peers.PEERS if peer.name == "nginx")
    contestant = peers.Contestant(nginx, "full", port, key, ROUTES, 1000000, peers.PROXY_CORE)
    failed = 0

    def expect(what, found, wanted):
        nonlocal failed
        is_right = wanted in found if wanted else not found
        failed += not is_right
        print(f"{'void':8} {'ok  ' if is_right else 'FAIL'} {what}{'' if is_right else f': {found!r}'}")

    try:
        token = key.token("reader")
        contestant.wait_until_ready("/service-0001/items", {"Authorization": f"Bearer {token}"})
        # The line of the question above is still in a buffer.
        load.settle(contestant.access_log)
        good, bad = peers.WORK / "good.txt", peers.WORK / "bad.txt"
        good.write_text(f"/service-0001/items\t{token}\n")
        bad.write_text(f"/service-0001/items\t{token}\n" * 99 + "/service-0001/items\n")
        script = peers.HERE / "load.lua"
        one = load.run(contestant, good, script, 1, peers.LOAD_CORE)
        expect("a right round counts", "; ".join(one.faults), "")
        lines = contestant.access_log.read_text().splitlines(True)
        log = pathlib.Path(contestant.dir) / "changed.log"
        log.write_text("".join(lines[: one.requests - 1]))
        expect("a round with fewer lines than requests is void", "; ".join(load.log_faults(log, one.requests)), "log lines for")
        log.write_text("".join(lines + lines[: load.CONNECTIONS + 1]))
        expect("a round with more lines than requests is void", "; ".join(load.log_faults(log, one.requests)), "log lines for")
        log.write_text("".join(lines[1:]) + lines[0][:20] + "\n")
        expect("a round with half a line is void", "; ".join(load.log_faults(log, one.requests)), "not JSON")
        expect("a round with a 401 is void", "; ".join(load.run(contestant, bad, script, 1, peers.LOAD_CORE).faults), "not 2xx")
        contestant.stop()
        try:
            ended = "; ".join(load.run(contestant, good, script, 1, peers.LOAD_CORE).faults)
        except SystemExit as error:
            ended = str(error)
        expect("a round against nobody is void", ended, "unable to connect")
    finally:
        contestant.stop()
    return failed
