// One document: its text, who has it, and whether what is typed is safe.

import { defaultKeymap, history, historyKeymap } from '@codemirror/commands'
import { Compartment, EditorState, Transaction } from '@codemirror/state'
import { EditorView, drawSelection, highlightSpecialChars, keymap } from '@codemirror/view'
import type { AutomergeUrl, DocHandle, UrlHeads } from '@automerge/automerge-repo'
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, getDoc, link, program, type Doc } from '../api'
import { Binding, LINE, same } from '../editing/binding'
import { TEXT_BYTES_MAX, bytesOf, homeOf, titleIn, type Fields } from '../editing/body'
import { keeps, repo } from '../editing/repo'
import { savedOf, type Saved } from '../editing/saved'
import { done, note } from '../editing/unsaved'
import { Inside } from '../inside'
import { size, t, tn } from '../text'

const RETRY_MS = 500
/** How soon after a change the node is asked whether it is on disk, and until when the last answer stands. */
const ASK_MS = 80
const PATIENT_MS = 400
const POLL_MS = 2000

type Stage =
  | { is: 'loading' }
  | { is: 'unknown' }
  | { is: 'fields' }
  | { is: 'open', handle: DocHandle<Fields>, binding: Binding }

const sleep = async (ms: number): Promise<void> => { await new Promise((resolve) => setTimeout(resolve, ms)) }

/** Finds the document, as long as somebody wants it: the node may be away, and come back. */
async function find (id: string, wanted: () => boolean): Promise<DocHandle<Fields> | undefined> {
  while (wanted()) {
    try {
      const known = await getDoc(id).catch((error: unknown) => {
        if (error instanceof ApiError && error.status === 404) return 'nowhere'
        return undefined
      })
      if (known === 'nowhere') return undefined
      return await (await repo()).find<Fields>(id as AutomergeUrl)
    } catch {
      await sleep(RETRY_MS)
    }
  }
  return undefined
}

function useStage (id: string): Stage {
  const [stage, setStage] = useState<Stage>({ is: 'loading' })
  useEffect(() => {
    let wanted = true
    void find(id, () => wanted).then((handle) => {
      if (!wanted) return
      if (handle === undefined) { setStage({ is: 'unknown' }); return }
      const home = homeOf(handle.doc())
      setStage(home === undefined ? { is: 'fields' } : { is: 'open', handle, binding: new Binding(handle, home, () => { note(id) }) })
    })
    return () => { wanted = false }
  }, [id])
  return stage
}

interface Told { doc: Doc | undefined, saved: Saved | undefined, settled: boolean, forgotten: boolean }

/** Whether this browser has put away all that is in the document, which is looked after only while the node is away. */
function useKept (handle: DocHandle<Fields> | undefined): boolean {
  const [kept, setKept] = useState(false)
  const away = link.value === 'away'
  useEffect(() => {
    if (handle === undefined || !away) return
    let [ended, busy] = [false, false]
    const keep = async (): Promise<void> => {
      setKept(false)
      if (busy) return
      busy = true
      for (let heads: UrlHeads | undefined; !ended && (heads === undefined || !same(heads, handle.heads()));) {
        heads = handle.heads()
        await (await repo()).flush([handle.documentId])
      }
      busy = false
      if (!ended) setKept(true)
    }
    const changed = (): void => { void keep() }
    handle.on('change', changed)
    void keep()
    return () => {
      ended = true
      handle.off('change', changed)
    }
  }, [handle, away])
  return kept
}

/** What the node says of the document, asked soon after every change and now and then. */
function useNode (id: string, handle: DocHandle<Fields> | undefined): Told {
  const [doc, setDoc] = useState<Doc | undefined>(undefined)
  const [settled, setSettled] = useState(true)
  const [forgotten, setForgotten] = useState(false)
  useEffect(() => {
    let [ended, asking, again] = [false, false, false]
    let [timer, patience]: Array<ReturnType<typeof setTimeout> | undefined> = [undefined, undefined]
    const is = (doc: Doc): boolean => handle === undefined || savedOf(doc, handle.heads()).here
    const ask = async (): Promise<void> => {
      clearTimeout(timer)
      if (asking) { again = true; return }
      asking = true
      let wait = POLL_MS
      try {
        const now = await getDoc(id)
        if (ended) return
        setDoc(now)
        if (is(now)) {
          if (handle !== undefined) done(id)
          clearTimeout(patience)
          patience = undefined
          setSettled(true)
        } else {
          unsettle()
          wait = ASK_MS
        }
      } catch (error) {
        if (ended) return
        if (handle !== undefined && error instanceof ApiError && error.status === 404) {
          setDoc(undefined)
          setForgotten(true)
          // Else what is in this page would make a new document of it at the node.
          void repo().then(async (repo) => { await repo.removeFromCache(handle.documentId) })
          return
        }
        setSettled(false)
        wait = RETRY_MS
      } finally {
        asking = false
      }
      if (again) wait = ASK_MS
      again = false
      timer = setTimeout(() => { void ask() }, wait)
    }
    // What is saved within a blink is not worth a flicker.
    const unsettle = (): void => { patience ??= setTimeout(() => { setSettled(false) }, PATIENT_MS) }
    const changed = (): void => {
      unsettle()
      if (asking) { again = true; return }
      clearTimeout(timer)
      timer = setTimeout(() => { void ask() }, ASK_MS)
    }
    handle?.on('change', changed)
    void ask()
    return () => {
      ended = true
      clearTimeout(timer)
      clearTimeout(patience)
      handle?.off('change', changed)
    }
  }, [id, handle])
  return { doc, saved: doc === undefined || handle === undefined ? undefined : savedOf(doc, handle.heads()), settled, forgotten }
}

function SavedMark ({ handle, saved, settled }: { handle: DocHandle<Fields>, saved: Saved | undefined, settled: boolean }): JSX.Element {
  const kept = useKept(handle)
  const [mark, words] = link.value === 'away' && (kept || !keeps.value)
    ? (keeps.value ? ['kept', t('saved.kept')] : ['unsaved', t('saved.unsaved')])
    : !settled || saved === undefined ? ['saving', t('saved.saving')] : ['here', t('saved.here')]
  const more = mark === 'here' && saved !== undefined
    ? [saved.peers > 0 ? tn('saved.peers', saved.peers) : '', saved.behind > 0 ? tn('saved.behind', saved.behind) : ''].filter((text) => text !== '')
    : []
  return (
    <p class={`saved ${mark}`} role='status' data-saved={mark} data-peers={mark === 'here' ? saved?.peers : undefined}>
      <i aria-hidden='true' />{[words, ...more].join(' · ')}
    </p>
  )
}

const writable = new Compartment()
const may = (doc: Doc | undefined): boolean => doc?.role === 'writer' || doc?.role === 'admin'
const rights = (yes: boolean): ReturnType<typeof EditorState.readOnly.of>[] => [EditorState.readOnly.of(!yes), EditorView.editable.of(yes)]

const look = EditorView.theme({
  '&': { font: 'inherit', color: 'inherit', backgroundColor: 'transparent' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { font: 'inherit', lineHeight: '1.6', overflow: 'visible' },
  '.cm-content': { padding: '1rem 0', caretColor: 'var(--text)', minHeight: '50vh' },
  '.cm-line': { padding: '0 1.25rem' },
  '.cm-cursor': { borderLeftColor: 'var(--text)', borderLeftWidth: '2px' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { background: 'var(--selection)' }
})

function Text ({ binding, doc, onTooLong }: { binding: Binding, doc: Doc | undefined, onTooLong: (is: boolean) => void }): JSX.Element {
  const place = useRef<HTMLDivElement>(null)
  const editor = useRef<EditorView | undefined>(undefined)
  useEffect(() => {
    if (place.current === null) return
    // In a shadow root, because the editor's styles reach a document only as a <style>, which the content security policy forbids.
    const root = place.current.shadowRoot ?? place.current.attachShadow({ mode: 'open' })
    const view = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: EditorState.create({ extensions: EditorState.lineSeparator.of(LINE) }).toText(binding.text()),
        extensions: [
          EditorState.lineSeparator.of(LINE),
          history(), drawSelection(), highlightSpecialChars(), EditorView.lineWrapping, look,
          keymap.of([...defaultKeymap, ...historyKeymap]),
          EditorView.clipboardInputFilter.of((text) => text.replace(/\r\n?/g, '\n')),
          EditorState.changeFilter.of((change) => {
            if (!change.docChanged || change.newDoc.length <= change.startState.doc.length) return true
            const fits = change.newDoc.length * 3 <= TEXT_BYTES_MAX || bytesOf(change.newDoc.sliceString(0, undefined, LINE), TEXT_BYTES_MAX) <= TEXT_BYTES_MAX
            queueMicrotask(() => { onTooLong(!fits) })
            return fits || change.annotation(Transaction.remote) === true
          }),
          writable.of(rights(may(doc))),
          EditorView.contentAttributes.of({ 'aria-label': t('editor.label', { title: titleIn(binding.handle.doc()) }), spellcheck: 'true' }),
          binding.extension
        ]
      })
    })
    editor.current = view
    binding.attach(view)
    if (may(doc)) view.focus()
    return () => {
      binding.detach()
      view.destroy()
    }
  }, [binding])
  useEffect(() => { editor.current?.dispatch({ effects: writable.reconfigure(rights(may(doc))) }) }, [may(doc)])
  return <div class='paper' ref={place} />
}

/** The title as the document has it now. */
function useTitle (handle: DocHandle<Fields> | undefined, doc: Doc | undefined): string {
  const [, setTurn] = useState(0)
  useEffect(() => {
    const turn = (): void => { setTurn((before) => before + 1) }
    handle?.on('change', turn)
    return () => { handle?.off('change', turn) }
  }, [handle])
  const last = useRef('')
  if (handle?.isReady() === true) last.current = titleIn(handle.doc())
  const said = handle === undefined ? doc?.title ?? '' : last.current
  const title = said === '' ? t('documents.untitled') : said
  useEffect(() => { document.title = `${title} – ${t('app.name')}` }, [title])
  return title
}

export function Editor ({ id }: { id: string }): JSX.Element {
  const stage = useStage(id)
  const handle = stage.is === 'open' ? stage.handle : undefined
  const { doc, saved, settled, forgotten } = useNode(id, handle)
  const title = useTitle(handle, doc)
  const [tooLong, setTooLong] = useState(false)
  if (stage.is === 'unknown') {
    return (
      <section class='notice'>
        <h1>{t('nothing.title')}</h1>
        <p>{t('editor.unknown')}</p>
        <p>{t('editor.share')}</p>
        <pre><code>wattle doc share {id}</code></pre>
        <p><Inside to='/'>{t('nothing.back')}</Inside></p>
      </section>
    )
  }
  return (
    <article class='document' data-id={id}>
      <div class='head'>
        <h1>{title}</h1>
        {stage.is === 'open' && !forgotten ? <SavedMark handle={stage.handle} saved={saved} settled={settled} /> : null}
      </div>
      {doc !== undefined && doc.role === 'reader' ? <p class='hint'>{t('editor.readonly')}</p> : null}
      {doc !== undefined && doc.role == null ? <p class='hint'>{t('editor.outside')}</p> : null}
      {forgotten ? <p class='warning' role='alert'>{t('editor.forgotten')}</p> : null}
      {tooLong ? <p class='warning' role='alert'>{t('editor.long', { max: size(TEXT_BYTES_MAX) })}</p> : null}
      {stage.is === 'loading' ? <p class='quiet'>{t('editor.loading')}</p> : null}
      {stage.is === 'fields' ? <><p class='hint'>{t('editor.fields')}</p><pre><code>{program()} doc set {id} PATH VALUE</code></pre></> : null}
      {stage.is === 'open' ? <Text binding={stage.binding} doc={doc} onTooLong={setTooLong} /> : null}
      <p class='quiet id'><code>{id}</code></p>
    </article>
  )
}
