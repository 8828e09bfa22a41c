// Records what automerge-repo says on its WebSocket: one file for each type of message and each who sends it, as hexadecimal.
//
//   node repo-vectors.mjs DIRECTORY
//
// The files under overlay/docs/tests/vectors/automerge-repo-2.5.6 are what this wrote. Ids and hashes differ from run to run, forms do not: it
// is run again for a new version of automerge-repo, into another directory, and both stay.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import WebSocket from 'ws'
import { Encoder } from 'cbor-x'
import { Repo, cbor } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'
import { MemoryStorage, serve } from './repo-server.mjs'

const directory = process.argv[2]
mkdirSync(directory, { recursive: true })
const seen = new Set()

function record (name, bytes) {
  if (seen.has(name)) return
  seen.add(name)
  writeFileSync(join(directory, `${name}.hex`), Buffer.from(bytes).toString('hex') + '\n')
}

// Every frame goes through here, whichever side sends it.
const send = WebSocket.prototype.send
WebSocket.prototype.send = function (data, ...rest) {
  const { type, data: inner } = cbor.decode(new Uint8Array(data))
  const name = `${this._isServer ? 'server' : 'client'}-${type}`
  record(type === 'sync' && inner.length > 120 ? `${name}-with-changes` : name, data)
  return send.call(this, data, ...rest)
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const { repo: server, sockets, url } = await serve({ enableRemoteHeadsGossiping: true })
const client = (options) => new Repo({ network: [new WebSocketClientAdapter(url)], enableRemoteHeadsGossiping: true, ...options })

const one = client({ peerId: 'one', storage: new MemoryStorage() })
await one.networkSubsystem.whenReady()
const two = client({ peerId: 'two' })
await two.networkSubsystem.whenReady()
const mine = one.create({ text: 'hello', list: [1, 2] })
await pause(500)
const theirs = await two.find(mine.url)
theirs.change((doc) => { doc.text = 'hello world' })
two.subscribeToRemotes([await one.storageId(), await server.storageId()])
await pause(500)
mine.broadcast({ cursor: 7, name: 'one' })
mine.change((doc) => { doc.list.push(3) })
await two.find('automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu').catch(() => {})
await pause(1000)

// A client of another version is told why it is sent away.
const other = new WebSocket(url)
await new Promise((resolve) => other.once('open', resolve))
other.send(cbor.encode({ type: 'join', senderId: 'three', peerMetadata: {}, supportedProtocolVersions: ['2'] }))
await pause(200)

// The encoder of automerge-repo before 2.0 puts a tag before every Uint8Array.
const old = new Encoder({ useRecords: false })
record('tagged-sync', old.encode({
  type: 'sync', senderId: 'one', targetId: 'two', documentId: mine.documentId, data: Uint8Array.of(0x42, 0, 0, 0, 0)
}))
// JavaScript has one kind of number, and cbor-x writes the large ones as floats.
record('large-ephemeral', cbor.encode({
  type: 'ephemeral', senderId: 'one', targetId: 'two', documentId: mine.documentId, count: 2 ** 40, sessionId: 's', data: Uint8Array.of(1)
}))
sockets.close()
process.stdout.write([...seen].sort().join('\n') + '\n')
process.exit(0)
