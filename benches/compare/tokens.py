"""Makes the RS256 tokens of the load, with the standard library and the `openssl` command only.

Does not verify anything. The tokens are kept beside the key, so that a second run starts at once.
"""

import base64
import hashlib
import json
import pathlib
import subprocess
import time

ISSUER = "https://idp.test"
AUDIENCE = "bench"
# DigestInfo of SHA-256, RFC 8017 section 9.2.
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An RSA key of 2048 bits."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.private = self.folder / "private.pem"
        self.public = self.folder / "public.pem"
        self.jwks = self.folder / "jwks.json"
        if not self.private.exists():
            run("openssl", "genrsa", "-traditional", "-out", str(self.private), "2048")
        der = run("openssl", "rsa", "-in", str(self.private), "-outform", "DER", "-traditional")
        (_, self.n, self.e, self.d, self.p, self.q, *_) = integers(der)
        self.dp, self.dq, self.qi = self.d % (self.p - 1), self.d % (self.q - 1), pow(self.q, -1, self.p)
        self.public.write_bytes(run("openssl", "rsa", "-in", str(self.private), "-pubout"))
        n = b64(self.n.to_bytes(256, "big"))
        e = b64(self.e.to_bytes(3, "big"))
        key = {"kty": "RSA", "kid": "bench", "use": "sig", "alg": "RS256", "n": n, "e": e}
        self.jwks.write_text(json.dumps({"keys": [key]}))

    def sign(self, claims):
        header = b64(json.dumps({"alg": "RS256", "kid": "bench", "typ": "JWT"}, separators=(",", ":")).encode())
        signed = f"{header}.{b64(json.dumps(claims, separators=(',', ':')).encode())}"
        digest = SHA256_PREFIX + hashlib.sha256(signed.encode()).digest()
        message = int.from_bytes(b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest, "big")
        # The Chinese remainder theorem makes it four times as fast.
        m1, m2 = pow(message % self.p, self.dp, self.p), pow(message % self.q, self.dq, self.q)
        signature = m2 + (m1 - m2) * self.qi % self.p * self.q
        return f"{signed}.{b64(signature.to_bytes(256, 'big'))}"

    def token(self, subject, **claims):
        now = int(time.time())
        # Issued a day ago: a machine whose clock was set back keeps working. No nbf, a year of life.
        base = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now - 86400, "exp": now + 365 * 86400, "scope": "orders:read"}
        return self.sign({**base, **claims})

    def tokens(self, count):
        """Of user-0000 and so on; kept for a month."""
        kept = self.folder / f"tokens-{count}.txt"
        is_fresh = kept.exists() and kept.stat().st_mtime > max(time.time() - 30 * 86400, self.private.stat().st_mtime)
        if not is_fresh:
            kept.write_text("\n".join(self.token(f"user-{i:04}") for i in range(count)))
        return kept.read_text().split("\n")


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def integers(der):
    """The integers of a DER sequence."""

    def element(data, at):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        return tag, data[at : at + length], at + length

    _, body, _ = element(der, 0)
    found, at = [], 0
    while at < len(body):
        tag, value, at = element(body, at)
        assert tag == 2, "not an integer"
        found.append(int.from_bytes(value, "big"))
    return found
