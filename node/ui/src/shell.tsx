// What is around every view: where to go, how the node is, colours and language.

import { signal } from '@preact/signals'
import type { ComponentType, JSX } from 'preact'
import { link, me, type Link as LinkState } from './api'
import { Inside } from './inside'
import { place } from './place'
import { LANGUAGES, language, speak, t, type Key, type Language } from './text'
import { THEMES, paint, theme, type Theme } from './theme'
import { Documents } from './views/documents'

/** The address brought a sign-in code that did not work. */
export const badCode = signal(false)
/** Whether the sign-in, if there was one to do, is done: before it nothing is asked of the node. */
export const entered = signal(false)

const LINK_TEXT: Record<Exclude<LinkState, 'signed out'>, Key> = { looking: 'link.looking', here: 'link.here', away: 'link.away' }

function LinkMark (): JSX.Element | null {
  const state = link.value
  if (state === 'signed out') return null
  const title = me.value === undefined ? undefined : t('link.title', { id: me.value.id })
  return <span class={`link ${state}`} role='status' title={title}><i aria-hidden='true' />{t(LINK_TEXT[state])}</span>
}

function Choices (): JSX.Element {
  return (
    <div class='choices'>
      <select aria-label={t('theme.label')} value={theme.value} onChange={(event) => { paint(event.currentTarget.value as Theme) }}>
        {THEMES.map((name) => <option key={name} value={name}>{t(`theme.${name}`)}</option>)}
      </select>
      <select aria-label={t('language.label')} value={language.value} onChange={(event) => { speak(event.currentTarget.value as Language) }}>
        {Object.entries(LANGUAGES).map(([tag, name]) => <option key={tag} value={tag} lang={tag}>{name}</option>)}
      </select>
    </div>
  )
}

function SignedOut (): JSX.Element {
  return (
    <section class='notice'>
      <h1>{t('signin.title')}</h1>
      <p>{t(badCode.value ? 'signin.used' : 'signin.why')}</p>
      <p>{t('signin.how')}</p>
      <pre><code>wattle ui</code></pre>
    </section>
  )
}

type EditorView = ComponentType<{ id: string }>
const editor = signal<EditorView | undefined>(undefined)
let asked = false

/** The editor is most of the page's weight, so it comes when the first document is opened. */
function Editor ({ id }: { id: string }): JSX.Element {
  if (!asked) {
    asked = true
    import('./views/editor').then(
      (module) => { editor.value = module.Editor },
      // The node may have gone in this moment; the next look tries again.
      () => { asked = false; setTimeout(() => { editor.value = undefined }, 1000) }
    )
  }
  const View = editor.value
  return View === undefined ? <p class='quiet'>{t('editor.loading')}</p> : <View key={id} id={id} />
}

function Content (): JSX.Element | null {
  if (!entered.value) return null
  if (link.value === 'signed out') return <SignedOut />
  const where = place.value
  switch (where.view) {
    case 'documents': return <Documents />
    case 'document': return <Editor id={where.id} />
    case 'nothing': return (
      <section class='notice'>
        <h1>{t('nothing.title')}</h1>
        <p><Inside to='/'>{t('nothing.back')}</Inside></p>
      </section>
    )
  }
}

export function Shell (): JSX.Element {
  return (
    <>
      <a class='skip' href='#content'>{t('app.skip')}</a>
      <header>
        <strong class='name'><Inside to='/'>{t('app.name')}</Inside></strong>
        <nav aria-label={t('nav.label')}>
          <Inside to='/' current={place.value.view === 'documents'}>{t('nav.documents')}</Inside>
        </nav>
        <LinkMark />
        <Choices />
      </header>
      <main id='content' tabIndex={-1}><Content /></main>
    </>
  )
}
