import type { ComponentChildren, JSX } from 'preact'
import { go } from './place'

/** A link within the page; a new tab is still one. */
export function Inside ({ to, current, children }: { to: string, current?: boolean, children: ComponentChildren }): JSX.Element {
  const follow = (event: MouseEvent): void => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    go(to)
  }
  return <a href={to} onClick={follow} aria-current={current === true ? 'page' : undefined}>{children}</a>
}
