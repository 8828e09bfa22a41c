// Asking the node again and again while somebody looks.

import { useEffect } from 'preact/hooks'
import { link } from './api'

/** How often a view that nobody changes asks what is new. */
const EVERY_MS = 2000

/** Calls `look` now and every two seconds while the view is on the screen and the tab is seen. */
export function usePolling (look: () => Promise<void>, key: string): void {
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined
    let ended = false
    const turn = async (): Promise<void> => {
      clearTimeout(timer)
      if (!document.hidden && link.value !== 'signed out') {
        // Ignored because the state of the link, which the shell shows, says all there is to say.
        await look().catch(() => undefined)
      }
      if (!ended) timer = setTimeout(() => { void turn() }, EVERY_MS)
    }
    const seen = (): void => { if (!document.hidden) void turn() }
    document.addEventListener('visibilitychange', seen)
    void turn()
    return () => {
      ended = true
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', seen)
    }
  }, [key])
}
