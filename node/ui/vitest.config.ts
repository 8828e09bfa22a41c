import { defineConfig } from 'vitest/config'

// Of automerge the whole, which Node loads by itself; the page's slim one waits for a file from its node.
export default defineConfig({ test: { include: ['tests/*.test.ts'], environment: 'node', testTimeout: 60_000 } })
