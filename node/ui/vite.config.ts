import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

const ASSETS = join(import.meta.dirname, 'dist', 'assets')

/**
 * Keeps WebAssembly compressed only: a fifth of its size, in the repository and in the binary. What is there
 * already and holds the same stays, so that another version of the compressor changes no byte.
 */
function compressed (): Plugin {
  const before = new Map<string, Buffer>()
  return {
    name: 'wattle-compressed',
    apply: 'build',
    buildStart () {
      const names = existsSync(ASSETS) ? readdirSync(ASSETS) : []
      for (const name of names.filter((name) => name.endsWith('.br'))) before.set(name, readFileSync(join(ASSETS, name)))
    },
    generateBundle (_options, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        if (file.type !== 'asset' || !name.endsWith('.wasm')) continue
        const bytes = Buffer.from(file.source)
        const kept = before.get(`${name.replace('assets/', '')}.br`)
        const params = {
          [constants.BROTLI_PARAM_QUALITY]: 11,
          [constants.BROTLI_PARAM_LGWIN]: 24,
          [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length
        }
        const same = kept !== undefined && brotliDecompressSync(kept).equals(bytes)
        const source = same ? kept : brotliCompressSync(bytes, { params })
        delete bundle[name]
        this.emitFile({ type: 'asset', fileName: `${name}.br`, source })
      }
    }
  }
}

export default defineConfig({
  plugins: [compressed()],
  resolve: {
    alias: [
      // The slim entries take their WebAssembly from a file of ours; the others carry it as text.
      { find: /^@automerge\/automerge$/, replacement: '@automerge/automerge/slim' },
      { find: /^@automerge\/automerge-repo$/, replacement: '@automerge/automerge-repo/slim' },
      // The usual entry tries to make functions of text, which the page's content security policy forbids.
      { find: /^cbor-x$/, replacement: 'cbor-x/index-no-eval' }
    ]
  },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 800,
    modulePreload: { polyfill: false },
    reportCompressedSize: false
  }
})
