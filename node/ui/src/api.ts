// The node's API, as far as the page uses it, and how the node is. The types are made from the description of the API.

import { signal } from '@preact/signals'
import type { components } from './generated'

type Schemas = components['schemas']
export type Doc = Schemas['Doc']
export type NodeId = Schemas['IdDocument']

export type Link = 'looking' | 'here' | 'away' | 'signed out'
/** How the node answered last. */
export const link = signal<Link>('looking')
export const me = signal<NodeId | undefined>(undefined)

/** What one types to give this node a command. */
export function program (): string {
  const name = me.value?.name
  return name == null || name === 'default' ? 'wattle' : `wattle -n ${name}`
}

/** Longest time that an answer of the node on this machine takes. */
const PATIENCE_MS = 10_000

export class ApiError extends Error {
  constructor (readonly status: number, message: string) { super(message) }
}

/** The node did not answer. */
export class Away extends Error {}

async function ask<T> (path: string, init: RequestInit = {}): Promise<T> {
  let response: Response
  try {
    response = await fetch(`/api/v1${path}`, { ...init, signal: AbortSignal.timeout(PATIENCE_MS) })
  } catch (error) {
    link.value = 'away'
    throw new Away(String(error))
  }
  if (response.status === 401) {
    link.value = 'signed out'
  } else {
    link.value = 'here'
  }
  const body = await response.json()
  if (!response.ok) throw new ApiError(response.status, (body as Schemas['ErrorDocument']).message)
  return body as T
}

const post = async <T>(path: string, body: unknown): Promise<T> =>
  await ask<T>(path, { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } })

const of = (id: string): string => `/docs/${encodeURIComponent(id)}`

export const signIn = async (code: string): Promise<void> => { await post('/session', { code }) }
export const whoAmI = async (): Promise<NodeId> => await ask<NodeId>('/id')
export const listDocs = async (): Promise<Doc[]> => (await ask<Schemas['DocsDocument']>('/docs')).docs
export const getDoc = async (id: string): Promise<Doc> => (await ask<Schemas['DocDocument']>(of(id))).doc
export const makeDoc = async (title: string): Promise<Doc> => (await post<Schemas['DocDocument']>('/docs', { title })).doc
