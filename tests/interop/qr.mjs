// Reads a QR code as a terminal shows it, half blocks that are light on dark, and prints what it says.

import jsQR from 'jsqr'
import { text } from 'node:stream/consumers'

const SCALE = 4
// Of each character, whether its upper and its lower half are light.
const HALVES = { '█': [true, true], '▀': [true, false], '▄': [false, true], ' ': [false, false] }

const lines = (await text(process.stdin)).split('\n').filter((line) => line !== '')
const rows = lines.flatMap((line) => [0, 1].map((half) => [...line].map((character) => HALVES[character][half])))
const [width, height] = [Math.max(...rows.map((row) => row.length)) * SCALE, rows.length * SCALE]
const pixels = new Uint8ClampedArray(width * height * 4).fill(255)
for (let y = 0; y < height; y++) {
  for (let x = 0; x < width; x++) {
    const light = rows[Math.floor(y / SCALE)][Math.floor(x / SCALE)] ?? false
    pixels.fill(light ? 255 : 0, (y * width + x) * 4, (y * width + x) * 4 + 3)
  }
}
const found = (jsQR.default ?? jsQR)(pixels, width, height)
if (found === null) throw new Error('no QR code in this picture')
process.stdout.write(found.data)
