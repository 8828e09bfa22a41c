#!/usr/bin/env python3
"""Breaks one rule of the log at a time and sees whether the tests notice.

    python3 overlay/order/tests/mutants.py [number ...]     from the top of the workspace

The list is mutants.txt beside this file: for each mutant a line `N. what is broken`, pairs of `file:`, `from:` and `to:`
(`\\n` is a line break), and `killed by:`, which this script writes. It works on a copy of the tree."""
import os, re, shutil, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))
top = os.path.dirname(os.path.dirname(os.path.dirname(here)))
listing = os.path.join(here, "mutants.txt")


def read():
    mutants, current = [], None
    for line in open(listing):
        line = line.rstrip("\n")
        if match := re.match(r"(\d+)\. (.*)", line):
            current = {"number": int(match[1]), "what": match[2], "edits": [], "killed": ""}
            mutants.append(current)
        elif match := re.match(r"  (file|from|to|killed by): ?(.*)", line):
            kind, text = match[1], match[2].replace("\\n", "\n")
            if kind == "file":
                current["edits"].append({"file": text})
            elif kind == "killed by":
                current["killed"] = text
            else:
                current["edits"][-1][kind] = text
    return mutants


def run(mutant, copy):
    saved = {}
    for edit in mutant["edits"]:
        path = os.path.join(copy, "overlay/order", edit["file"])
        text = open(path).read()
        saved.setdefault(path, text)
        assert text.count(edit["from"]) == 1, (mutant["number"], edit, text.count(edit["from"]))
        open(path, "w").write(text.replace(edit["from"], edit["to"]))
    command = ["cargo", "nextest", "run", "--offline", "-p", "wattle-order", "--no-fail-fast"]
    begun = time.time()
    try:
        out = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=600)
        output, code = out.stderr + out.stdout, out.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stderr or b"").decode() + "\nFAIL [] hangs hangs", 1
    for path, text in saved.items():
        open(path, "w").write(text)
    failed = sorted(set(re.findall(r"(?:FAIL|ABORT|TERMINATING) \[.*?\] (?:\(.*?\) )?\S+ (\S+)", output)))
    if not failed and code != 0:
        sys.exit(f"{mutant['number']} does not build:\n{output[-3000:]}")
    print(f"{mutant['number']}. {mutant['what']}: {', '.join(failed) or 'SURVIVES'} ({time.time() - begun:.0f} s)", flush=True)
    return failed


def main():
    wanted = {int(number) for number in sys.argv[1:]}
    mutants = read()
    copy = os.path.join(tempfile.gettempdir(), "wattle-order-mutants")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(top, copy, ignore=shutil.ignore_patterns("target", ".git", "node_modules"), symlinks=True)
    lines = open(listing).read()
    alive = 0
    for mutant in mutants:
        if wanted and mutant["number"] not in wanted:
            continue
        failed = run(mutant, copy)
        alive += not failed
        # The test that is about the rule, if there is one.
        failed.sort(key=lambda name: not name.startswith("rules::"))
        verdict = f"{failed[0]} and {len(failed) - 1} more" if len(failed) > 1 else (failed or ["nothing"])[0]
        block = re.compile(rf"(^{mutant['number']}\. .*?  killed by:)[^\n]*", re.S | re.M)
        lines = block.sub(lambda match: f"{match[1]} {verdict}", lines, count=1)
        open(listing, "w").write(lines)
    sys.exit(1 if alive else 0)


main()
