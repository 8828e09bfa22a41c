// A person at the page of a node: drives Debian's Chromium, reads one JSON command a line, does it, answers with one JSON line.
//
//   node page.mjs CHROMIUM
//
// Answers are {"ok": true, ..} or {"ok": false, "error": ".."}. Steps:
//
//   {"step": "open", "url": U}                       goes there and waits for an editor
//   {"step": "leave"}                                closes the page, as one closes a tab
//   {"step": "visit", "url": U, "text": ".."}        goes there and waits until the page says this
//   {"step": "type", "text": "..", "every": MS}      keystrokes, where the cursor is
//   {"step": "press", "key": ".."}                   one key, such as Control+Home
//   {"step": "paste", "text": ".."}                  all at once, as the clipboard gives it
//   {"step": "compose", "text": ".."}                what an input method shows while it composes
//   {"step": "commit", "text": ".."}                 what it ends with
//   {"step": "text"}                                 -> text: what the editor shows
//   {"step": "until", "equals": "..", "within": MS}  -> ms: until the editor shows this
//   {"step": "saved", "is": "..", "peers": N, "within": MS}   until the mark says so
//   {"step": "table"}                                -> rows: what the table of documents says, as texts
//   {"step": "writable"}                             -> writable: whether the editor takes keys
//   {"step": "focus", "within": MS}                  clicks into the editor once it takes keys
//   {"step": "choose", "theme": "..", "language": ".."}
//   {"step": "click", "name": ".."}                  the button or link that is called so
//   {"step": "says", "text": "..", "within": MS}     until the page says this
//   {"step": "size", "width": W, "height": H}, {"step": "picture", "path": P}
//   {"step": "barriers"}                             -> barriers: what axe finds serious for who uses no mouse or sees little
//   {"step": "complaints"}                           -> complaints: errors in the console, and requests to elsewhere, since the last time
//   {"step": "loaded"}                               -> bytes: of scripts, styles and the page itself, compressed, that came since the start
//   {"step": "quit"}

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { gzipSync } from 'node:zlib'
import { chromium } from 'playwright-core'

const WITHIN_MS = 20_000
const QUIET = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const browser = await chromium.launch({ executablePath: process.argv[2], args: QUIET })
const page = await browser.newPage({ viewport: { width: 1100, height: 720 }, locale: 'en-GB' })
const wire = await page.context().newCDPSession(page)

let complaints = []
let loaded = 0
page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`) })
page.on('pageerror', (error) => complaints.push(`uncaught: ${error}`))
page.on('request', (request) => {
  const { hostname, protocol } = new URL(request.url())
  if (!['data:', 'about:'].includes(protocol) && hostname !== '127.0.0.1') complaints.push(`request to ${request.url()}`)
})
page.on('response', (response) => {
  const kind = response.headers()['content-type'] ?? ''
  if (!/html|javascript|css/.test(kind)) return
  // Ignored because a page that is left takes its answers along.
  response.body().then((body) => { loaded += gzipSync(body, { level: 9 }).length }, () => {})
})

// What the editor shows. Its lines are in a shadow root, all of them while the text is short. These are put into the page from
// outside, because the page's content security policy lets nobody make functions of text there.
await page.addInitScript(() => {
  globalThis.shown = () => {
    const root = document.querySelector('.paper')?.shadowRoot
    return root == null ? null : [...root.querySelectorAll('.cm-line')].map((line) => line.textContent).join('\n')
  }
  globalThis.untilShown = async (text, within) => {
    const began = performance.now()
    while (globalThis.shown() !== text) {
      if (performance.now() - began > within) return undefined
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return performance.now() - began
  }
})

const steps = {
  open: async ({ url }) => {
    await page.goto(url)
    await page.locator('.cm-content').waitFor({ timeout: WITHIN_MS })
  },
  leave: async () => { await page.goto('about:blank') },
  visit: async ({ url, text }) => {
    await page.goto(url)
    await page.getByText(text).first().waitFor({ timeout: WITHIN_MS })
  },
  type: async ({ text, every }) => {
    for (const key of text) {
      const began = performance.now()
      await page.keyboard.type(key)
      const rest = (every ?? 0) - (performance.now() - began)
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest))
    }
  },
  press: async ({ key }) => { await page.keyboard.press(key) },
  paste: async ({ text }) => { await page.keyboard.insertText(text) },
  compose: async ({ text }) => {
    await wire.send('Input.imeSetComposition', { text, selectionStart: text.length, selectionEnd: text.length })
  },
  commit: async ({ text }) => { await wire.send('Input.insertText', { text }) },
  text: async () => ({ text: await page.evaluate(() => globalThis.shown()) }),
  until: async ({ equals, within }) => {
    const ms = await page.evaluate(([text, within]) => globalThis.untilShown(text, within), [equals, within ?? WITHIN_MS])
    if (ms === undefined) {
      const there = await page.evaluate(() => globalThis.shown())
      throw new Error(`${JSON.stringify(equals)} did not come, there is ${JSON.stringify(there)}`)
    }
    return { ms }
  },
  saved: async ({ is, peers, within }) => {
    const mark = page.locator(`[data-saved="${is}"]${peers === undefined ? '' : `[data-peers="${peers}"]`}`)
    try {
      await mark.waitFor({ timeout: within ?? WITHIN_MS })
    } catch {
      throw new Error(`the mark says: ${await page.locator('.saved').innerText()}`)
    }
  },
  table: async () => ({
    rows: await page.locator('table tr').evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.innerText)))
  }),
  writable: async () => ({ writable: await page.locator('.cm-content').getAttribute('contenteditable') === 'true' }),
  focus: async ({ within }) => { await page.locator('.cm-content[contenteditable="true"]').click({ timeout: within ?? WITHIN_MS }) },
  choose: async ({ theme, language }) => {
    const [colours, languages] = [page.locator('.choices select').first(), page.locator('.choices select').last()]
    if (theme !== undefined) await colours.selectOption(theme)
    if (language !== undefined) await languages.selectOption(language)
  },
  click: async ({ name }) => {
    await page.getByRole('button', { name }).or(page.getByRole('link', { name })).first().click()
  },
  says: async ({ text, within }) => { await page.getByText(text).first().waitFor({ timeout: within ?? WITHIN_MS }) },
  size: async (size) => { await page.setViewportSize(size) },
  picture: async ({ path }) => { await page.screenshot({ path }) },
  barriers: async () => {
    await page.evaluate(axe)
    const { violations } = await page.evaluate(() => globalThis.axe.run())
    const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
    return { barriers: serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`) }
  },
  complaints: async () => {
    const all = complaints
    complaints = []
    return { complaints: all }
  },
  loaded: async () => ({ bytes: loaded })
}

for await (const line of createInterface({ input: process.stdin })) {
  const { step, ...wish } = JSON.parse(line)
  if (step === 'quit') break
  let answer
  try {
    if (steps[step] === undefined) throw new Error(`no step ${step}`)
    answer = { ok: true, ...await steps[step](wish) }
  } catch (error) {
    answer = { ok: false, error: String(error.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await browser.close()
process.exit(0)
