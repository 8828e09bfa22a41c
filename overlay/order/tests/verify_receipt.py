#!/usr/bin/env python3
"""Verifies receipts of a wattle log with nothing but Python and the genesis. Written apart from the Rust verifier.

    verify_receipt.py GENESIS < receipts

GENESIS is the genesis as JSON, or a file of it. One receipt (JSON) a line; prints `ok EPOCH HEIGHT BATCH INDEX` or
`no WHY` for each, and exits with 9 if there was a `no`.
"""
import functools, hashlib, json, struct, sys

# --- BLAKE3 (its paper, section 2) ---------------------------------------------------------------------------------
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIX = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
       (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
START, END, PARENT, ROOT, M32 = 1, 2, 4, 8, 0xFFFFFFFF

turn = lambda x, n: (x >> n | x << (32 - n)) & M32

def compress(chain, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(chain) + list(IV[:4]) + [counter & M32, counter >> 32, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIX):
            for x, r, s in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + x) & M32
                v[d] = turn(v[d] ^ v[a], r)
                v[c] = (v[c] + v[d]) & M32
                v[b] = turn(v[b] ^ v[c], s)
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]

def subtree(data, counter, root):
    if len(data) <= 1024:
        chain, blocks = IV, [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            last = i == len(blocks) - 1
            flags = START * (i == 0) | END * last | ROOT * (last and root)
            chain = compress(chain, block, counter, len(block), flags)
        return chain
    left = 1024 << (len(data) - 1).bit_length() - 11
    pair = subtree(data[:left], counter, 0) + subtree(data[left:], counter + left // 1024, 0)
    return compress(IV, struct.pack("<16I", *pair), 0, 64, PARENT | ROOT * root)

once = functools.lru_cache(1 << 16)  # for what receipts have in common
blake3 = once(lambda data: struct.pack("<8I", *subtree(data, 0, 1)))

# --- Ed25519 (RFC 8032, section 5.1.7; small orders are refused) ----------------------------------------------------
P, L = 2 ** 255 - 19, 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P

double = lambda p: add(p, p)
@once
def point(data):
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        raise ValueError("no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P

BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))

@once
def signed(key, message, signature):
    a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if s >= L or any(double(double(double(p)))[0] == 0 for p in (a, r)):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    # s * BASE - k * a, both multiples in one go.
    minus, q = (P - a[0], a[1], 1, P - a[3]), (0, 1, 1, 0)
    sums = (None, BASE, minus, add(BASE, minus))
    for bit in range(252, -1, -1):
        part = sums[(s >> bit & 1) + 2 * (k >> bit & 1)]
        q = add(double(q), part) if part else double(q)
    return all((q[i] - r[i] * q[2]) % P == 0 for i in (0, 1))

# --- CBOR, as wattle writes it: fields in order, hashes and keys as bytes --------------------------------------------
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

def key_of(peer):
    number = 0
    for letter in peer:
        number = number * 58 + ALPHABET.index(letter)
    data = number.to_bytes(38, "big")
    need(data[:6] == bytes.fromhex("002408011220"), "no Ed25519 peer id")
    return data[6:]

def head(kind, n):
    for code, limit, size in ((24, 1 << 8, 1), (25, 1 << 16, 2), (26, 1 << 32, 4), (27, 1 << 64, 8)):
        if n < 24:
            return bytes([kind << 5 | n])
        if n < limit:
            return bytes([kind << 5 | code]) + n.to_bytes(size, "big")

def cbor(value):
    if value is None:
        return b"\xf6"
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if type(value) is int:
        return head(0, value)
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(cbor(item) for item in value)
    if isinstance(value, dict):
        fields = (text(k) + (text(v) if k == "network" else cbor(v)) for k, v in value.items())
        return head(5, len(value)) + b"".join(fields)
    return cbor(key_of(value) if value.startswith("12D3KooW") else unhex(value))

text = lambda value: head(3, len(value.encode())) + value.encode()

def unhex(value):
    need(bytes.fromhex(value).hex() == value, "not lower-case hexadecimal")
    return bytes.fromhex(value)

number = lambda digits: int(digits.replace("-", "below zero: "))
digest = lambda label, body: blake3(label.encode() + b"\0" + body)

def need(holds, why):
    if not holds:
        raise ValueError(why)

# --- The log --------------------------------------------------------------------------------------------------------
def check_qc(network, chain, epoch, validators, qc):
    data, bits = qc["data"], unhex(qc["signers"])
    seats = [i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1]
    need(data["epoch"] == epoch and data["parent_round"] < data["round"], "the certificate is of another epoch")
    need(not bits.endswith(b"\0") and all(seat < len(validators) for seat in seats), "nobody sits there")
    need(len(seats) == len(qc["signatures"]), "not a signature of each")
    weight = sum(validators[seat]["weight"] for seat in seats)
    need(3 * weight > 2 * sum(v["weight"] for v in validators), "no quorum")
    message = b"wattle order vote v1\0" + network.encode() + b"\0" + cbor([chain, data])
    for seat, signature in zip(seats, qc["signatures"]):
        need(signed(key_of(validators[seat]["id"]), message, unhex(signature)), "a signature does not hold")

block_id = lambda header: digest("wattle order block v1", cbor(header))

def follow(header, links, commit):
    last = block_id(header)
    for link in links:
        need(unhex(link["parent"]) == last and link["epoch"] == header["epoch"], "a link is broken")
        last = block_id(link)
    need(commit["data"]["commit"] is not None, "the certificate commits nothing")
    need(unhex(commit["data"]["commit"]["block"]) == last, "the certificate commits something else")

def climb(path, leaf):
    place, width, top, rest = path["index"], path["count"], leaf, list(path["neighbours"])
    need(type(place) is type(width) is int and 0 <= place < width < 1 << 64, "no such place")
    while width > 1:
        if place ^ 1 < width:
            need(rest, "the path is too short")
            other = unhex(rest.pop(0))
            top = digest("wattle order node v1", other + top if place & 1 else top + other)
        place, width = place // 2, (width + 1) // 2
    need(not rest, "the path is too long")
    return digest("wattle order tree v1", cbor([path["count"], top]))

FIELDS = {"format", "chain", "epochs", "transaction", "in_batch", "in_block", "header", "links", "commit"}

def verify(genesis, receipt):
    need(set(receipt) - {"entry"} == FIELDS, "it says more or less than a receipt does")
    if "entry" in receipt:
        entry = digest("wattle order transaction v1", unhex(receipt["entry"]))
        need(entry == unhex(receipt["transaction"]), "it proves another entry")
    chain, epoch = digest("wattle order chain v1", cbor(genesis)), 1
    network, validators = genesis["network"], genesis["validators"]
    need(receipt["format"] == "wattle order receipt v1" and unhex(receipt["chain"]) == chain, "another log")
    for proof in receipt["epochs"]:
        named = digest("wattle order validators v1", cbor(proof["next"]))
        need(unhex(proof["header"]["next"] or "") == named, "the proof names others")
        need(proof["header"]["epoch"] == epoch, "the proof is of another epoch")
        follow(proof["header"], proof["links"], proof["commit"])
        check_qc(network, chain, epoch, validators, proof["commit"])
        validators, epoch = proof["next"], epoch + 1
    header = receipt["header"]
    root = climb(receipt["in_block"], climb(receipt["in_batch"], unhex(receipt["transaction"])))
    need(root == unhex(header["payload"]) and header["epoch"] == epoch, "the path leads elsewhere")
    follow(header, receipt["links"], receipt["commit"])
    check_qc(network, chain, epoch, validators, receipt["commit"])
    return epoch, header["height"], receipt["in_block"]["index"], receipt["in_batch"]["index"]

given = sys.argv[1]
known = json.loads(given if given.lstrip().startswith("{") else open(given).read())
refused = False
for line in sys.stdin.buffer.readlines():
    try:
        print("ok", *verify(known, json.loads(line, parse_int=number)))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as why:
        print("no", why)
        refused = True
sys.exit(9 if refused else 0)
