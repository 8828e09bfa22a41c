// What this browser remembers for the person, where it is allowed to.

export function remembered (name: string): string | null {
  try {
    return localStorage.getItem(`wattle.${name}`)
  } catch {
    return null
  }
}

export function remember (name: string, value: string): void {
  try {
    localStorage.setItem(`wattle.${name}`, value)
  } catch {
    // A browser that keeps nothing asks anew next time.
  }
}
