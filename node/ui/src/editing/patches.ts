// What others changed in a document, as edits of its joined text.

import type { Edit, Home, Piece } from './body'

/** The part of automerge's patches that matters here. */
export interface Patch {
  action: string
  path: Array<string | number>
  value?: unknown
  values?: unknown[]
  length?: number
}

/** Patches beyond this are taken as one difference: each is applied to the whole text. */
const PATCHES_MAX = 1000

/**
 * The edits that lead from a text in these pieces on, one after the other: each counts places in the text after the one before it.
 * Undefined where the patches say more than edits can; then the texts are compared instead.
 */
export function editsOf (pieces: Piece[], home: Home, patches: Patch[]): Edit[] | undefined {
  if (patches.length > PATCHES_MAX) return undefined
  // How long the elements of the list are; what is no Text object has no length.
  const lengths: Array<number | undefined> = []
  for (const piece of pieces) lengths[piece.index] = piece.text.length
  const edits: Edit[] = []
  const start = (index: number): number => lengths.slice(0, index).reduce<number>((sum, length) => sum + (length ?? 0), 0)
  for (const patch of patches) {
    const [key, ...rest] = patch.path
    if (key !== (home.kind === 'single' ? home.key : 'sections')) continue
    const [index, at] = home.kind === 'single' ? [0, rest[0]] : rest
    if (typeof index !== 'number') return undefined
    if (at === undefined) {
      if (home.kind === 'single' || !inList(patch, index, lengths, edits, start)) return undefined
    } else if (lengths[index] !== undefined && typeof at === 'number') {
      const from = start(index) + at
      if (patch.action === 'splice' && typeof patch.value === 'string') {
        edits.push({ from, to: from, insert: patch.value })
        lengths[index] = (lengths[index] ?? 0) + patch.value.length
      } else if (patch.action === 'del') {
        const removed = patch.length ?? 1
        edits.push({ from, to: from + removed, insert: '' })
        lengths[index] = (lengths[index] ?? 0) - removed
      } else if (!['mark', 'unmark', 'conflict'].includes(patch.action)) {
        return undefined
      }
    }
  }
  return edits
}

/** A patch of the list itself: sections that came or went. */
function inList (
  patch: Patch, index: number, lengths: Array<number | undefined>, edits: Edit[], start: (index: number) => number
): boolean {
  if (patch.action === 'insert') {
    const values = patch.values ?? []
    const text = values.filter((value) => typeof value === 'string').join('')
    const from = start(index)
    if (text !== '') edits.push({ from, to: from, insert: text })
    lengths.splice(index, 0, ...values.map((value) => typeof value === 'string' ? value.length : undefined))
    return true
  }
  if (patch.action === 'del') {
    const count = patch.length ?? 1
    const [from, to] = [start(index), start(index + count)]
    if (from < to) edits.push({ from, to, insert: '' })
    lengths.splice(index, count)
    return true
  }
  return ['mark', 'unmark', 'conflict'].includes(patch.action)
}

/** One edit that makes `after` of `before`: what is between the beginning and the end that both have. */
export function difference (before: string, after: string): Edit | undefined {
  if (before === after) return undefined
  const most = Math.min(before.length, after.length)
  let head = 0
  while (head < most && before[head] === after[head]) head++
  let tail = 0
  while (tail < most - head && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++
  return { from: head, to: before.length - tail, insert: after.slice(head, after.length - tail) }
}
