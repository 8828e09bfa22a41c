// A js-libp2p peer in a wattle overlay: reads one JSON command a line, does it, answers with one JSON line.
//
// It shares no code with wattle. What it knows of records, envelopes and topic messages is written here a second time, from
// the formats alone, so that a change of format on either side fails the test.

import { createInterface } from 'node:readline'

// Node 20 lacks what js-libp2p 3 takes for granted (ECMAScript 2024).
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { kadDHT } = await import('@libp2p/kad-dht')
const { gossipsub } = await import('@libp2p/gossipsub')
const { generateKeyPair, publicKeyFromRaw } = await import('@libp2p/crypto/keys')
const { peerIdFromPublicKey, peerIdFromString } = await import('@libp2p/peer-id')
const { multiaddr } = await import('@multiformats/multiaddr')
const { blake3 } = await import('@noble/hashes/blake3.js')
const { CID } = await import('multiformats/cid')
const { create: digestOf } = await import('multiformats/hashes/digest')
const { base32 } = await import('multiformats/bases/base32')

const NETWORK = 'wattle'
const RECORD_TTL_MS = 3600_000
const BLAKE3_CODE = 0x1e
const RAW_CODE = 0x55
const utf8 = (text) => new TextEncoder().encode(text)
const text = (bytes) => new TextDecoder().decode(bytes)
const ZERO = Uint8Array.of(0)
const concat = (...parts) => Uint8Array.from(Buffer.concat(parts))

// --- Canonical CBOR (RFC 8949, 4.2), as much of it as wattle's formats use ---

function head (major, value) {
  const number = BigInt(value)
  if (number < 24n) return Uint8Array.of((major << 5) | Number(number))
  const size = number < 0x100n ? 1 : number < 0x10000n ? 2 : number < 0x100000000n ? 4 : 8
  const bytes = new Uint8Array(1 + size)
  bytes[0] = (major << 5) | (24 + Math.log2(size))
  for (let index = size, rest = number; index > 0; index--, rest >>= 8n) bytes[index] = Number(rest & 0xffn)
  return bytes
}

/** A struct is a map in the order of its fields; text, bytes and numbers are what they are. */
function encode (value) {
  if (value instanceof Uint8Array) return concat(head(2, value.length), value)
  if (typeof value === 'string') return concat(head(3, utf8(value).length), utf8(value))
  if (typeof value === 'number' || typeof value === 'bigint') return head(0, value)
  const fields = Object.entries(value)
  return concat(head(5, fields.length), ...fields.flatMap(([name, field]) => [encode(name), encode(field)]))
}

function decode (bytes) {
  let at = 0
  const take = (count) => bytes.subarray(at, at += count)
  const item = () => {
    const [first] = take(1)
    const [major, info] = [first >> 5, first & 31]
    const size = info < 24 ? 0 : 2 ** (info - 24)
    const value = size === 0 ? info : Number(take(size).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n))
    if (major === 0) return value
    if (major === 2) return take(value)
    if (major === 3) return text(take(value))
    if (major === 5) return Object.fromEntries(Array.from({ length: value }, () => [item(), item()]))
    throw new Error(`CBOR major type ${major} is not used`)
  }
  const value = item()
  if (at !== bytes.length) throw new Error('bytes after the end of the value')
  return value
}

// --- Records ---

const hashKey = (value) => `/${NETWORK}/hash/${base32.baseEncode(blake3(value))}`
const signedBytes = (body) => concat(utf8('wattle record v1'), ZERO, utf8(NETWORK), ZERO, body)

async function seal (key, name, sequence, payload) {
  const at = utf8(`/${NETWORK}/signed/${me.toString()}/${name}`)
  const expires = Date.now() + RECORD_TTL_MS
  const body = encode({ key: at, sequence, expires, payload })
  const signature = await key.sign(signedBytes(body))
  return { at, value: encode({ author: key.publicKey.raw, body, signature }) }
}

/** Holds a value to its key, as every reader must; returns what it says. */
async function open (key, value) {
  const [, network, kind, owner] = text(key).split('/')
  if (network !== NETWORK) throw new Error('another network')
  if (kind === 'hash') {
    if (hashKey(value) !== text(key)) throw new Error('the value does not hash to its key')
    return { sequence: 0, payload: value }
  }
  const { author, body, signature } = decode(value)
  const record = decode(body)
  const publicKey = publicKeyFromRaw(author)
  if (!await publicKey.verify(signedBytes(body), signature)) throw new Error('the signature does not verify')
  if (peerIdFromPublicKey(publicKey).toString() !== owner) throw new Error('signed by another')
  if (text(record.key) !== text(key)) throw new Error('signed for another key')
  if (record.expires < Date.now()) throw new Error('expired')
  return record
}

function select (key, values) {
  const sequences = values.map((value) => text(key).includes('/signed/') ? decode(decode(value).body).sequence : 0)
  return sequences.indexOf(Math.max(...sequences))
}

// --- The node ---

const key = await generateKeyPair('Ed25519')
const signs = !process.argv.includes('--unsigned')
const node = await createLibp2p({
  privateKey: key,
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionGater: { denyDialMultiaddr: () => false },
  nodeInfo: { userAgent: 'js-interop/1' },
  services: {
    identify: identify(),
    ping: ping(),
    dht: kadDHT({
      protocol: `/${NETWORK}/kad/1.0.0`,
      clientMode: false,
      // The default forgets private addresses, and here there are no others.
      peerInfoMapper: (peer) => peer,
      validators: { [NETWORK]: async (at, value) => { await open(at, value) } },
      selectors: { [NETWORK]: select }
    }),
    gossip: gossipsub({
      globalSignaturePolicy: signs ? 'StrictSign' : 'StrictNoSign',
      allowPublishToZeroTopicPeers: true,
      // wattle's message id: any other would only cost duplicates, but this one is part of its protocol.
      msgIdFn: ({ topic, from, sequenceNumber, data }) => {
        const sequence = new Uint8Array(8)
        new DataView(sequence.buffer).setBigUint64(0, sequenceNumber ?? 0n)
        const source = from?.toMultihash().bytes ?? new Uint8Array()
        return blake3(concat(utf8(topic), ZERO, source, sequence, data)).subarray(0, 20)
      }
    })
  }
})
const me = node.peerId
const { dht, gossip } = node.services
await dht.setMode('server')
const heard = []
gossip.addEventListener('message', ({ detail }) => {
  const { topic, payload } = decode(detail.data)
  heard.push({ topic, payload: text(payload), from: detail.from?.toString() })
})

const cidOf = (keyHex) => {
  const digest = digestOf(BLAKE3_CODE, Buffer.from(keyHex, 'hex').subarray(2))
  return CID.createV1(RAW_CODE, digest)
}

async function last (events, wanted) {
  let found
  for await (const event of events) found = wanted(event) ?? found
  return found
}

const steps = {
  dial: async ({ address }) => {
    await node.dial(multiaddr(address))
    return { id: me.toString(), listen: node.getMultiaddrs().map(String) }
  },
  ping: async ({ address }) => ({ rtt: await node.services.ping.ping(multiaddr(address)) }),
  follow: ({ root }) => { gossip.subscribe(`/${NETWORK}/topics/1/${root}`) },
  mesh: ({ root }) => ({ peers: gossip.getMeshPeers(`/${NETWORK}/topics/1/${root}`).length }),
  publish: async ({ topic, payload }) => {
    const mesh = `/${NETWORK}/topics/1/${topic.split('.')[0]}`
    const { recipients } = await gossip.publish(mesh, encode({ topic, payload: utf8(payload) }))
    return { recipients: recipients.length }
  },
  heard: () => ({ heard }),
  table: async () => {
    // js asks a new peer once whether it is there and never again; a slow machine must not make it miss the only one it has.
    for (const id of dht.routingTable.size > 0 ? [] : node.getPeers()) {
      const { addresses, protocols } = await node.peerStore.get(id)
      await dht.onPeerConnect({ id, multiaddrs: addresses.map(({ multiaddr }) => multiaddr), protocols })
    }
    return { size: dht.routingTable.size }
  },
  known: async ({ id }) => {
    const { metadata, protocols } = await node.peerStore.get(peerIdFromString(id))
    return { agent: metadata.has('AgentVersion') ? text(metadata.get('AgentVersion')) : '', protocols }
  },
  putSigned: async ({ name, sequence, payload }) => {
    const { at, value } = await seal(key, name, sequence, utf8(payload))
    await last(dht.put(at, value), () => undefined)
  },
  putHash: async ({ payload }) => {
    const value = utf8(payload)
    await last(dht.put(utf8(hashKey(value)), value), () => undefined)
  },
  get: async ({ at }) => {
    const value = await last(dht.get(utf8(at)), (event) => event.name === 'VALUE' ? event.value : undefined)
    return value == null ? {} : { payload: text((await open(utf8(at), value)).payload) }
  },
  provide: async ({ key }) => { await last(dht.provide(cidOf(key)), () => undefined) },
  providers: async ({ key }) => {
    const found = new Set()
    const named = (event) => { for (const peer of event.providers ?? []) found.add(peer.id.toString()) }
    await last(dht.findProviders(cidOf(key)), named)
    return { providers: [...found] }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { step, ...wish } = JSON.parse(line)
  let answer
  try {
    answer = { ok: true, ...await steps[step](wish) }
  } catch (error) {
    answer = { ok: false, error: String(error.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await node.stop()
process.exit(0)
