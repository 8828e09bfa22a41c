// Documents with something typed that the node is not known to have. The text itself is in IndexedDB; this remembers where to
// look, so that it goes to the node also when nobody opens the document again.

import { ApiError, getDoc, me } from '../api'
import { remember, remembered } from '../memory'

const LOOK_MS = 500

const key = (): string => `unsaved.${me.value?.id.slice(-8) ?? ''}`

function ids (): string[] {
  try {
    const kept: unknown = JSON.parse(remembered(key()) ?? '[]')
    return Array.isArray(kept) ? kept.filter((id) => typeof id === 'string') : []
  } catch {
    return []
  }
}

const noted = new Set<string>()

export function note (id: string): void {
  if (noted.has(id)) return
  noted.add(id)
  remember(key(), JSON.stringify([...new Set([...ids(), id])]))
}

export function done (id: string): void {
  noted.delete(id)
  const kept = ids()
  if (kept.includes(id)) remember(key(), JSON.stringify(kept.filter((other) => other !== id)))
}

async function bring (id: string): Promise<void> {
  const [{ repo }, { savedOf }] = await Promise.all([import('./repo'), import('./saved')])
  for (;;) {
    try {
      // Asked first: a document that the node has forgotten must not come back by the way.
      await getDoc(id)
      const handle = await (await repo()).find(id as Parameters<Awaited<ReturnType<typeof repo>>['find']>[0])
      if (savedOf(await getDoc(id), handle.heads()).here) { done(id); return }
    } catch (error) {
      // The node has forgotten the document. What was typed stays in this browser should it come back.
      if (error instanceof ApiError && error.status === 404) return
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

/** Brings to the node what earlier visits left in this browser. */
export function bringAll (): void {
  for (const id of ids()) void bring(id)
}
