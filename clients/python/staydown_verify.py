#!/usr/bin/env python3
"""Checks evidence files of a staydown forum: bundles (the whole list) and receipts (some records).

Written from docs/verify.md and docs/protocol.md alone, without a line of the node: whoever doubts the node can read
this instead. It needs nothing but the forum's fingerprint. Beside the standard library it uses `cryptography`, for
Ed25519. Sections of the file: bytes, keys, charters, records, logs, proofs, the view, files, the command.

    staydown_verify.py FILE --forum FINGERPRINT [--json]
"""

import argparse
import collections
import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

OK, USAGE, BROKEN, BAD_FILE = 0, 2, 6, 65
SEMANTICS_MAX = 4
HOUR, DAY = 3_600_000, 86_400_000


class Broken(Exception):
    """Something does not hold."""


class BadFile(Exception):
    """The file is not whole, or no evidence file."""


def need(holds, why):
    if not holds:
        raise Broken(why)


# ---- Bytes: hashes, trees, and the strict encoding (protocol 1 and 4) ------------------------------------------------


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(content):
    return sha(b"\0", content)


def node_hash(left, right):
    return sha(b"\1", left, right)


class Tree:
    """A growing RFC 6962 tree: the roots of its perfect subtrees, largest first."""

    def __init__(self, size=0, peaks=()):
        self.size, self.peaks = size, list(peaks)

    def append(self, leaf):
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self):
        if not self.peaks:
            return sha(b"")
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def tree_root(leaves):
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def root_by_path(leaf, index, size, path):
    """RFC 9162 section 2.1.3.2; None if the path does not fit."""
    if index >= size:
        return None
    position, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            root = node_hash(sibling, root)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        position >>= 1
        last >>= 1
    return root if last == 0 else None


U32, U64, BOOL, BYTES, STRING = "u32", "u64", "bool", "bytes", "string"
NUMBERS = {U32: 2**32 - 1, U64: 2**64 - 1, BOOL: 1}


def is_number(kind):
    return isinstance(kind, str) and kind in NUMBERS


def field(name, kind, many=False, empty=False):
    """`empty`: of a oneof, so it may be there and empty."""
    return name, kind, many, empty


ORIGIN = {1: field("member_id", BYTES), 2: field("log_no", U32)}
HEAD = {1: field("origin", ORIGIN), 2: field("seq", U64), 3: field("header_hash", BYTES)}
SUBJECT = {1: field("type", U32), 2: field("alg", U32), 3: field("param", U32), 4: field("digest", BYTES)}
RECORD = {1: field("kind", U32), 2: field("salt", BYTES), 3: field("body", BYTES)}
LOG_OPEN = {1: field("public_key", BYTES), 2: field("root_key_id", BYTES), 3: field("root_signature", BYTES)}
OPINION = {
    1: field("subject", SUBJECT), 2: field("stance", U32), 3: field("labels", U32, True), 4: field("severity", U32),
    5: field("expires_ms", U64), 6: field("review_ms", U64), 7: field("incident_id", BYTES), 8: field("basis", U32),
    9: field("confidence", U32), 10: field("client_key", BYTES), 11: field("languages", STRING, True),
    12: field("reason", U32), 13: field("item_id", BYTES), 14: field("quality", U32),
}
RETRACT_VOTE = {1: field("subject", SUBJECT), 2: field("yes", BOOL), 3: field("reason", U32)}
ALLOW = {1: field("subject", SUBJECT), 2: field("yes", BOOL), 3: field("expires_ms", U64), 4: field("certificate", U32)}
REFERRAL = {
    1: field("subject", SUBJECT), 2: field("open", BOOL), 3: field("authority", U32), 4: field("jurisdiction", U32),
    5: field("expires_ms", U64),
}
INCIDENT = {
    1: field("id", BYTES), 2: field("code", U32), 3: field("level", U32), 4: field("open", BOOL),
    5: field("closes_ms", U64),
}
ATTEST = {1: field("heads", HEAD, True), 2: field("charter_version", U64), 3: field("charter_hash", BYTES)}
LOG_CLOSE = {1: field("reason", U32), 2: field("next_log_no", U32)}
EVIDENCE = {1: field("proof_hash", BYTES), 2: field("origin", ORIGIN), 3: field("seq", U64)}
AUDIT_NOTE = {1: field("view_digest", BYTES), 2: field("hour_ms", U64), 3: field("finding", U32)}
SUSPEND = {
    1: field("member_id", BYTES), 2: field("marks", HEAD, True), 3: field("until_ms", U64), 4: field("reason", U32),
}
RESOURCE = {
    1: field("url", STRING), 2: field("languages", STRING, True), 3: field("labels", U32, True),
    4: field("listed", BOOL), 5: field("expires_ms", U64),
}
PRESERVE = {1: field("subject", SUBJECT), 2: field("until_ms", U64), 3: field("contact", U32)}
OUTCOME = {1: field("subject", SUBJECT), 2: field("result", U32), 3: field("acted_ms", U64)}

NODE_ENTRY = {
    1: field("tls_spki_sha256", BYTES, True), 2: field("endpoints", STRING, True), 3: field("uri_san", STRING),
    4: field("require_ca", BOOL),
}
MEMBER = {
    1: field("id", BYTES), 2: field("name", STRING), 3: field("group", STRING), 4: field("roles", U32),
    5: field("status", U32), 6: field("log_limit", U32), 7: field("log_root_key", BYTES),
    8: field("nodes", NODE_ENTRY, True), 9: field("admitted_ms", U64), 10: field("seal_key", BYTES),
    11: field("jurisdictions", STRING, True), 12: field("languages", STRING, True), 13: field("pop", BYTES),
}
AUDIENCE = {1: field("index", U32), 2: field("name", STRING), 3: field("member_ids", BYTES, True)}
POLICY = {
    1: field("retract_min", U32), 2: field("retract_permille", U32), 3: field("contest_quorum", U32),
    4: field("allow_quorum", U32), 5: field("quota_per_day", U32, True), 6: field("account_ttl_max_ms", U64),
    7: field("stale_grace_ms", U64), 8: field("auditors_attest", BOOL), 9: field("log_bytes_max", U64),
}
CUTOFF = {1: field("origin", ORIGIN), 2: field("last_seq", U64), 3: field("last_hash", BYTES)}
EXPULSION = {
    1: field("member_id", BYTES), 2: field("policy", U32), 3: field("cutoffs", CUTOFF, True), 4: field("reason", U32),
}
SEALED_PEPPER = {1: field("pepper_id", U32), 2: field("member_id", BYTES), 3: field("sealed", BYTES)}
ERASURE = {
    1: field("origin", ORIGIN), 2: field("seq", U64), 3: field("index", U32), 4: field("leaf_hash", BYTES),
    5: field("reason", U32),
}
CHARTER = {
    1: field("version", U64), 2: field("prev_hash", BYTES), 3: field("forum_id", BYTES), 4: field("name", STRING),
    5: field("semantics", U32), 6: field("founder_keys", BYTES, True), 7: field("threshold", U32),
    8: field("members", MEMBER, True), 9: field("audiences", AUDIENCE, True), 10: field("policy", POLICY),
    11: field("expulsions", EXPULSION, True), 12: field("cutoffs", CUTOFF, True), 13: field("erasures", ERASURE, True),
    14: field("peppers", SEALED_PEPPER, True), 15: field("ca_certs", BYTES, True), 16: field("issued_ms", U64),
    17: field("valid_until_ms", U64), 18: field("nonce", BYTES), 19: field("taxonomy", STRING),
}

KEY_SIG = {1: field("key_id", BYTES), 2: field("sig", BYTES)}
SIGNED_CHARTER = {1: field("body", BYTES), 2: field("sigs", KEY_SIG, True)}
SLOT = {1: field("record", BYTES, empty=True), 2: field("redacted_leaf", BYTES, empty=True)}
BLOCK_FRAME = {
    1: field("header", BYTES), 2: field("signature", BYTES), 3: field("slots", SLOT, True), 4: field("ext", BYTES),
}
SIGNED_HEADER = {1: field("header", BYTES), 2: field("signature", BYTES), 3: field("open", LOG_OPEN)}
FORK_PROOF = {1: field("a", SIGNED_HEADER), 2: field("b", SIGNED_HEADER)}
FAULT_PROOF = {
    1: field("prev", SIGNED_HEADER), 2: field("bad", SIGNED_HEADER), 3: field("slots", SLOT, True),
    4: field("rule", U32), 5: field("frontier", BYTES, True),
}
CHARTER_FORK = {1: field("a", SIGNED_CHARTER), 2: field("b", SIGNED_CHARTER)}
PROOF = {1: field("fork", FORK_PROOF), 2: field("fault", FAULT_PROOF), 3: field("charter", CHARTER_FORK)}
INCLUSION = {
    1: field("header", BYTES), 2: field("signature", BYTES), 3: field("log_open", BYTES), 4: field("index", U32),
    5: field("record", BYTES), 6: field("redacted_leaf", BYTES), 7: field("path", BYTES, True),
}
ATTESTED = {1: field("by", INCLUSION), 2: field("head", BYTES), 3: field("path", BYTES, True)}


class NotStrict(Exception):
    """Bytes that are not the one encoding of a message."""


class UnknownField(Exception):
    """A field that the schema does not have, well formed."""


def varint(data, at):
    value = 0
    for i in range(10):
        if at >= len(data):
            raise NotStrict("truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            if (i and byte == 0) or value >= 2**64:
                raise NotStrict("varint")
            return value, at
    raise NotStrict("varint")


def block(data, at):
    length, at = varint(data, at)
    if at + length > len(data):
        raise NotStrict("truncated")
    return data[at : at + length], at + length


def number(kind, data, at):
    value, at = varint(data, at)
    if value > NUMBERS[kind]:
        raise NotStrict("range")
    return value, at


def skip(wire, data, at):
    if wire == 0:
        return varint(data, at)[1]
    if wire == 2:
        return block(data, at)[1]
    if wire in (1, 5):
        at += 8 if wire == 1 else 4
        if at <= len(data):
            return at
    raise NotStrict("unknown field")


def empty_of(schema):
    message = {}
    for name, kind, many, _ in schema.values():
        if many:
            message[name] = []
        elif is_number(kind):
            message[name] = 0
        elif kind == BYTES:
            message[name] = b""
        elif kind == STRING:
            message[name] = ""
        else:
            message[name] = None
    return message


def read(data, schema):
    """A message in its strict encoding. Raises NotStrict before UnknownField."""
    message, unknown = scan(data, schema)
    if unknown:
        raise UnknownField("field of a later release")
    return message


def scan(data, schema):
    message, unknown = empty_of(schema), False
    at, last = 0, 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag > 2**32 - 1:
            raise NotStrict("field number")
        num, wire = tag >> 3, tag & 7
        if num == 0 or num < last:
            raise NotStrict("order")
        if num not in schema:
            at = skip(wire, data, at)
            unknown, last = True, num
            continue
        name, kind, many, may_be_empty = schema[num]
        if num == last and (not many or is_number(kind)):
            raise NotStrict("twice")
        last = num
        if is_number(kind) and not many:
            if wire != 0:
                raise NotStrict("wire type")
            value, at = number(kind, data, at)
            if value == 0:
                raise NotStrict("default")
            message[name] = value
            continue
        if wire != 2:
            raise NotStrict("wire type")
        content, at = block(data, at)
        if is_number(kind):
            if not content:
                raise NotStrict("packed")
            place = 0
            while place < len(content):
                value, place = number(kind, content, place)
                message[name].append(value)
            continue
        if not content and not many and not may_be_empty:
            raise NotStrict("default")
        if kind == STRING:
            try:
                value = content.decode("utf-8")
            except UnicodeDecodeError:
                raise NotStrict("utf-8") from None
        elif kind == BYTES:
            value = content
        else:
            value, deeper = scan(content, kind)
            unknown = unknown or deeper
        if may_be_empty:
            if "which" in message:
                raise NotStrict("twice")
            message["which"] = name
        if many:
            message[name].append(value)
        else:
            message[name] = value
    return message, unknown


def exactly(data, schema, what):
    try:
        return read(data, schema)
    except (NotStrict, UnknownField) as error:
        raise Broken(f"{what} is not encoded in the one way: {error}") from None


# ---- Keys and signatures (protocol S1 to S4) --------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def decompress(data):
    """The point (x, y) of 32 bytes in their canonical form, or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def add(a, b):
    """Addition in extended coordinates."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, d - c, d + c, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    x, y = point
    base, total = (x, y, 1, x * y % P), (0, 1, 1, 0)
    while n:
        if n & 1:
            total = add(total, base)
        base = add(base, base)
        n >>= 1
    return total


def is_identity(point):
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


_sound = {}


def is_sound(key):
    """S3: canonical, not weak, free of torsion."""
    if key not in _sound:
        point = decompress(key) if len(key) == 32 else None
        _sound[key] = point is not None and not is_identity(times(8, point)) and is_identity(times(L, point))
    return _sound[key]


def small_order_encodings():
    """The canonical encodings of the eight points of small order."""
    found, y = set(), 2
    while len(found) < 8:
        point = decompress(y.to_bytes(32, "little"))
        y += 1
        if point is None:
            continue
        torsion = times(L, point)
        z = pow(torsion[2], P - 2, P)
        px, py = torsion[0] * z % P, torsion[1] * z % P
        for n in range(8):
            x, yy, zz, _ = times(n, (px, py))
            inverse = pow(zz, P - 2, P)
            found.add((yy * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little"))
    return found


SMALL_ORDER = small_order_encodings()
TYPES = {
    name: b"application/vnd.staydown.%s.v1" % name.encode()
    for name in ("block-header", "charter", "log-open", "member-key")
}


def signed(key, what, body, signature):
    """S2: strict and without cofactor, over DSSE's pre-authentication encoding; `key` is sound."""
    kind = TYPES[what]
    if len(signature) != 64 or signature[:32] in SMALL_ORDER:
        return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---- Charters (protocol 2) --------------------------------------------------------------------------------------------

FULL, SMALL, OBSERVER, REFERRER, CERTIFIER, AUDITOR, STEWARD = 1, 2, 4, 8, 16, 32, 64
ACTIVE, SUSPENDED, FORMER = 1, 2, 3


def origin_of(message):
    """(member_id, log_no), or None."""
    if message is None or len(message["member_id"]) != 16:
        return None
    return message["member_id"], message["log_no"]


# The canonical u-coordinates of small order.
SEAL_SMALL_ORDER = {
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
}


def is_seal_key(key):
    u = int.from_bytes(key, "little")
    return len(key) == 32 and u < P and u not in SEAL_SMALL_ORDER


class Charter:
    """A charter that keeps C6 to C8."""

    def __init__(self, body):
        need(len(body) <= 1 << 20, "a charter is longer than 1 MiB")
        try:
            c, unknown = scan(body, CHARTER)
        except NotStrict as error:
            raise Broken(f"a charter is not strictly encoded: {error}") from None
        self.body, self.hash = body, sha(b"staydown/charter/v1\n", body)
        self.version, self.semantics, self.name = c["version"], c["semantics"], c["name"]
        self.prev, self.forum, self.nonce = c["prev_hash"], c["forum_id"], c["nonce"]
        need(not (unknown and self.semantics <= SEMANTICS_MAX), "a charter has fields that its level does not define")
        need(self.semantics > 0, "a charter has semantics 0")
        need(self.semantics >= 2 or not c["erasures"], "a charter of level 1 orders erasures")
        need(self.semantics >= 3 or not c["peppers"], "a charter below level 3 has peppers")
        need(self.semantics > SEMANTICS_MAX or not c["audiences"], "a charter has audiences")
        need(len(self.prev) in (0, 32) and len(self.forum) in (0, 32), "a charter names no predecessor or forum")
        self.read_founders(c)
        self.read_members(c["members"])
        self.read_policy(c["policy"])
        self.read_cutoffs(c)
        self.read_erasures(c["erasures"])
        self.peppers = self.read_peppers(c) if 3 <= self.semantics <= SEMANTICS_MAX else set()

    def read_peppers(self, c):
        """C8: the ids of the peppers that live; their copies are opaque here."""
        keys = {m["id"]: m["seal_key"] for m in c["members"]}
        need(all(not key or is_seal_key(key) for key in keys.values()), "a seal key is not sound")
        places = [(copy["pepper_id"], copy["member_id"]) for copy in c["peppers"]]
        need(all(keys.get(member) for _, member in places), "a pepper is sealed to nobody, or to no key")
        need(all(pepper > 0 for pepper, _ in places), "a pepper has id 0")
        need(all(len(copy["sealed"]) == 80 for copy in c["peppers"]), "a sealed pepper has not 80 bytes")
        need(all(a < b for a, b in zip(places, places[1:])), "sealed peppers do not ascend")
        peppers = {pepper for pepper, _ in places}
        need(len(peppers) <= 8, "more than 8 peppers live")
        ttl = c["policy"]["account_ttl_max_ms"]
        need(not peppers or 0 < ttl <= 400 * DAY, "account_ttl_max_ms is not 1 ms to 400 days")
        return peppers

    def read_founders(self, c):
        keys = c["founder_keys"]
        need(all(is_sound(key) for key in keys), "a founder's key is not sound")
        self.founders = {sha(key): key for key in keys}
        need(len(self.founders) == len(keys), "a founder's key stands twice")
        self.threshold = c["threshold"]
        need(len(keys) // 2 < self.threshold <= len(keys), "the threshold is not above half of the founders")

    def read_members(self, members):
        self.members, names, pins = {}, set(), set()
        for m in members:
            need(len(m["id"]) == 16 and m["id"] not in self.members, "a member's id is wrong or stands twice")
            need(m["name"] and m["group"] and m["name"] not in names, "a member has no name or group, or another's")
            roles = m["roles"]
            referral_alone = not roles & REFERRER or not roles & ~(REFERRER | AUDITOR)
            need(0 < roles < 128 and referral_alone, "a member has roles that do not go together")
            need(m["status"] in (ACTIVE, SUSPENDED, FORMER), "a member has an unknown status")
            need(m["log_limit"] > 0 and is_sound(m["log_root_key"]), "a member has no log limit or no sound key")
            for node in m["nodes"]:
                need(1 <= len(node["tls_spki_sha256"]) <= 4, "a node has not 1 to 4 pins")
                if not node["require_ca"]:
                    for pin in node["tls_spki_sha256"]:
                        need(len(pin) == 32 and pin not in pins, "a pin is wrong or stands twice")
                        pins.add(pin)
            names.add(m["name"])
            self.members[m["id"]] = m
        need(self.members, "a charter has no members")

    def read_policy(self, p):
        need(p is not None, "a charter has no policy")
        numbers = [p["retract_min"], p["retract_permille"], p["contest_quorum"], p["allow_quorum"], p["log_bytes_max"]]
        quota = p["quota_per_day"]
        need(all(numbers) and len(quota) == 3 and all(quota), "the policy leaves a number out")
        need(p["retract_permille"] <= 1000, "retract_permille is above 1000")
        self.policy = p

    def read_cutoffs(self, c):
        self.expelled, self.cutoffs = {}, {}
        for e in c["expulsions"]:
            need(len(e["member_id"]) == 16 and e["policy"] in (1, 2), "an expulsion names no member or no policy")
            self.expelled[e["member_id"]] = e["policy"]
        for cut in [cut for e in c["expulsions"] for cut in e["cutoffs"]] + c["cutoffs"]:
            origin = origin_of(cut["origin"])
            need(origin and len(cut["last_hash"]) == 32, "a cutoff names no log or no block")
            self.cutoffs[origin] = (cut["last_seq"], cut["last_hash"])

    def read_erasures(self, orders):
        self.erasures = {}
        for order in orders:
            place = (origin_of(order["origin"]), order["seq"], order["index"])
            need(place[0] and len(order["leaf_hash"]) == 32, "an erasure names no log or no leaf")
            need(order["seq"] > 0 and order["index"] < 512 and place[1:] != (1, 0), "an erasure names no record")
            need(place not in self.erasures, "an erasure names a record twice")
            self.erasures[place] = order["leaf_hash"]

    def signed_by_enough(self, signed_charter):
        """C2: how many of this version's founders signed; unknown and repeated signers are passed over."""
        signers = set()
        for sig in signed_charter["sigs"][:256]:
            key = self.founders.get(sig["key_id"])
            if key and signed(key, "charter", signed_charter["body"], sig["sig"]):
                signers.add(sig["key_id"])
        return len(signers) >= self.threshold


class Chain:
    """The charters that count, in order (C1 to C4)."""

    def __init__(self, forum):
        self.forum, self.links, self.forked = forum, [], None

    def add(self, signed_charter):
        charter = Charter(signed_charter["body"])
        if not self.links:
            need(charter.hash == self.forum, f"charter 1 is of forum {charter.hash.hex()}, expected {self.forum.hex()}")
            need(charter.version == 1 and not charter.prev and not charter.forum, "the first charter is not version 1")
            need(len(charter.nonce) == 32, "charter 1 has no nonce")
            need(charter.signed_by_enough(signed_charter), "too few founders signed charter 1")
            self.check_possession(charter)
        else:
            need(charter.version == len(self.links) + 1, "charter versions have a gap or stand twice")
            self.check_counts(charter, signed_charter)
        self.links.append(charter)

    def check_counts(self, charter, signed_charter):
        need(2 <= charter.version <= len(self.links) + 1, f"no charter before version {charter.version}")
        before = self.links[charter.version - 2]
        need(charter.forum == self.forum, "a charter is of another forum")
        need(charter.prev == before.hash, "a charter does not follow the one before")
        enough = before.signed_by_enough(signed_charter) and charter.signed_by_enough(signed_charter)
        need(enough, f"too few founders signed charter {charter.version}")
        self.check_possession(charter)

    def check_possession(self, charter):
        nonce = self.links[0].nonce if self.links else charter.nonce
        for m in charter.members.values():
            bodies = [context + m["id"] + m["log_root_key"] for context in (nonce, self.forum)]
            possessed = any(signed(m["log_root_key"], "member-key", body, m["pop"]) for body in bodies)
            need(possessed, f"member {m['name']} has no proof of possession of its key")

    def fork(self, proof):
        """C4: two charters that count for one version."""
        need(proof["a"] and proof["b"], "a charter fork lacks a charter")
        a, b = Charter(proof["a"]["body"]), Charter(proof["b"]["body"])
        need(a.version == b.version and a.hash != b.hash, "a charter fork is not two charters of one version")
        self.check_counts(a, proof["a"])
        self.check_counts(b, proof["b"])
        self.forked = min(a.version, self.forked or a.version)

    def in_force(self):
        return self.links[self.forked - 2] if self.forked else self.links[-1]

    def root_keys(self):
        """(member_id, key_id) -> (key, greatest log limit that any charter gave with it)."""
        roots = {}
        for charter in self.links:
            for m in charter.members.values():
                place = (m["id"], sha(m["log_root_key"]))
                limit = roots.get(place, (None, 0))[1]
                roots[place] = (m["log_root_key"], max(limit, m["log_limit"]))
        return roots

    def erasures(self):
        orders = {}
        for charter in self.links:
            orders.update(charter.erasures)
        return orders

    def name_of(self, member):
        names = [c.members[member]["name"] for c in self.links if member in c.members]
        return names[-1] if names else member.hex()


# ---- Records (protocol 3.3) -------------------------------------------------------------------------------------------

SUBMIT, ENDORSE, DISPUTE, NEUTRAL = 1, 2, 3, 4
REASONS = set(range(0, 11)) | {99}
LENGTHS = {1: 32, 2: 16, 3: 20, 4: 32, 5: 64, 6: 35, 7: 32, 9: 32}
ACCOUNT = 3
VIDEO = 8
FRAME = struct.Struct(">32sBI")
Says = collections.namedtuple("Says", "what level roles withdraws fields")


class Inert(Exception):
    """A record without effect."""


def expect(holds):
    if not holds:
        raise Inert


def is_frames(digest):
    """1 to 100 frames of a hash, a quality up to 100 and a time, times ascending."""
    if len(digest) % FRAME.size or not 1 <= len(digest) // FRAME.size <= 100:
        return False
    frames = list(FRAME.iter_unpack(digest))
    return all(f[1] <= 100 for f in frames) and all(a[2] < b[2] for a, b in zip(frames, frames[1:]))


def subject_of(s):
    expect(s is not None and s["type"] < 1 << 16 and s["alg"] < 1 << 16)
    if s["alg"] in LENGTHS:
        kind = {7: 2, 9: ACCOUNT}.get(s["alg"], 1)
        expect(s["type"] == kind and (s["param"] > 0) == (kind == ACCOUNT) and len(s["digest"]) == LENGTHS[s["alg"]])
    elif s["alg"] == VIDEO:
        expect(s["type"] == 1 and s["param"] == 0 and is_frames(s["digest"]))
    else:
        expect(20 <= s["alg"] <= 29 and s["type"] in (1, 2))
    return s["type"], s["alg"], s["param"], s["digest"]


def is_language(tag):
    parts = tag.split("-")

    def fits(part, least, also_digits):
        letters = part.isascii() and (part.isalnum() if also_digits else part.isalpha())
        return least <= len(part) <= 8 and letters

    return fits(parts[0], 2, False) and all(fits(part, 1, True) for part in parts[1:]) and len(tag) <= 35


def heads_of(heads):
    marks = []
    for head in heads:
        origin = origin_of(head["origin"])
        expect(origin and head["seq"] > 0 and len(head["header_hash"]) == 32)
        marks.append((origin, head["seq"], head["header_hash"]))
    return marks


def of_account(says):
    """The subject, if it is an account."""
    subject = says.fields.get("subject")
    return subject if isinstance(subject, tuple) and subject[0] == ACCOUNT else None


def level_of(says):
    """The level that what it is about needs; 1 if none."""
    subject = says.fields.get("subject")
    if not isinstance(subject, tuple):
        return 1
    return 3 if subject[0] == ACCOUNT else 4 if subject[1] == VIDEO else 1


def meaning(data):
    """What a record says, or None if it is inert."""
    try:
        says = try_meaning(data)
        return says._replace(level=max(says.level, level_of(says)))
    except (NotStrict, UnknownField, Inert):
        return None


def try_meaning(data):
    expect(len(data) <= 4096)
    record = read(data, RECORD)
    expect(len(record["salt"]) == 16)
    kind, body = record["kind"], record["body"]
    everybody = 127
    if kind == 1:
        return Says("open", 1, everybody, False, read(body, LOG_OPEN))
    if kind == 2:
        o = read(body, OPINION)
        expect(1 <= o["stance"] <= 4 and o["severity"] <= 4 and o["basis"] <= 5)
        expect(o["confidence"] <= 100 and o["quality"] <= 100 and o["reason"] in REASONS)
        expect(all(len(o[name]) in (0, 16) for name in ("item_id", "incident_id", "client_key")))
        expect(all(is_language(tag) for tag in o["languages"]))
        o["subject"] = subject_of(o["subject"])
        return Says("opinion", 1, FULL | SMALL, o["stance"] == NEUTRAL, o)
    if kind == 3:
        v = read(body, RETRACT_VOTE)
        v["subject"] = subject_of(v["subject"])
        expect(v["reason"] in REASONS)
        return Says("retract", 1, FULL, True, v)
    if kind == 4:
        a = read(body, ALLOW)
        expect(not a["yes"] or a["expires_ms"] > 0)
        a["subject"] = subject_of(a["subject"])
        return Says("allow", 1, CERTIFIER, not a["yes"], a)
    if kind == 5:
        r = read(body, REFERRAL)
        r["subject"] = subject_of(r["subject"])
        return Says("referral", 1, REFERRER, not r["open"], r)
    if kind == 6:
        i = read(body, INCIDENT)
        expect(len(i["id"]) == 16)
        return Says("incident", 1, FULL | STEWARD, not i["open"], i)
    if kind == 7:
        a = read(body, ATTEST)
        expect(1 <= len(a["heads"]) <= 48)
        return Says("attest", 2, FULL | SMALL | OBSERVER | AUDITOR, False, {"heads": heads_of(a["heads"])})
    if kind == 8:
        return Says("evidence", 1, everybody, False, read(body, EVIDENCE))
    if kind == 9:
        s = read(body, SUSPEND)
        expect(len(s["member_id"]) == 16 and s["reason"] in REASONS)
        marks = heads_of(s["marks"])
        by_log = {origin: (seq, digest) for origin, seq, digest in marks}
        expect(len(by_log) == len(marks) and all(origin[0] == s["member_id"] for origin in by_log))
        s["marks"] = by_log
        return Says("suspend", 2, STEWARD, False, s)
    if kind == 10:
        return Says("close", 1, everybody, False, read(body, LOG_CLOSE))
    if kind == 11:
        return Says("note", 2, AUDITOR, False, read(body, AUDIT_NOTE))
    if kind == 12:
        return Says("resource", 2, CERTIFIER, False, read(body, RESOURCE))
    if kind == 13:
        preserve = read(body, PRESERVE)
        preserve["subject"] = subject_of(preserve["subject"])
        return Says("preserve", 2, FULL | SMALL, False, preserve)
    if kind == 14:
        outcome = read(body, OUTCOME)
        outcome["subject"] = subject_of(outcome["subject"])
        return Says("outcome", 2, FULL | SMALL, False, outcome)
    raise Inert


# ---- Headers, blocks, logs (protocol 3.1 and 3.2) ---------------------------------------------------------------------


class Header:
    """The 252 bytes and their signature."""

    LAYOUT = struct.Struct(">8s32s16sIHHQQ32s32sII32s32sI32s")

    def __init__(self, data, signature=b""):
        need(len(data) == 252, "a header has not 252 bytes")
        (magic, self.forum, member, log_no, self.cls, self.audience, self.seq, self.time, self.prev, self.log_root,
         self.count, self.length, self.records_root, self.key_id, self.flags, self.ext_hash) = self.LAYOUT.unpack(data)
        need(magic == b"SDBLOCK1", "a header does not begin with SDBLOCK1")
        self.origin, self.data, self.signature = (member, log_no), data, signature
        self.lane = (self.cls, self.audience)
        self.hash = sha(b"staydown/header/v1\n", data)

    def __str__(self):
        return f"{self.origin[0].hex()}/{self.origin[1]}@{self.seq}"


Opening = collections.namedtuple("Opening", "key key_id root lane")


class Keyring:
    """The members' root keys, and the erasure orders."""

    def __init__(self, chain):
        self.forum, self.roots, self.erasures = chain.forum, chain.root_keys(), chain.erasures()

    def opening(self, header, message, lane):
        """The log's key, if the member's root key says that it is."""
        root = self.roots.get((header.origin[0], message["root_key_id"]))
        need(root and header.origin[1] < root[1], f"block {header}: no charter gives the member this root key and log")
        key = message["public_key"]
        need(is_sound(key), f"block {header}: the log's key is not sound")
        body = self.forum + header.origin[0] + struct.pack(">IHH", header.origin[1], *lane) + key
        body += message["root_key_id"]
        holds = signed(root[0], "log-open", body, message["root_signature"])
        need(holds, f"block {header}: the opening of its log is not signed")
        return Opening(key, sha(key), message["root_key_id"], lane)

    def check_signed(self, header, opening):
        need(header.forum == self.forum, f"block {header} is of another forum")
        holds = header.key_id == opening.key_id and signed(opening.key, "block-header", header.data, header.signature)
        need(holds, f"block {header}: the signature does not hold")

    def signed_header(self, message, lane=None):
        """A header that travels with its opening."""
        header = Header(message["header"], message["signature"])
        need(header.forum == self.forum, f"block {header} is of another forum")
        need(message["open"] is not None, f"block {header} comes without an opening")
        header.opening = self.opening(header, message["open"], lane or header.lane)
        self.check_signed(header, header.opening)
        return header


class Slot:
    """A record, or the leaf that its erasure left."""

    def __init__(self, message):
        which = message.get("which")
        both = message["record"] and message["redacted_leaf"]
        need(which and not both, "a slot is empty")
        self.record = message["record"] if which == "record" else None
        if self.record is None:
            need(len(message["redacted_leaf"]) == 32, "a slot has a leaf of another length")
        self.leaf = leaf_hash(self.record) if self.record is not None else message["redacted_leaf"]


def counts_hold(header, slots):
    """Rule 8; with a redacted slot as far as it can be told."""
    present = sum(len(slot.record) for slot in slots if slot.record is not None)
    whole = all(slot.record is not None for slot in slots)
    in_range = 1 <= header.count <= 512 and header.count == len(slots) and header.length <= 262_144
    return in_range and (present == header.length if whole else present <= header.length)


class Log:
    """One chain of one log, from its first block on."""

    def __init__(self, origin):
        self.origin, self.opening, self.closed = origin, None, False
        self.headers, self.said, self.tree = [], [], Tree()

    def __len__(self):
        return len(self.headers)

    def hash_at(self, seq):
        return self.headers[seq - 1].hash if 1 <= seq <= len(self.headers) else None

    def extend(self, frame, keyring):
        """Takes the next block, by the rules of section 3.2; returns the number of records that are gone."""
        header = Header(frame["header"], frame["signature"])
        slots = [Slot(slot) for slot in frame["slots"]]
        need(len(slots) <= 512, f"block {header} has more than 512 slots")
        need(sum(len(s.record or b"") for s in slots) <= 262_144, f"block {header} has more than 262,144 bytes")
        need(not frame["ext"] or sha(frame["ext"]) == header.ext_hash, f"block {header}: ext is another")
        need(header.forum == keyring.forum, f"block {header} is of another forum")
        if header.seq == 1:
            first = meaning(slots[0].record) if slots and slots[0].record is not None else None
            need(first and first.what == "open", f"block {header} does not open its log")
            self.opening = keyring.opening(header, first.fields, header.lane)
        need(self.opening is not None, f"block {header}: its log is not opened")
        keyring.check_signed(header, self.opening)
        need(tree_root(s.leaf for s in slots) == header.records_root, f"block {header} has other records than signed")
        need(header.flags == 0, f"block {header} has unknown flags")
        said, erased = [], 0
        for index, slot in enumerate(slots):
            ordered = keyring.erasures.get((header.origin, header.seq, index)) == slot.leaf
            need(slot.record is not None or ordered, f"block {header}: record {index} is left out without an order")
            if ordered:
                slot.record = None
            erased += slot.record is None
            said.append(meaning(slot.record) if slot.record is not None else None)
        need(counts_hold(header, slots), f"block {header} has other numbers than its records")
        prev = self.headers[-1].hash if self.headers else bytes(32)
        follows = header.seq == len(self) + 1 and header.prev == prev and header.log_root == self.tree.root()
        need(follows and not self.closed, f"block {header} does not continue its log")
        need(header.lane == self.opening.lane, f"block {header} is of another lane than its log")
        need(not self.headers or header.time >= self.headers[-1].time, f"block {header} is older than the one before")
        self.headers.append(header)
        self.said.append(said)
        self.tree.append(leaf_hash(header.hash))
        self.closed = any(s and s.what == "close" for s in said)
        return erased


# ---- Proofs (protocol 8) ----------------------------------------------------------------------------------------------


def accused(proof, keyring):
    """(origin, root key id, place) of a fork or fault proof that holds."""
    if proof["fork"]:
        return fork_proven(proof["fork"], keyring)
    need(proof["fault"], "a proof is of an unknown kind")
    return fault_proven(proof["fault"], keyring)


def fork_proven(fork, keyring):
    need(fork["a"] and fork["b"], "a fork proof lacks a header")
    headers = []
    for one, other in ((fork["a"], fork["b"]), (fork["b"], fork["a"])):
        try:
            headers.append(keyring.signed_header(one))
        except Broken:
            # A header of the wrong lane: then the other one shows for which lane the log was opened.
            headers.append(keyring.signed_header(one, keyring.signed_header(other).lane))
    a, b = headers
    same = (a.origin, a.seq, a.opening.root) == (b.origin, b.seq, b.opening.root)
    need(same and a.hash != b.hash, "the two headers of a fork proof do not contradict each other")
    return a.origin, a.opening.root, max(a.seq, 1)


def fault_proven(fault, keyring):
    rule, no_contradiction = fault["rule"], "a fault proof proves no fault"
    need(rule in (5, 6, 7, 8), "a fault proof names no rule")
    prev = keyring.signed_header(fault["prev"]) if fault["prev"] else None
    need(fault["bad"], "a fault proof lacks its header")
    bad = keyring.signed_header(fault["bad"], prev.lane if prev else None)
    superfluous = (rule != 8 and fault["slots"]) or (rule == 8 and prev)
    superfluous = superfluous or ((rule != 5 or not prev) and fault["frontier"])
    need(not superfluous, "a fault proof has more than it needs")
    if prev:
        follows = bad.origin == prev.origin and bad.seq == prev.seq + 1 and bad.opening.key_id == prev.opening.key_id
        need(follows, "the headers of a fault proof do not follow each other")
    if rule == 5 and prev:
        peaks, size = fault["frontier"], prev.seq - 1
        fits = size >= 0 and len(peaks) == bin(size).count("1") and all(len(peak) == 32 for peak in peaks)
        need(fits, "the frontier of a fault proof has another size")
        tree = Tree(size, peaks)
        need(tree.root() == prev.log_root, "the frontier of a fault proof is another")
        tree.append(leaf_hash(prev.hash))
        need(bad.prev != prev.hash or bad.log_root != tree.root(), no_contradiction)
    elif rule == 5:
        wrong = bad.seq == 0 or (bad.seq == 1 and (bad.prev != bytes(32) or bad.log_root != sha(b"")))
        need(wrong, no_contradiction)
    elif rule == 6:
        need(prev and prev.lane != bad.lane, no_contradiction)
    elif rule == 7:
        need(prev and bad.time < prev.time, no_contradiction)
    else:
        slots = [Slot(slot) for slot in fault["slots"]]
        whole = bad.flags == 0 and all(slot.record is not None for slot in slots)
        need(whole and tree_root(s.leaf for s in slots) == bad.records_root, "a fault proof has other records")
        need(not counts_hold(bad, slots), no_contradiction)
    return bad.origin, bad.opening.root, max(bad.seq, 1)


# ---- The view (protocol 5) --------------------------------------------------------------------------------------------


class View:
    """Layers 0 to 6 at the full hour `t`: a function of charters, proofs and blocks."""

    def __init__(self, charter, logs, forks, t):
        self.charter, self.logs, self.forks, self.t = charter, logs, forks, t
        self.final = self.finality() if charter.semantics >= 2 else {}
        self.unsuspended = {origin: self.prefix(log, self.settled(log)) for origin, log in logs.items()}
        self.suspended = self.suspensions() if charter.semantics >= 2 else {}
        self.prefixes = {origin: self.marked(log) for origin, log in logs.items()}
        self.fold()

    # Layers 1 to 3: how far each log counts.

    def fork(self, log):
        """The lowest place that a proof disputes in this log, by the root key that opened it; None: undisputed."""
        return self.forks.get((log.origin, log.opening.root))

    def voters(self):
        """Groups that attest, with their members."""
        roles = FULL | AUDITOR if self.charter.policy["auditors_attest"] else FULL
        voters = collections.defaultdict(set)
        for m in self.charter.members.values():
            if m["status"] == ACTIVE and m["roles"] & roles:
                voters[m["group"]].add(m["id"])
        return voters

    def attested(self):
        """Origin -> member -> [(rank, seq, hash)], of convicted logs."""
        convicted = {origin for origin, _ in self.forks}
        attested = collections.defaultdict(lambda: collections.defaultdict(list))
        for by, log in self.logs.items():
            fork = self.fork(log)
            below = len(log) if fork is None else fork - 1
            read = min(below, self.prefix(log, below))
            made = collections.Counter()
            for header, said in zip(log.headers, log.said):
                for index, says in enumerate(said):
                    heads = says.fields["heads"] if says and says.what == "attest" else []
                    for place, (origin, seq, digest) in enumerate(heads):
                        if origin not in convicted:
                            continue
                        made[origin, header.time // DAY] += 1
                        if made[origin, header.time // DAY] <= 1440 and header.seq <= read:
                            rank = (header.time, by[1], header.seq, index, place)
                            attested[origin][by[0]].append((rank, by[0], seq, digest))
        return attested

    def finality(self):
        attested, voters, final = self.attested(), self.voters(), {}
        for origin, log in self.logs.items():
            if self.fork(log) is None:
                continue
            owner = self.charter.members.get(origin[0])
            groups = [ids for group, ids in voters.items() if not owner or group != owner["group"]]
            needed = 2 * len(groups) // 3 + 1
            heights = []
            for ids in groups:
                height = 0
                for _, _, seq, digest in sorted(word for member in ids for word in attested[origin][member]):
                    if log.hash_at(seq) != digest:
                        break
                    height = max(height, seq)
                heights.append(height)
            heights.sort(reverse=True)
            final[origin] = heights[needed - 1] if len(heights) >= needed else 0
        return final

    def settled(self, log):
        """K: how far a log counts by proofs, finality, and a cutoff that picks its chain across a fork."""
        fork = self.fork(log)
        if fork is None:
            return len(log)
        settled = max(fork - 1, self.final.get(log.origin, 0))
        cutoff = self.charter.cutoffs.get(log.origin)
        if cutoff and cutoff[0] <= len(log):
            if cutoff[0] < fork:
                settled = fork - 1
            elif log.hash_at(cutoff[0]) == cutoff[1]:
                settled = cutoff[0]
            elif cutoff[0] <= settled:
                settled = fork - 1
        return min(settled, len(log))

    def prefix(self, log, settled):
        """What the charter lets count of it."""
        member = self.charter.members.get(log.origin[0])
        expelled = self.charter.expelled.get(log.origin[0])
        if member is None or expelled == 2:
            return 0
        cutoff = self.charter.cutoffs.get(log.origin)
        if cutoff is None:
            current = log.opening.root == sha(member["log_root_key"])
            return settled if current and not expelled and member["status"] == ACTIVE else 0
        here = log.hash_at(cutoff[0])
        if here == cutoff[1]:
            return cutoff[0]
        if here is not None and cutoff[0] <= settled:
            fork = self.fork(log)
            return min(fork - 1, cutoff[0]) if fork else 0
        return min(settled, cutoff[0])

    def suspensions(self):
        """Member -> marks of each suspension in force."""
        words = collections.defaultdict(list)
        for origin, log in self.logs.items():
            member, made = self.charter.members.get(origin[0]), collections.Counter()
            if not member or member["status"] != ACTIVE or not member["roles"] & STEWARD:
                continue
            for header, said in zip(log.headers, log.said):
                for index, says in enumerate(said):
                    if not says or says.what != "suspend":
                        continue
                    made[header.time // DAY] += 1
                    until = says.fields["until_ms"]
                    lasts = until <= header.time + 14 * DAY and self.t < -(-until // HOUR) * HOUR
                    if made[header.time // DAY] <= 64 and lasts and header.seq <= self.unsuspended[origin]:
                        rank = (header.time, origin[1], header.seq, index)
                        words[origin[0]].append((rank, says.fields["member_id"], says.fields["marks"]))
        active = sum(m["status"] == ACTIVE for m in self.charter.members.values())
        room, suspended = max((active - 1) // 3, 1), collections.defaultdict(list)
        for said in words.values():
            targets = set()
            for _, target, marks in sorted(said, key=lambda word: word[0]):
                if target in targets or len(targets) < room:
                    targets.add(target)
                    suspended[target].append(marks)
        return suspended

    def marked(self, log):
        """How far a log counts when suspensions are looked at."""
        counted = prefix = self.unsuspended[log.origin]
        for marks in self.suspended.get(log.origin[0], ()):
            if log.origin not in marks:
                return 0
            seq, digest = marks[log.origin]
            if seq <= counted and log.hash_at(seq) != digest:
                fork = self.fork(log)
                seq = min(seq, fork - 1 if fork else 0)
            prefix = min(prefix, seq)
        return prefix

    # Layers 4 and 5: what counts, and what stands.

    def fold(self):
        self.registers = collections.defaultdict(dict)  # subject -> (member, family) -> (rank, value, expires, fields)
        self.incidents = collections.defaultdict(dict)  # id -> member -> (rank, code, open, closes)
        used = collections.Counter()
        for origin in sorted(self.logs):
            log, member = self.logs[origin], self.charter.members.get(origin[0])
            for header, said in list(zip(log.headers, log.said))[: self.prefixes[origin]]:
                if member is None or header.cls > 2:
                    continue
                quota = self.charter.policy["quota_per_day"][header.cls]
                for index, says in enumerate(said):
                    # Below its level a record takes nothing back.
                    withdraws = bool(says and says.withdraws and says.level <= self.charter.semantics)
                    purse = (origin[0], header.cls, header.time // DAY, withdraws)
                    used[purse] += 1
                    if says and used[purse] <= quota and header.time >= member["admitted_ms"]:
                        allowed = says.level <= self.charter.semantics and member["roles"] & says.roles
                        if allowed and self.account_counts(header, says):
                            self.take(member["id"], header, (header.time, origin[1], header.seq, index), says)

    def account_counts(self, header, says):
        """Layer 5: what is said of an account has a pepper of the charter, and an end; what takes back needs none."""
        subject, f = of_account(says), says.fields
        if subject is None:
            return True
        if subject[2] not in self.charter.peppers or says.what in ("preserve", "outcome"):
            return False
        if says.what == "retract" or says.withdraws:
            return True
        return 0 < f["expires_ms"] <= header.time + self.charter.policy["account_ttl_max_ms"]

    def take(self, member, header, rank, says):
        f = says.fields
        if says.what == "opinion":
            self.put(f["subject"], (member, "stance"), (rank, f["stance"], f["expires_ms"], f))
        elif says.what == "retract":
            self.put(f["subject"], (member, "retract"), (rank, f["yes"], 0, f))
        elif says.what == "allow" and f["expires_ms"] <= header.time + 400 * DAY:
            self.put(f["subject"], (member, "allow"), (rank, f["yes"], f["expires_ms"], f))
        elif says.what == "referral":
            self.put(f["subject"], (member, "referral"), (rank, f["open"], f["expires_ms"], f))
        elif says.what == "incident":
            registers = self.incidents[f["id"]]
            if member not in registers or registers[member][0] < rank:
                registers[member] = (rank, f["code"], f["open"], f["closes_ms"])

    def put(self, subject, place, register):
        standing = self.registers[subject].get(place)
        if standing is None or standing[0] < register[0]:
            self.registers[subject][place] = register

    # Layer 6 and the digest.

    def status(self, counts):
        support, small, disputes, retract, allow, referred = counts
        policy = self.charter.policy
        full = {m["group"] for m in self.charter.members.values() if m["status"] == ACTIVE and m["roles"] & FULL}
        share = -(-len(full) * policy["retract_permille"] // 1000)
        if retract >= max(policy["retract_min"], share):
            return 2
        if allow >= policy["allow_quorum"]:
            return 3
        if support + small > 0 and disputes >= policy["contest_quorum"]:
            return 4
        return 5 if support else 6 if small else 7 if referred else 8

    def entry(self, registers):
        """(status, counts, supporters, labels) of a subject."""
        groups, supporters, labels = [set() for _ in range(6)], set(), set()
        for (member_id, family), (_, value, expires, fields) in registers.items():
            member = self.charter.members[member_id]
            neutral = value == NEUTRAL if family == "stance" else not value
            supports = family == "stance" and value in (SUBMIT, ENDORSE)
            if neutral or 0 < expires <= self.t or (member["status"] == FORMER and not supports):
                continue
            if family == "stance":
                column = 2 if value == DISPUTE else 0 if member["roles"] & FULL else 1
            else:
                column = {"retract": 3, "allow": 4, "referral": 5}[family]
            groups[column].add(member["group"])
            if supports:
                supporters.add(member_id)
                labels.update(fields["labels"])
                for _, code, is_open, closes in self.incidents.get(fields["incident_id"], {}).values():
                    if is_open and (closes == 0 or closes > self.t):
                        labels.add(code)
        counts = [len(group) for group in groups]
        return self.status(counts), counts, supporters, labels

    def digest(self):
        """The view digest, and the number of subjects that are listed."""
        total, listed = 0, 0
        for subject, registers in self.registers.items():
            status, counts, supporters, labels = self.entry(registers)
            if status == 8:
                continue
            kind, alg, param, digest = subject
            subject_id = sha(b"staydown/subject/v1\n", struct.pack(">HHIH", kind, alg, param, len(digest)), digest)
            summand = b"staydown/view/v1\n" + subject_id + struct.pack(">B6I", status, *counts)
            summand += struct.pack(">I", len(supporters)) + b"".join(sorted(supporters))
            summand += struct.pack(">I", len(labels)) + b"".join(struct.pack(">I", label) for label in sorted(labels))
            total += int.from_bytes(sha(summand), "big")
            listed += 1
        return (total % 2**256).to_bytes(32, "big"), listed


# ---- Files (docs/verify.md) -------------------------------------------------------------------------------------------

MAGIC = {b"STAYDOWN BUNDLE  1\n": "bundle", b"STAYDOWN RECEIPT 1\n": "receipt"}
ITEM_MAX = 3 << 20
TRAILER = struct.Struct(">QQQQQ32s32s")
ORDER = {"bundle": "CPBT", "receipt": "CPRAT"}


def items_of(data):
    """(kind of file, [(letter, bytes)], trailer): the form of a file, and nothing else."""
    what = MAGIC.get(data[:19])
    if what is None:
        raise BadFile("this is no evidence file")
    items, at, last = [], 19, "C"
    while True:
        if at + 5 > len(data):
            raise BadFile("the file ends before its trailer")
        letter, length = chr(data[at]), int.from_bytes(data[at + 1 : at + 5], "big")
        if letter not in "CPBRAT" or length > ITEM_MAX or (letter == "T" and length != TRAILER.size):
            raise BadFile("an item has an unknown kind or a wrong length")
        if at + 5 + length > len(data):
            raise BadFile("the file ends before its trailer")
        order = ORDER[what]
        again = what == "receipt" and letter == "R" and last == "A"
        orphan = letter == "A" and last not in "RA"
        if letter not in order or orphan or not (again or order.index(letter) >= order.index(last)):
            raise BadFile(f"an item {letter} stands after an item {last}")
        content, at, last = data[at + 5 : at + 5 + length], at + 5 + length, letter
        if letter == "T":
            break
        items.append((letter, content))
    if at != len(data):
        raise BadFile("bytes follow the trailer")
    trailer = TRAILER.unpack(content)
    need(sha(data[:-32]) == trailer[6], "the file was changed: its hash is another")
    count = collections.Counter(letter for letter, _ in items)
    main = count["B"] if what == "bundle" else count["R"]
    need(trailer[:3] == (count["C"], count["P"], main), "the trailer counts other items")
    if what == "receipt":
        need(trailer[3] == count["A"], "the trailer counts other attestations")
        if trailer[4] or trailer[5] != bytes(32):
            raise BadFile("a receipt names a view")
    if trailer[4] % HOUR:
        raise BadFile("the trailer names no full hour")
    return what, items, trailer


def verify(data, forum):
    """What a file shows to be true, as a dictionary. Raises Broken or BadFile."""
    what, items, trailer = items_of(data)
    chain, signatures = Chain(forum), 0
    for letter, content in items:
        if letter == "C":
            charter = exactly(content, SIGNED_CHARTER, "a charter")
            chain.add(charter)
            signatures += len(charter["sigs"])
    need(chain.links, "the file has no charter")
    keyring, forks, last = Keyring(chain), {}, b""
    for letter, content in items:
        if letter != "P":
            continue
        proof = exactly(content, PROOF, "a proof")
        need(sum(proof[kind] is not None for kind in ("fork", "fault", "charter")) == 1, "a proof is not one proof")
        name = sha(b"staydown/proof/v1\n", content)
        need(name > last, "a proof stands in the wrong place")
        last = name
        if proof["charter"]:
            need(what == "bundle", "a receipt has a charter fork")
            chain.fork(proof["charter"])
        else:
            origin, root, seq = accused(proof, keyring)
            forks[origin, root] = min(seq, forks.get((origin, root), seq))
    told = {"kind": what, "charters": len(chain.links), "proofs": sum(letter == "P" for letter, _ in items)}
    more = bundle if what == "bundle" else receipt
    told.update(more(items, trailer, chain, keyring, forks, signatures))
    charter = chain.in_force()
    told.update({"forum": charter.name, "charter_version": charter.version})
    return told


def bundle(items, trailer, chain, keyring, forks, signatures):
    charter = chain.in_force()
    need(charter.semantics <= SEMANTICS_MAX, f"the charter in force is of level {charter.semantics}: too new")
    logs, before, blocks, records, erased = {}, None, 0, 0, 0
    for letter, content in items:
        if letter != "B":
            continue
        frame = exactly(content, BLOCK_FRAME, "a block")
        header = Header(frame["header"])
        place = (header.origin, header.seq)
        need(before is None or before < place, f"block {header} stands in the wrong place")
        before = place
        log = logs.setdefault(header.origin, Log(header.origin))
        erased += log.extend(frame, keyring)
        blocks, records = blocks + 1, records + len(frame["slots"])
    need(records == trailer[3], f"the trailer counts {trailer[3]} records, the blocks hold {records}")
    view = View(charter, logs, forks, trailer[4])
    digest, listed = view.digest()
    need(digest == trailer[5], f"the trailer claims the view {trailer[5].hex()}, the blocks give {digest.hex()}")
    disputed = sum(view.fork(log) is not None for log in logs.values())
    return {
        "logs": len(logs), "blocks": blocks, "records": records, "erased": erased, "disputed": disputed,
        "signatures": signatures + blocks + len(logs), "listed": listed, "view_hour_ms": trailer[4],
        "view_digest": digest.hex(),
    }


def included(message, keyring):
    """The signed header of a record, and the record unless it was erased."""
    opening = exactly(message["log_open"], LOG_OPEN, "an opening")
    header = keyring.signed_header({"header": message["header"], "signature": message["signature"], "open": opening})
    need(header.seq > 0 and header.flags == 0, f"block {header} has place 0 or unknown flags")
    record, leaf, index = message["record"], message["redacted_leaf"], message["index"]
    need(bool(record) != bool(leaf), "a receipt has not one of record and leaf")
    if leaf:
        ordered = keyring.erasures.get((header.origin, header.seq, index)) == leaf
        need(ordered, f"record {index} of block {header} is left out without an order")
    root = root_by_path(leaf or leaf_hash(record), index, header.count, checked_path(message["path"]))
    need(root == header.records_root, f"record {index} is not in block {header}")
    return header, record or None


def checked_path(path):
    need(all(len(node) == 32 for node in path), "a path has hashes of another length")
    return path


def receipt(items, _trailer, chain, keyring, forks, signatures):
    shown, latest = [], None
    for letter, content in items:
        if letter == "R":
            message = exactly(content, INCLUSION, "a record")
            latest, record = included(message, keyring)
            disputed = [seq for (origin, _), seq in forks.items() if origin == latest.origin]
            shown.append({
                "member": chain.name_of(latest.origin[0]), "member_id": latest.origin[0].hex(),
                "log_no": latest.origin[1], "seq": latest.seq, "index": message["index"], "time_ms": latest.time,
                "record": record.hex() if record else None, "erased": record is None,
                "disputed_from": min(disputed) if disputed else None, "attested": [],
            })
            signatures += 2
        elif letter == "A":
            member, time = attested(exactly(content, ATTESTED, "an attestation"), latest, keyring)
            shown[-1]["attested"].append({"member": chain.name_of(member), "time_ms": time})
            signatures += 2
    logs = {(record["member_id"], record["log_no"]) for record in shown}
    disputed_logs = {origin for origin, _ in forks}
    return {
        "records": shown, "logs": len(logs), "disputed": len(disputed_logs), "signatures": signatures,
        "erased": sum(record["erased"] for record in shown),
    }


def attested(message, header, keyring):
    """Who says, and when, that it holds the log at least up to the block of `header`."""
    need(message["by"], "an attestation has no record")
    by, record = included(message["by"], keyring)
    says = meaning(record) if record else None
    need(says and says.what == "attest", "an attestation attests nothing")
    path = checked_path(message["path"])
    if message["head"]:
        named = Header(message["head"])
        one_log = named.forum == header.forum and named.origin == header.origin and named.seq > header.seq
        root = root_by_path(leaf_hash(header.hash), header.seq - 1, named.seq - 1, path)
        need(one_log and root == named.log_root, "the header that an attestation names does not come after the record")
    else:
        named = header
        need(not path, "an attestation has a path that leads nowhere")
    holds = (named.origin, named.seq, named.hash) in says.fields["heads"] and by.origin[0] != header.origin[0]
    need(holds, "an attestation is no other member's word on that block")
    return by.origin[0], by.time


# ---- The command ------------------------------------------------------------------------------------------------------


def check(path, forum):
    """(exit code, what is told)."""
    try:
        with open(path, "rb") as file:
            return OK, verify(file.read(), forum)
    except Broken as error:
        return BROKEN, {"error": str(error)}
    except (BadFile, OSError) as error:
        return BAD_FILE, {"error": str(error)}


def check_sets(path):
    """A file of many bundles, each behind its forum's fingerprint and its length: for tests of the view."""
    count = 0
    with open(path, "rb") as file:
        while head := file.read(36):
            data = file.read(int.from_bytes(head[32:], "big"))
            try:
                verify(data, head[:32])
            except (Broken, BadFile) as error:
                return BROKEN, {"error": f"set {count}: {error}"}
            count += 1
    return OK, {"sets": count}


def main():
    parser = argparse.ArgumentParser(description="Check evidence files of a staydown forum.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--forum", metavar="FINGERPRINT", help="as the founders told it, never taken from the file")
    parser.add_argument("--json", action="store_true", help="one JSON value for each file")
    parser.add_argument("--sets", action="store_true", help="files of many bundles, each with its fingerprint")
    args = parser.parse_args()
    forum = b""
    if not args.sets:
        try:
            forum = bytes.fromhex("".join(c for c in args.forum or "" if c not in " :-"))
        except ValueError:
            pass
        if len(forum) != 32:
            parser.error("--forum: a fingerprint has 64 hexadecimal digits")
    worst = OK
    for path in args.files:
        code, told = check_sets(path) if args.sets else check(path, forum)
        worst = max(worst, code)
        if args.json:
            print(json.dumps({"file": path, "exit_code": code, **told}))
        elif code == OK:
            print(f"{path}: verified")
            for name, value in told.items():
                print(f"  {name}: {json.dumps(value)}")
        else:
            print(f"{path}: {told['error']}", file=sys.stderr)
    return worst


if __name__ == "__main__":
    sys.exit(main())
