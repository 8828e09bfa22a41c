/** Numbers from a seed, so that what fails fails again. */
export class Draw {
  #state: bigint
  constructor (seed: number) { this.#state = BigInt(seed) }

  below (end: number): number {
    this.#state = (this.#state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn
    return Number(this.#state >> 33n) % Math.max(end, 1)
  }

  pick<T> (choices: T[]): T {
    return choices[this.below(choices.length)] as T
  }
}
