import { render } from 'preact'
import { link, me, signIn, whoAmI } from './api'
import { bringAll } from './editing/unsaved'
import { takeCode } from './place'
import { Shell, badCode, entered } from './shell'
import './theme'

const RETRY_MS = 1000

/** Finds out which node this is; who is not signed in is told so by the shell. */
async function meet (): Promise<void> {
  try {
    me.value = await whoAmI()
    bringAll()
  } catch {
    if (link.value === 'away') setTimeout(() => { void meet() }, RETRY_MS)
  }
}

async function begin (): Promise<void> {
  const code = takeCode()
  if (code !== undefined) {
    badCode.value = false
    try {
      await signIn(code)
    } catch {
      badCode.value = true
    }
  }
  entered.value = true
  await meet()
}

const page = document.getElementById('page')
if (page !== null) render(<Shell />, page)
void begin()
// A link that is put into the address of this very page changes only what is behind the number sign, and loads nothing.
addEventListener('hashchange', () => { if (location.hash.startsWith('#k=')) void begin() })
