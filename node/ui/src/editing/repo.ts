// Automerge in the page: the node is its sync server, IndexedDB keeps what the node does not have yet.

import { initializeWasm } from '@automerge/automerge'
import wasm from '@automerge/automerge/automerge.wasm?url'
import { Repo, type StorageAdapterInterface } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'
import { IndexedDBStorageAdapter } from '@automerge/automerge-repo-storage-indexeddb'
import { signal } from '@preact/signals'
import { whoAmI, me } from '../api'

const RETRY_MS = 1000
/** How long what is typed waits to be put into IndexedDB. */
const KEEP_MS = 20

/** Whether this browser keeps what is typed while the node is away, also over a reload. */
export const keeps = signal(true)

class Adapter extends WebSocketClientAdapter {
  override send (message: Parameters<WebSocketClientAdapter['send']>[0]): void {
    // Between two connections there is nobody to send to: the repo says it all again when there is.
    if (this.socket?.readyState === WebSocket.OPEN) super.send(message)
  }
}

async function storage (node: string): Promise<StorageAdapterInterface | undefined> {
  try {
    // A database for each node: nodes of a testnet may come and go at one port, and the port is all a browser tells apart.
    const adapter = new IndexedDBStorageAdapter(`wattle-${node.slice(-8)}`)
    await adapter.load(['probe'])
    return adapter
  } catch {
    // Private windows of some browsers have none. Typing works all the same while the page stays open.
    keeps.value = false
    return undefined
  }
}

async function open (): Promise<Repo> {
  const [node] = await Promise.all([me.value ?? whoAmI(), initializeWasm(wasm)])
  me.value = node
  const kept = await storage(node.id)
  const network = [new Adapter(`ws://${location.host}/api/v1/docs/sync`, RETRY_MS)]
  const repo = new Repo({ network, saveDebounceRate: KEEP_MS, ...(kept === undefined ? {} : { storage: kept }) })
  // What was typed in the last moment, before the tab goes.
  addEventListener('pagehide', () => { void repo.flush() })
  return repo
}

let opened: Promise<Repo> | undefined

/** The one repo of this page. */
export function repo (): Promise<Repo> {
  opened ??= open().catch((error: unknown) => {
    opened = undefined
    throw error
  })
  return opened
}
