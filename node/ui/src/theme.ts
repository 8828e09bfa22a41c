// Light, dark, or as the system has it.

import { effect, signal } from '@preact/signals'
import { remember, remembered } from './memory'

export const THEMES = ['auto', 'light', 'dark'] as const
export type Theme = typeof THEMES[number]

const kept = remembered('theme')
export const theme = signal<Theme>(THEMES.find((theme) => theme === kept) ?? 'auto')

export function paint (chosen: Theme): void {
  theme.value = chosen
  remember('theme', chosen)
}

effect(() => {
  const root = document.documentElement
  if (theme.value === 'auto') delete root.dataset.theme
  else root.dataset.theme = theme.value
})
