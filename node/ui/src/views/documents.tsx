// The documents here, as cards with a ring each, or as a table.

import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { link, listDocs, makeDoc, program, type Doc } from '../api'
import { Inside } from '../inside'
import { remember, remembered } from '../memory'
import { addressOf, go } from '../place'
import { usePolling } from '../poll'
import { day, size, t, tn } from '../text'

const docs = signal<Doc[] | undefined>(undefined)
const asTable = signal(remembered('documents') === 'table')

export const titleOf = (doc: Doc): string => doc.title === '' ? t('documents.untitled') : doc.title
const roleOf = (doc: Doc): string => t(doc.role == null ? 'role.none' : `role.${doc.role}`)
const synced = (doc: Doc): number => doc.peers.filter((peer) => peer.in_sync).length
const syncOf = (doc: Doc, key: 'sync.of' | 'sync.with'): string => doc.peers.length === 0 ? t('sync.nobody') : t(key, { synced: synced(doc), here: doc.peers.length })

const RADIUS = 15
const AROUND = 2 * Math.PI * RADIUS

/** How many of the peers that are here have all of it; the words beside it say the same. */
function Ring ({ doc }: { doc: Doc }): JSX.Element {
  const share = doc.peers.length === 0 ? 0 : synced(doc) / doc.peers.length
  return (
    <svg class='ring' viewBox='0 0 40 40' aria-hidden='true'>
      <circle class='whole' cx='20' cy='20' r={RADIUS} />
      <circle class='share' cx='20' cy='20' r={RADIUS} stroke-dasharray={`${share * AROUND} ${AROUND}`} />
      <text x='20' y='24'>{doc.peers.length === 0 ? '–' : synced(doc)}</text>
    </svg>
  )
}

function Cards ({ list }: { list: Doc[] }): JSX.Element {
  return (
    <ul class='cards'>
      {list.map((doc) => (
        <li key={doc.id}>
          <Inside to={addressOf(doc.id)}>
            <Ring doc={doc} />
            <span class='what'>
              <b>{titleOf(doc)}</b>
              <small>{syncOf(doc, 'sync.with')}</small>
              <small>{[size(doc.bytes), tn('members', doc.members), roleOf(doc)].join(' · ')}</small>
            </span>
          </Inside>
        </li>
      ))}
    </ul>
  )
}

function Table ({ list }: { list: Doc[] }): JSX.Element {
  return (
    <div class='wide'>
      <table>
        <thead>
          <tr>
            <th scope='col'>{t('column.title')}</th>
            <th scope='col' class='number'>{t('column.size')}</th>
            <th scope='col'>{t('column.role')}</th>
            <th scope='col' class='number'>{t('column.members')}</th>
            <th scope='col'>{t('column.sync')}</th>
            <th scope='col'>{t('column.since')}</th>
            <th scope='col'>{t('column.id')}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((doc) => (
            <tr key={doc.id} data-id={doc.id}>
              <th scope='row'><Inside to={addressOf(doc.id)}>{titleOf(doc)}</Inside></th>
              <td class='number'>{size(doc.bytes)}</td>
              <td>{roleOf(doc)}</td>
              <td class='number'>{doc.members}</td>
              <td>{syncOf(doc, 'sync.of')}</td>
              <td>{day(doc.since)}</td>
              <td class='id'><code>{doc.id}</code></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function Make (): JSX.Element {
  const [title, setTitle] = useState('')
  const [failed, setFailed] = useState<string | undefined>(undefined)
  const make = (event: Event): void => {
    event.preventDefault()
    makeDoc(title.trim()).then(
      (doc) => { go(addressOf(doc.id)) },
      (error: unknown) => { setFailed(error instanceof Error ? error.message : String(error)) }
    )
  }
  return (
    <form class='make' onSubmit={make}>
      <input
        type='text' value={title} maxLength={200} aria-label={t('documents.newTitle')} placeholder={t('documents.newTitle')}
        onInput={(event) => { setTitle(event.currentTarget.value) }}
      />
      <button type='submit'>{t('documents.make')}</button>
      {failed === undefined ? null : <p role='alert'>{t('documents.failed', { why: failed })}</p>}
    </form>
  )
}

function List ({ list }: { list: Doc[] }): JSX.Element {
  if (list.length === 0) {
    return (
      <section class='notice'>
        <p>{t('documents.none')}</p>
        <p>{t('documents.join')}</p>
        <pre><code>{program()} doc join &lt;ticket&gt;</code></pre>
      </section>
    )
  }
  const sorted = [...list].sort((one, other) => titleOf(one).localeCompare(titleOf(other)) || one.id.localeCompare(other.id))
  return asTable.value ? <Table list={sorted} /> : <Cards list={sorted} />
}

export function Documents (): JSX.Element {
  usePolling(async () => { docs.value = await listDocs() }, 'documents')
  const name = t('documents.title')
  useEffect(() => { document.title = `${name} – ${t('app.name')}` }, [name])
  const turn = (): void => {
    asTable.value = !asTable.value
    remember('documents', asTable.value ? 'table' : 'cards')
  }
  return (
    <>
      <div class='head'>
        <h1>{name}</h1>
        <button type='button' class='plain' onClick={turn}>{t(asTable.value ? 'documents.cards' : 'documents.table')}</button>
      </div>
      {link.value === 'away' ? <p class='warning' role='alert'>{t('away.list')}</p> : null}
      <Make />
      {docs.value === undefined ? null : <List list={docs.value} />}
    </>
  )
}
