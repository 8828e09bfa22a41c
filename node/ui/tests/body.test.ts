import { expect, test } from 'vitest'
import { SECTION_BYTES_MAX, cut, homeOf, joined, piecesOf, write, type Edit, type Fields, type Home, type Pen } from '../src/editing/body'
import { Draw } from './random'

const bytes = (text: string): number => new TextEncoder().encode(text).length

/** Writes into plain lists what automerge would write into a document. */
function penOf (doc: Fields): Pen {
  return {
    splice: (path, at, remove, insert) => {
      const key = path.at(-1) as string
      const holder = (path.length === 1 ? doc : doc.sections) as Record<string, string>
      const text = holder[key]
      if (text === undefined || at + remove > text.length) throw new Error(`${String(path)} has no ${at}+${remove}`)
      holder[key] = text.slice(0, at) + insert + text.slice(at + remove)
    },
    insertSections: (index, texts) => { (doc.sections as string[]).splice(index, 0, ...texts) }
  }
}

function edit (doc: Fields, edits: Edit[]): void {
  const home = homeOf(doc) as Home
  const after = write(penOf(doc), home, piecesOf(doc, home), edits)
  expect(after).toEqual(piecesOf(doc, home))
}

const all = (doc: Fields): string => joined(piecesOf(doc, homeOf(doc) as Home))

test('a text is found where wattle and other programs keep it', () => {
  const scalar = { toString: () => 'a string, not a text' }
  expect(homeOf({ title: scalar, sections: ['a', 'b'] })).toEqual({ kind: 'sections' })
  expect(homeOf({ sections: [] })).toEqual({ kind: 'sections' })
  expect(homeOf({ sections: ['a'], text: 'b' })).toEqual({ kind: 'sections' })
  expect(homeOf({ sections: [], content: 'a' })).toEqual({ kind: 'single', key: 'content' })
  expect(homeOf({ content: 'a', text: 'b' })).toEqual({ kind: 'single', key: 'text' })
  expect(homeOf({ title: 'a', body: 'b' })).toEqual({ kind: 'single', key: 'body' })
  expect(homeOf({ one: 'a', other: 'b' })).toBeUndefined()
  expect(homeOf({ sections: [1, scalar] })).toBeUndefined()
  expect(homeOf({ title: 'a' })).toBeUndefined()
  expect(all({ sections: ['a', 1, scalar, 'b'] })).toBe('ab')
})

test('what is inserted between two sections goes to the latter, what replaces across them to the former', () => {
  const doc = { sections: ['one\n', 'two\n'] }
  edit(doc, [{ from: 4, to: 4, insert: '+' }])
  expect(doc.sections).toEqual(['one\n', '+two\n'])
  edit(doc, [{ from: 3, to: 6, insert: '-' }])
  expect(doc.sections).toEqual(['one-', 'wo\n'])
  edit(doc, [{ from: 0, to: 7, insert: '' }])
  expect(doc.sections).toEqual(['', ''])
})

test('a full section keeps its longer part, and the next key does not cut again', () => {
  const full = 'x'.repeat(SECTION_BYTES_MAX)
  const doc = { sections: [full] }
  edit(doc, [{ from: 100, to: 100, insert: 'y' }])
  expect(doc.sections.map((section) => section.length)).toEqual([101, SECTION_BYTES_MAX - 100])
  for (let key = 0; key < 50; key++) edit(doc, [{ from: 101, to: 101, insert: 'z' }])
  expect(doc.sections).toHaveLength(2)

  const two = { sections: [full, full] }
  for (let key = 0; key < 50; key++) edit(two, [{ from: SECTION_BYTES_MAX + key, to: SECTION_BYTES_MAX + key, insert: 'k' }])
  expect(two.sections).toEqual([full, 'k'.repeat(50), full])
})

test('a section that another program made too long is never cut', () => {
  const doc = { sections: ['x'.repeat(3 * SECTION_BYTES_MAX)] }
  edit(doc, [{ from: 5, to: 5, insert: 'y' }])
  expect(doc.sections).toHaveLength(1)
})

test('a long text is cut at line ends, and within no character', () => {
  const lines = Array.from({ length: 4000 }, (_, number) => `line ${number} 你好 👩‍🚀`).join('\n')
  const sections = cut(lines)
  expect(sections.join('')).toBe(lines)
  for (const section of sections.slice(0, -1)) expect(section.endsWith('\n')).toBe(true)
  const astronauts = cut('👩‍🚀'.repeat(5000))
  expect(astronauts.every((section) => section.isWellFormed() && bytes(section) <= SECTION_BYTES_MAX / 4)).toBe(true)
  expect(cut('')).toEqual([''])
})

test('whatever is edited, the text is what was saved and no section grows beyond the cap', () => {
  for (let seed = 1; seed <= 25; seed++) {
    const draw = new Draw(seed)
    const sections = Array.from({ length: draw.below(5) }, () => draw.pick(['', 'short', 'x'.repeat(SECTION_BYTES_MAX), '字'.repeat(15_000)]))
    const doc = { sections }
    for (let round = 0; round < 12; round++) {
      const text = all(doc)
      const edits: Edit[] = []
      let at = 0
      for (let many = draw.below(3); many >= 0; many--) {
        const from = Math.min(at + draw.below(draw.pick([3, 200_000])), text.length)
        const to = Math.min(from + draw.below(draw.pick([1, 3, 100_000])), text.length)
        edits.push({ from, to, insert: draw.pick(['', 'a', '你', 'p'.repeat(10_000), 'q\n'.repeat(20_000)]) })
        at = to + 1
        if (at > text.length) break
      }
      let wanted = text
      for (const { from, to, insert } of [...edits].reverse()) wanted = wanted.slice(0, from) + insert + wanted.slice(to)
      edit(doc, edits)
      expect(all(doc) === wanted, `seed ${seed}, round ${round}`).toBe(true)
      expect(doc.sections.every((section) => bytes(section) <= SECTION_BYTES_MAX), `seed ${seed}, round ${round}`).toBe(true)
    }
  }
})
