// A program that edits documents with automerge-repo over the WebSocket of a node: reads one JSON command a line, does it, answers
// with one JSON line. Everything here but the token is what such a program does anyway.
//
//   node repo.mjs URL [TOKEN]
//
// Answers are {"ok": true, ..} or {"ok": false, "error": ".."}. Documents are named by their automerge: URL. Steps:
//
//   {"step": "connected", "within": MS}                      -> peer: the server's id
//   {"step": "create", "value": {..}}                        -> url
//   {"step": "find", "url": U, "within": MS}                 -> value, ms; fails when the document is unavailable
//   {"step": "splice", "url": U, "path": [..], "at": N, "delete": N, "insert": ".."}
//   {"step": "put", "url": U, "path": [.., key], "value": V}
//   {"step": "remove", "url": U, "path": [.., key]}
//   {"step": "read", "url": U}                               -> value
//   {"step": "heads", "url": U}                              -> heads: hexadecimal, sorted
//   {"step": "until", "url": U, "path": [..], "equals": V, "within": MS}   -> ms
//   {"step": "broadcast", "url": U, "message": V}
//   {"step": "heard", "url": U, "count": N, "within": MS}    -> heard: [{from, message}], once there are N
//   {"step": "disconnect"}, {"step": "connect"}
//   {"step": "quit"}

import { createInterface } from 'node:readline'
import { isDeepStrictEqual } from 'node:util'
import WebSocket from 'ws'
import { next as Automerge } from '@automerge/automerge'
import { Repo, decodeHeads } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'

const [url, token] = process.argv.slice(2)
const WITHIN_MS = 20_000
const RETRY_MS = 200

/** The adapter opens its socket without a subprotocol and keeps no way to name one, so this one opens it itself. */
class TokenClientAdapter extends WebSocketClientAdapter {
  #retry

  connect (peerId, peerMetadata) {
    this.peerId = peerId
    this.peerMetadata = peerMetadata ?? this.peerMetadata ?? {}
    clearTimeout(this.#retry)
    this.socket = new WebSocket(this.url, token === undefined ? [] : [`wattle.token.${token}`])
    this.socket.binaryType = 'arraybuffer'
    this.socket.addEventListener('open', () => this.join())
    this.socket.addEventListener('message', this.onMessage)
    this.socket.addEventListener('error', ({ message }) => { refused = message })
    this.socket.addEventListener('close', () => {
      if (this.remotePeerId) this.emit('peer-disconnected', { peerId: this.remotePeerId })
      this.remotePeerId = undefined
      this.#retry = setTimeout(() => this.connect(peerId), RETRY_MS)
    })
  }

  disconnect () {
    clearTimeout(this.#retry)
    // What comes while the socket closes belongs to a connection that is over.
    this.socket?.removeAllListeners('message')
    this.socket?.removeAllListeners('close')
    this.socket?.close()
    this.socket = undefined
    if (this.remotePeerId) this.emit('peer-disconnected', { peerId: this.remotePeerId })
    this.remotePeerId = undefined
  }

  send (message) {
    // Between two connections there is nobody to send to: the repo says it all again when there is.
    if (this.socket?.readyState === WebSocket.OPEN) super.send(message)
  }
}

let refused
const adapter = new TokenClientAdapter(url)
const repo = new Repo({ network: [adapter] })
const handles = new Map()
const heard = new Map()

function keep (handle) {
  handles.set(handle.url, handle)
  if (!heard.has(handle.url)) {
    heard.set(handle.url, [])
    handle.on('ephemeral-message', ({ senderId, message }) => heard.get(handle.url).push({ from: senderId, message }))
  }
  return handle
}

function handle (url) {
  const known = handles.get(url)
  if (known === undefined) throw new Error(`${url} was neither created nor found here`)
  return known
}

const plain = (value) => JSON.parse(JSON.stringify(value))
const at = (value, path = []) => path.reduce((inner, key) => inner?.[key], value)

/** Waits until `test` has an answer. */
async function until (what, within = WITHIN_MS, test) {
  const start = performance.now()
  for (;;) {
    const answer = await test()
    const ms = performance.now() - start
    if (answer !== undefined) return { answer, ms }
    if (ms > within) throw new Error(`waited ${within} ms in vain for: ${what()}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

const steps = {
  connected: async ({ within }) => {
    const waited = await until(() => `a peer (${refused ?? 'no error'})`, within, () => adapter.remotePeerId)
    return { peer: waited.answer }
  },
  create: ({ value }) => ({ url: keep(repo.create(value ?? {})).url }),
  find: async ({ url, within }) => {
    const start = performance.now()
    const found = keep(await repo.find(url, { signal: AbortSignal.timeout(within ?? WITHIN_MS) }))
    return { value: plain(found.doc()), ms: performance.now() - start }
  },
  splice: ({ url, path, at, delete: removed, insert }) => {
    handle(url).change((doc) => Automerge.splice(doc, path, at, removed ?? 0, insert ?? ''))
  },
  put: ({ url, path, value }) => { handle(url).change((doc) => { at(doc, path.slice(0, -1))[path.at(-1)] = value }) },
  remove: ({ url, path }) => { handle(url).change((doc) => { delete at(doc, path.slice(0, -1))[path.at(-1)] }) },
  read: ({ url }) => ({ value: plain(handle(url).doc()) }),
  heads: ({ url }) => ({ heads: decodeHeads(handle(url).heads()).sort() }),
  until: async ({ url, path, equals, within }) => {
    const now = () => plain(at(handle(url).doc(), path) ?? null)
    const what = () => `${JSON.stringify(equals ?? null)}, not ${JSON.stringify(now())}`
    const { ms } = await until(what, within, () => isDeepStrictEqual(now(), equals ?? null) || undefined)
    return { ms }
  },
  broadcast: ({ url, message }) => { handle(url).broadcast(message) },
  heard: async ({ url, count, within }) => {
    const all = () => heard.get(handle(url).url)
    await until(() => `${count} messages, not ${all().length}`, within, () => all().length >= (count ?? 0) || undefined)
    return { heard: all() }
  },
  disconnect: () => { adapter.disconnect() },
  connect: () => { adapter.connect(adapter.peerId) }
}

// A document that is asked for again while it is looked for rejects promises that nobody waits for.
process.on('unhandledRejection', (error) => process.stderr.write(`unhandled: ${error?.stack ?? error}\n`))

for await (const line of createInterface({ input: process.stdin })) {
  const { step, ...wish } = JSON.parse(line)
  if (step === 'quit') break
  let answer
  try {
    if (steps[step] === undefined) throw new Error(`no step ${step}`)
    answer = { ok: true, ...await steps[step](wish) }
  } catch (error) {
    answer = { ok: false, error: String(error.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
process.exit(0)
