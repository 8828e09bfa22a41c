import * as A from '@automerge/automerge'
import { expect, test } from 'vitest'
import { homeOf, joined, piecesOf, write, type Edit, type Fields, type Home } from '../src/editing/body'
import { difference, editsOf, type Patch } from '../src/editing/patches'
import { Draw } from './random'

const apply = (text: string, edits: Edit[]): string =>
  edits.reduce((text, { from, to, insert }) => text.slice(0, from) + insert + text.slice(to), text)

function change (doc: A.Doc<Fields>, edits: Edit[]): A.Doc<Fields> {
  const home = homeOf(doc) as Home
  const pieces = piecesOf(doc, home)
  return A.change(doc, (doc) => {
    write({
      splice: (path, at, remove, insert) => { A.splice(doc, path, at, remove, insert) },
      insertSections: (index, texts) => { A.insertAt(doc.sections as string[], index, ...texts) }
    }, home, pieces, edits)
  })
}

const textOf = (doc: Fields, home: Home): string => joined(piecesOf(doc, home))

function some (draw: Draw, text: string): Edit {
  const from = draw.below(text.length + 1)
  const to = Math.min(from + draw.below(draw.pick([1, 4, 5000])), text.length)
  return { from, to, insert: draw.pick(['', 'k', '你好', '👩‍🚀', 'paste\n'.repeat(300)]) }
}

test('what others changed at the same time comes as edits that lead to the merged text', () => {
  let merged = 0
  for (let seed = 1; seed <= 20; seed++) {
    const draw = new Draw(seed)
    const start: Fields = draw.pick([{ sections: ['one\n', 'x'.repeat(3000), 'two'] }, { sections: [] }, { title: 'a', text: 'hello' }])
    let mine = A.from(start)
    let theirs = A.clone(mine)
    for (let round = 0; round < 5; round++) {
      const home = homeOf(mine) as Home
      mine = change(mine, [some(draw, textOf(mine, home))])
      for (let many = draw.below(4); many >= 0; many--) theirs = change(theirs, [some(draw, textOf(theirs, home))])
      theirs = A.change(theirs, (doc) => { doc.other = round; if (Array.isArray(doc.sections)) A.insertAt(doc.sections, 0, round) })
      const [before, pieces] = [A.getHeads(mine), piecesOf(mine, home)]
      mine = A.merge(mine, theirs)
      theirs = A.merge(theirs, mine)
      const edits = editsOf(pieces, home, A.diff(mine, before, A.getHeads(mine)) as Patch[])
      expect(edits, `seed ${seed}, round ${round}`).toBeDefined()
      expect(apply(joined(pieces), edits ?? []) === textOf(mine, home), `seed ${seed}, round ${round}`).toBe(true)
      merged += edits?.length ?? 0
    }
  }
  expect(merged).toBeGreaterThan(30)
})

test('a list of sections that is replaced is no edit: the texts are compared', () => {
  const doc = A.from<Fields>({ sections: ['one'] })
  const other = A.change(A.clone(doc), (doc) => { doc.sections = ['two'] })
  const patches = A.diff(other, A.getHeads(doc), A.getHeads(other)) as Patch[]
  expect(editsOf(piecesOf(doc, { kind: 'sections' }), { kind: 'sections' }, patches)).toBeUndefined()
})

test('the difference of two texts is what is between their ends', () => {
  expect(difference('same', 'same')).toBeUndefined()
  expect(difference('one two', 'one big two')).toEqual({ from: 4, to: 4, insert: 'big ' })
  expect(difference('aaa', 'aa')).toEqual({ from: 2, to: 3, insert: '' })
  expect(difference('', 'x')).toEqual({ from: 0, to: 0, insert: 'x' })
})
