// Whether what is typed is on the node's disk, and which peers have it.

import { decodeHeads, type UrlHeads } from '@automerge/automerge-repo'
import type { Doc } from '../api'

export interface Saved {
  /** The node has on disk what the page has. */
  here: boolean
  /** Peers that are here and have all that the node has, and those that have not yet. */
  peers: number
  behind: number
}

export function savedOf (doc: Doc, heads: UrlHeads): Saved {
  const mine = decodeHeads(heads).map(String).sort()
  const theirs = [...doc.heads].sort()
  const here = mine.length === theirs.length && mine.every((head, at) => head === theirs[at])
  const peers = doc.peers.filter((peer) => peer.in_sync).length
  return { here, peers, behind: doc.peers.length - peers }
}
