// Where the text of a document is, and how an edit of it becomes splices of its sections. The rules are those of `apps/pad`:
// sections are joined to the text, an insertion between two goes to the latter, a section that would grow beyond the cap
// keeps the larger part of what it has. Pure, but for the document that is written.

export const SECTION_BYTES_MAX = 64 * 1024
const SECTION_FILL_BYTES = SECTION_BYTES_MAX / 4
/** A section longer than this was not made by us and is never cut: that would write most of a text anew. */
const SECTION_CUT_BYTES_MAX = SECTION_BYTES_MAX * 2
export const TEXT_BYTES_MAX = 10 * 1024 * 1024

const SECTIONS = 'sections'
const TITLE = 'title'
/** Where other programs keep their text, in the order of asking. */
const FOREIGN = ['text', 'content']

export type Fields = Record<string, unknown>
export type Home = { kind: 'sections' } | { kind: 'single', key: string }
/** A Text object: its index in the list of sections, and what is in it. A plain string in JavaScript is a Text object. */
export interface Piece { index: number, text: string }
/** Characters, in UTF-16 units, that are replaced; places count in the text before. */
export interface Edit { from: number, to: number, insert: string }

const encoder = new TextEncoder()

/** Bytes of a text in UTF-8, exact only where it matters: a UTF-16 unit is one to three of them. */
export function bytesOf (text: string, enough: number): number {
  return text.length > enough || text.length * 3 <= enough ? text.length : encoder.encode(text).length
}

function textsIn (list: unknown): Piece[] {
  if (!Array.isArray(list)) return []
  return list.flatMap((text: unknown, index) => typeof text === 'string' ? [{ index, text }] : [])
}

function foreign (doc: Fields): string | undefined {
  const named = FOREIGN.find((key) => typeof doc[key] === 'string')
  if (named !== undefined) return named
  const [only, more] = Object.keys(doc).filter((key) => key !== TITLE && typeof doc[key] === 'string')
  return more === undefined ? only : undefined
}

/** Where the text is; nowhere in a document of fields alone. */
export function homeOf (doc: Fields): Home | undefined {
  const list = doc[SECTIONS]
  const sections = textsIn(list)
  const key = sections.length === 0 ? foreign(doc) : undefined
  if (key !== undefined) return { kind: 'single', key }
  return Array.isArray(list) && (sections.length > 0 || list.length === 0) ? { kind: 'sections' } : undefined
}

export function piecesOf (doc: Fields, home: Home): Piece[] {
  if (home.kind === 'sections') return textsIn(doc[SECTIONS])
  const text = doc[home.key]
  return typeof text === 'string' ? [{ index: 0, text }] : []
}

export const joined = (pieces: Piece[]): string => pieces.map((piece) => piece.text).join('')

export function titleIn (doc: Fields): string {
  const title = doc[TITLE]
  return title === undefined || title === null ? '' : String(title)
}

/** What the writer of a document can do; automerge in the page, plain lists in tests. */
export interface Pen {
  splice: (path: Array<string | number>, at: number, remove: number, insert: string) => void
  insertSections: (index: number, texts: string[]) => void
}

/** Writes edits of the text, of which none overlap, into a document whose pieces are these; gives its pieces after it. */
export function write (pen: Pen, home: Home, pieces: Piece[], edits: Edit[]): Piece[] {
  // From the last to the first, so that each place still counts what is before it.
  const backwards = [...edits].sort((one, other) => other.from - one.from)
  return backwards.reduce((pieces, edit) => replace(pen, home, pieces, edit), pieces)
}

interface Cut { piece: Piece, at: number, remove: number }

function cutsOf (pieces: Piece[], { from, to }: Edit): Cut[] {
  const cuts: Cut[] = []
  let start = 0
  for (const piece of pieces) {
    const end = start + piece.text.length
    const [first, last] = [Math.max(from, start), Math.min(to, end)]
    if (first < last) cuts.push({ piece, at: first - start, remove: last - first })
    start = end
  }
  return cuts
}

const fits = (text: string): boolean => bytesOf(text, SECTION_BYTES_MAX) <= SECTION_BYTES_MAX

/** The piece that an insertion at `from` belongs to, and where in it: the last of those that have room. */
function placeOf (pieces: Piece[], from: number, insert: string): Cut | undefined {
  const places: Cut[] = []
  let start = 0
  for (const piece of pieces) {
    const end = start + piece.text.length
    if (start <= from && from <= end) places.push({ piece, at: from - start, remove: 0 })
    start = end
  }
  return places.findLast((place) => fits(place.piece.text + insert)) ?? places.at(-1)
}

const spliced = ({ piece, at, remove }: Cut, insert: string): string => piece.text.slice(0, at) + insert + piece.text.slice(at + remove)

function replace (pen: Pen, home: Home, pieces: Piece[], edit: Edit): Piece[] {
  const cuts = cutsOf(pieces, edit)
  const target = cuts[0] ?? placeOf(pieces, edit.from, edit.insert)
  if (target === undefined) {
    const texts = cut(edit.insert)
    pen.insertSections(0, texts)
    return texts.map((text, index) => ({ index, text }))
  }
  const path = (piece: Piece): Array<string | number> => home.kind === 'single' ? [home.key] : [SECTIONS, piece.index]
  const after = new Map<Piece, string>()
  for (const one of cuts.slice(1).reverse()) {
    pen.splice(path(one.piece), one.at, one.remove, '')
    after.set(one.piece, spliced(one, ''))
  }
  const whole = spliced(target, edit.insert)
  const must = home.kind === 'sections' && !fits(whole) && bytesOf(target.piece.text, SECTION_CUT_BYTES_MAX) <= SECTION_CUT_BYTES_MAX
  if (!must) {
    pen.splice(path(target.piece), target.at, target.remove, edit.insert)
    after.set(target.piece, whole)
    return pieces.map((piece) => ({ index: piece.index, text: after.get(piece) ?? piece.text }))
  }
  const [head, tail] = [target.piece.text.slice(0, target.at), target.piece.text.slice(target.at + target.remove)]
  // The longer side stays where it is: what moves is written anew, and a concurrent edit of it stays behind.
  const stays = head.length >= tail.length
  const texts = cut(stays ? edit.insert + tail : head + edit.insert)
  const { index } = target.piece
  if (stays) pen.splice(path(target.piece), target.at, target.remove + tail.length, '')
  else pen.splice(path(target.piece), 0, head.length + target.remove, '')
  pen.insertSections(stays ? index + 1 : index, texts)
  after.set(target.piece, stays ? head : tail)
  return pieces.flatMap((piece) => {
    const text = after.get(piece) ?? piece.text
    if (piece.index < index) return [{ index: piece.index, text }]
    if (piece.index > index) return [{ index: piece.index + texts.length, text }]
    const made = (first: number): Piece[] => texts.map((text, at) => ({ index: first + at, text }))
    return stays ? [{ index, text }, ...made(index + 1)] : [...made(index), { index: index + texts.length, text }]
  })
}

/** Cuts a text into new sections: at line ends where lines are short enough. */
export function cut (text: string): string[] {
  const sections: string[] = []
  let rest = text
  while (bytesOf(rest, SECTION_FILL_BYTES) > SECTION_FILL_BYTES) {
    const at = cutPoint(rest)
    sections.push(rest.slice(0, at))
    rest = rest.slice(at)
  }
  if (rest !== '' || sections.length === 0) sections.push(rest)
  return sections
}

function cutPoint (text: string): number {
  let [end, bytes] = [0, 0]
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4
    if (bytes > SECTION_FILL_BYTES) break
    end += character.length
  }
  const half = end >> 1
  const line = text.lastIndexOf('\n', end - 1)
  if (line >= half) return line + 1
  for (let at = end - 1; at >= half; at--) {
    if (/\s/.test(text[at] ?? '')) return at + 1
  }
  return end
}
