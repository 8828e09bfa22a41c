// Where in the page a person is. The address says it, so that links, reloads and the back button work.

import { signal } from '@preact/signals'

export type Place = { view: 'documents' } | { view: 'document', id: string } | { view: 'nothing' }

function read (): Place {
  const [first, id, ...rest] = location.pathname.split('/').slice(1)
  if (first === '' || (first === 'docs' && (id === undefined || id === ''))) return { view: 'documents' }
  if (first === 'docs' && id !== undefined && rest.length === 0) {
    try {
      return { view: 'document', id: decodeURIComponent(id) }
    } catch {
      return { view: 'nothing' }
    }
  }
  return { view: 'nothing' }
}

export const place = signal<Place>(read())

addEventListener('popstate', () => { place.value = read() })

export const addressOf = (id: string): string => `/docs/${id}`

/** Goes to a place of the page without a load. */
export function go (path: string): void {
  history.pushState(null, '', path)
  place.value = read()
  scrollTo(0, 0)
  // Who reads by ear goes on where the new view begins.
  document.getElementById('content')?.focus()
}

/** The code of a sign-in link. It leaves the address before anything else happens, so that nobody copies it. */
export function takeCode (): string | undefined {
  const code = /^#k=(.+)$/.exec(location.hash)?.[1]
  if (code !== undefined) history.replaceState(null, '', location.pathname)
  return code
}
