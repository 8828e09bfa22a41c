// Every word of the page comes from a catalogue. The language is what was chosen here, or else what the browser asks for.

import { computed, effect, signal } from '@preact/signals'
import { remembered, remember } from './memory'
import en from './text/en.json'
import hant from './text/zh-Hant.json'

type Catalogue = Record<keyof typeof en, string>
/** A text that depends on a number has one entry for each plural form. */
type Plural<K> = K extends `${infer Stem}.other` ? Stem : never
export type Key = keyof Catalogue
export type PluralKey = Plural<Key>

export const LANGUAGES = { en: 'English', 'zh-Hant': '繁體中文' } as const
export type Language = keyof typeof LANGUAGES

const CATALOGUES: Record<Language, Catalogue> = { en, 'zh-Hant': hant }

function asked (): Language {
  const kept = remembered('language')
  if (kept !== null && kept in CATALOGUES) return kept as Language
  // Whoever reads Chinese in any script reads this better than English.
  return navigator.languages[0]?.toLowerCase().startsWith('zh') ? 'zh-Hant' : 'en'
}

export const language = signal<Language>(asked())

export function speak (chosen: Language): void {
  language.value = chosen
  remember('language', chosen)
}

// The browser picks the Han glyphs of the language, and a screen reader its voice.
effect(() => { document.documentElement.lang = language.value })

const numbers = computed(() => new Intl.NumberFormat(language.value))
const plurals = computed(() => new Intl.PluralRules(language.value))
const days = computed(() => new Intl.DateTimeFormat(language.value, { dateStyle: 'medium', timeStyle: 'short' }))

export function t (key: Key, values: Record<string, string | number> = {}): string {
  return CATALOGUES[language.value][key].replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name]
    if (value === undefined) return whole
    return typeof value === 'number' ? numbers.value.format(value) : value
  })
}

/** A text about `n` things. */
export function tn (stem: PluralKey, n: number): string {
  const form = `${stem}.${plurals.value.select(n)}`
  return t((form in en ? form : `${stem}.other`) as Key, { n })
}

export function day (timestamp: string): string {
  return days.value.format(new Date(timestamp))
}

/** Bytes as people say them. */
export function size (bytes: number): string {
  const units = ['byte', 'kilobyte', 'megabyte'] as const
  const step = bytes < 1000 ? 0 : bytes < 1_000_000 ? 1 : 2
  const format = new Intl.NumberFormat(language.value, {
    style: 'unit', unit: units[step], unitDisplay: step === 0 ? 'long' : 'short', maximumFractionDigits: bytes < 10_000 * 1000 ** (step - 1) ? 1 : 0
  })
  return format.format(bytes / 1000 ** step)
}
