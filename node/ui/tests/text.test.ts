import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import en from '../src/text/en.json'
import hant from '../src/text/zh-Hant.json'

const values = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort()

test('both languages say everything, with the same values', () => {
  expect(Object.keys(hant)).toEqual(Object.keys(en))
  for (const [key, text] of Object.entries(en)) {
    expect(values(hant[key as keyof typeof en]), key).toEqual(values(text))
    expect(text.trim()).not.toBe('')
  }
})

const source = join(import.meta.dirname, '../src')
const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => /\.tsx?$/.test(name) && !name.includes('generated'))

test('every entry is used', () => {
  const code = files.map((name) => readFileSync(join(source, name), 'utf8')).join('\n')
  const unused = Object.keys(en).filter((key) => {
    const stem = key.replace(/\.(one|other)$/, '')
    const family = key.replace(/\.\w+$/, '.')
    return !code.includes(`'${key}'`) && !code.includes(`'${stem}'`) && !code.includes('`' + family + '${')
  })
  expect(unused).toEqual([])
})

test('no word stands in the markup: all come from the catalogues', () => {
  for (const name of files.filter((name) => name.endsWith('.tsx'))) {
    const code = readFileSync(join(source, name), 'utf8')
    const words = [...code.matchAll(/>\s*([^<>{}()=;,'"`]*\p{L}{2,}[^<>{}()=;'"`]*)</gu)].map((match) => match[1]?.trim() ?? '')
    // What is typed in a terminal is the same in every language.
    expect(words.filter((text) => !text.startsWith('wattle ')), name).toEqual([])
    for (const [, label] of code.matchAll(/(?:aria-label|title|placeholder|alt)='([^']*)'/g)) expect.fail(`${name}: ${label}`)
  }
})
