// The text of a document in an editor, live both ways.
//
// 1. The editor's text is always the text at `heads`, which `pieces` remember, with `pending` on top. Asking automerge for an old
//    version instead costs 25 ms in a short text and a second in a long one.
// 2. What is typed goes into `pending`, and at once from there into the document, as a change of the version at `heads`: automerge
//    merges it with what others did since.
// 3. What others did since `heads` comes into the editor as edits at their places, so that cursor, selection and undo stay.
// 4. While an input method composes, neither happens: what is half typed stays here, and nothing moves under the composition.

import * as A from '@automerge/automerge'
import { decodeHeads, type DocHandle, type UrlHeads } from '@automerge/automerge-repo'
import { Annotation, ChangeSet, Transaction, type Extension } from '@codemirror/state'
import { EditorView } from '@codemirror/view'
import { homeOf, joined, piecesOf, write, type Edit, type Fields, type Home, type Piece } from './body'
import { difference, editsOf, type Patch } from './patches'

const remote = Annotation.define<boolean>()
/** How the text is cut into lines: at line feeds alone, so that every character of the document has its place. */
export const LINE = '\n'

export const same = (one: UrlHeads, other: UrlHeads): boolean => one.length === other.length && one.every((head, at) => head === other[at])

export class Binding {
  #heads: UrlHeads
  #home: Home
  #pieces: Piece[]
  #pending: ChangeSet | undefined
  #composing = false
  #view: EditorView | undefined
  readonly extension: Extension

  constructor (readonly handle: DocHandle<Fields>, home: Home, readonly onTyped: () => void) {
    this.#heads = handle.heads()
    this.#home = home
    this.#pieces = piecesOf(handle.doc(), home)
    this.extension = [
      EditorView.updateListener.of((update) => {
        if (!update.docChanged || update.transactions.some((one) => one.annotation(remote) === true)) return
        this.#pending = this.#pending === undefined ? update.changes : this.#pending.compose(update.changes)
        this.onTyped()
        this.#settle()
      }),
      EditorView.domEventObservers({
        compositionstart: () => { this.#composing = true },
        compositionend: () => {
          this.#composing = false
          // After the editor has read what the composition left in the page.
          setTimeout(() => { this.#settle() })
        }
      })
    ]
  }

  /** The text that the editor begins with. */
  text (): string {
    return joined(this.#pieces)
  }

  attach (view: EditorView): void {
    this.#view = view
    this.handle.on('change', this.#settle)
    this.#settle()
  }

  detach (): void {
    this.handle.off('change', this.#settle)
    this.#composing = false
    this.#push()
    this.#view = undefined
  }

  /** Whether something typed is not in the document yet. */
  get holds (): boolean {
    return this.#pending !== undefined
  }

  readonly #settle = (): void => {
    if (this.#composing || this.#view?.composing === true) return
    this.#push()
    // Not within an update of the editor, which may have called this.
    queueMicrotask(() => { this.#pull() })
  }

  #push (): void {
    const pending = this.#pending
    // A document that its node has forgotten is not written any more.
    if (pending === undefined || !this.handle.isReady()) return
    this.#pending = undefined
    const edits: Edit[] = []
    pending.iterChanges((from, to, _fromB, _toB, insert) => { edits.push({ from, to, insert: insert.sliceString(0, undefined, LINE) }) })
    const current = same(this.#heads, this.handle.heads())
    let after = this.#pieces
    const change = (doc: Fields): void => {
      const pen = {
        splice: (path: Array<string | number>, at: number, remove: number, insert: string) => { A.splice(doc, path, at, remove, insert) },
        insertSections: (index: number, texts: string[]) => { A.insertAt(doc.sections as string[], index, ...texts) }
      }
      after = write(pen, this.#home, this.#pieces, edits)
    }
    if (current) {
      this.handle.change(change)
      this.#heads = this.handle.heads()
    } else {
      this.#heads = this.handle.changeAt(this.#heads, change) ?? this.#heads
    }
    this.#pieces = after
  }

  #pull (): void {
    const view = this.#view
    if (view === undefined || this.#pending !== undefined || this.#composing || view.composing || !this.handle.isReady()) return
    const now = this.handle.heads()
    if (same(this.#heads, now)) return
    const doc = this.handle.doc()
    const [before, after] = [decodeHeads(this.#heads), decodeHeads(now)]
    const patches = A.diff(doc, before, after) as Patch[]
    const edits = editsOf(this.#pieces, this.#home, patches)
    this.#heads = now
    // A text that is gone keeps its place: it may come back.
    this.#home = homeOf(doc) ?? this.#home
    this.#pieces = piecesOf(doc, this.#home)
    if (edits !== undefined) this.#apply(view, edits)
    // The editor shows what the document says, whatever the patches were.
    const rest = difference(view.state.sliceDoc(), joined(this.#pieces))
    if (rest !== undefined) this.#apply(view, [rest])
  }

  #apply (view: EditorView, edits: Edit[]): void {
    let changes = ChangeSet.empty(view.state.doc.length)
    for (const edit of edits) {
      if (edit.to > changes.newLength) return
      changes = changes.compose(ChangeSet.of(edit, changes.newLength, LINE))
    }
    if (changes.empty) return
    view.dispatch({ changes, annotations: [remote.of(true), Transaction.remote.of(true), Transaction.addToHistory.of(false)] })
  }
}
