// The reference: the server that automerge-repo brings, which repo.mjs and the tests of wattle are held to.
//
//   node repo-server.mjs [TOKEN]
//
// Listens on a port of 127.0.0.1 that it names in its first line, {"url": "ws://.."}. With a TOKEN it accepts only
// connections whose subprotocol is wattle.token.TOKEN. Ends with its standard input.

import { WebSocketServer } from 'ws'
import { Repo } from '@automerge/automerge-repo'
import { NodeWSServerAdapter } from '@automerge/automerge-repo-network-websocket'

/** Storage that lives as long as its process: with it a repo has a storage id, like a server that stays. */
export class MemoryStorage {
  #chunks = new Map()
  #at = (prefix) => [...this.#chunks].filter(([key]) => `${key}\n`.startsWith(`${prefix.join('\n')}\n`))

  async load (key) { return this.#chunks.get(key.join('\n')) }
  async save (key, data) { this.#chunks.set(key.join('\n'), data) }
  async remove (key) { this.#chunks.delete(key.join('\n')) }
  async loadRange (prefix) { return this.#at(prefix).map(([key, data]) => ({ key: key.split('\n'), data })) }
  async removeRange (prefix) { for (const [key] of this.#at(prefix)) this.#chunks.delete(key) }
}

/** A server with a repo behind it; its URL. */
export async function serve ({ token, ...options } = {}) {
  const wanted = token === undefined ? undefined : `wattle.token.${token}`
  const sockets = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    verifyClient: ({ req }) => wanted === undefined || req.headers['sec-websocket-protocol'] === wanted
  })
  await new Promise((resolve) => sockets.once('listening', resolve))
  const repo = new Repo({
    network: [new NodeWSServerAdapter(sockets)],
    storage: new MemoryStorage(),
    // A server of strangers' documents announces none of them.
    sharePolicy: async () => false,
    peerId: 'reference-server',
    ...options
  })
  return { repo, sockets, url: `ws://127.0.0.1:${sockets.address().port}` }
}

if (process.argv[1] === import.meta.filename) {
  const { url } = await serve({ token: process.argv[2] })
  process.stdout.write(JSON.stringify({ url }) + '\n')
  process.stdin.resume()
  process.stdin.on('end', () => process.exit(0))
}
