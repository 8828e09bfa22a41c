// Two programs on automerge-repo, on one sync server: how long an edit of one takes to be seen by the other.
//
//   node repo-latency.mjs DOCUMENTS ROUNDS URL [TOKEN]
//
// Makes DOCUMENTS small documents; the other program finds the first. Then ROUNDS isolated edits of it, one at a time with
// a pause between. One JSON line: {"made": "..", "spans_ms": [..]}. After it lives until its standard input ends, so that
// the server can be looked at while all are open.

import { next as Automerge } from '@automerge/automerge'
import { Repo } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'
import WebSocket from 'ws'

const [documents, rounds, url, token] = process.argv.slice(2)
// automerge-repo sends at most every 100 ms: an edit that comes sooner waits for that, whatever the server.
const PAUSE_MS = 150

/** Opens its socket with the token of a node; without one as automerge-repo does. */
class Adapter extends WebSocketClientAdapter {
  connect (peerId, peerMetadata) {
    if (token === undefined) return super.connect(peerId, peerMetadata)
    this.peerId = peerId
    this.peerMetadata = peerMetadata ?? {}
    this.socket = new WebSocket(this.url, [`wattle.token.${token}`])
    this.socket.binaryType = 'arraybuffer'
    this.socket.addEventListener('open', () => this.join())
    this.socket.addEventListener('message', this.onMessage)
  }
}

const program = async () => {
  const adapter = new Adapter(url)
  const repo = new Repo({ network: [adapter] })
  await adapter.whenReady()
  return repo
}

const one = await program()
const other = await program()
const handles = []
for (let made = 0; made < Number(documents); made++) handles.push(one.create({ text: 'a small document' }))
const [edited] = handles
// The server holds them all once the last one is found through it. Who heard that it is not there asks no more.
for (let found = false; !found;) {
  const asker = await program()
  found = await asker.find(handles.at(-1).url).then(() => true, () => false)
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
}
const seen = await other.find(edited.url)

const spans = []
for (let round = 0; round < Number(rounds); round++) {
  const length = edited.doc().text.length + 1
  const arrived = new Promise((resolve) => {
    const look = ({ doc }) => {
      if (doc.text.length < length) return
      seen.off('change', look)
      resolve(performance.now())
    }
    seen.on('change', look)
  })
  const begun = performance.now()
  edited.change((doc) => Automerge.splice(doc, ['text'], 3, 0, 'x'))
  spans.push(await arrived - begun)
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
}
process.stdout.write(JSON.stringify({ made: handles.length, spans_ms: spans }) + '\n')
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
