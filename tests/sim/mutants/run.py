#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests the tester: builds the simulator with one deliberate bug at a time, tells the stories and
runs seeds until a checker objects. A bug that no checker objects to fails.

    run.py BUILD [--seeds N] [--jobs N] [NAME...]

BUILD is a meson build directory in which tests/sim was built. Only the changed files are
compiled; the rest is linked as it stands there. The last line is "N passed, N failed, N skipped".
"""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from table import MUTANTS  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def commands(build):
    """How each file of core is compiled, by its name."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        return {
            os.path.basename(entry["file"]): entry["command"]
            for entry in json.load(file)
            if "engine/core/" in entry["file"]
        }


def edit(folder, edits):
    """Applies the edits to the copy; says which one no longer fits."""
    for name, old, new in edits:
        path = os.path.join(folder, "engine", "core", name)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if text.count(old) != 1:
            return f"{name} has the old text {text.count(old)} times: follow the code"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))
    return None


def compile_one(command, build, folder, name):
    """The object of the changed file, compiled as the build does, but against the copy."""
    words = [word for word in shlex.split(command) if word not in ("-Werror", "-g")]
    for flag in ("-o", "-c", "-MQ", "-MF"):
        at = words.index(flag)
        del words[at:at + 2]
    words = ["-O1" if re.fullmatch("-O[0-3s]", word) else word for word in words if word != "-MD"]
    out = os.path.join(folder, name[:-2] + ".o")
    source = os.path.join(folder, "engine", "core", name)
    # The copy stands first: what it includes is the copy's.
    words[-1:] = [words[-1], "-w", "-I" + os.path.join(folder, "engine"), "-o", out, "-c", source]
    done = subprocess.run(words, cwd=build, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().split("\n")[0])
    return out


def link(build, folder, objects, name):
    """A program of tests/sim: changed objects first, so that the library's own are not taken."""
    out = os.path.join(folder, name)
    parts = os.path.join(build, "tests", "sim", name + ".p")
    own = [os.path.join(parts, part) for part in sorted(os.listdir(parts)) if part.endswith(".o")]
    with open(os.path.join(build, "build.ninja"), encoding="utf-8") as file:
        rule = file.read().split(f"\nbuild tests/sim/{name}:", 1)[1]
    how = shlex.split(re.search(r"^ LINK_ARGS = (.*)$", rule, re.M).group(1))
    done = subprocess.run(["cc", "-o", out, *objects, *own, *how], cwd=build,
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().split("\n")[-1])
    return out


def story(program):
    """The stories that take another course, or None."""
    done = subprocess.run([program], capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return None
    told = re.findall(r"^FAILED  (.*)", done.stdout, re.M)
    return ", ".join(told) or f"stops: {done.stderr.strip().split(chr(10))[-1]}"


def hunt(program, seeds):
    """(what caught it, at which seed) or None."""
    done = subprocess.run([program, "--seeds", str(seeds)], capture_output=True, text=True,
                          errors="replace")
    if done.returncode == 0:
        return None
    seed = re.search(r"^seed (\d+):", done.stdout, re.M)
    rule = re.search(r"^FAILED: (.*)", done.stdout, re.M)
    if rule and seed:
        return rule.group(1), int(seed.group(1))
    # must() speaks on stderr; the seed in work is the last that was said there.
    last = [line for line in done.stderr.split("\n") if line.strip()]
    at = re.findall(r"^seed (\d+)$", done.stderr, re.M)
    said = [line for line in last if not re.match(r"seed \d+$", line)]
    return (said[-1] if said else f"signal {-done.returncode}"), int(at[-1]) if at else 0


def work(build, how, mutant, seeds):
    """One row: name, verdict ("caught", "missed" or "broken"), why, seed, seconds."""
    name, edits = mutant
    began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="casemate-mutant-")
    try:
        core = os.path.join("engine", "core")
        shutil.copytree(os.path.join(ROOT, core), os.path.join(folder, core))
        wrong = edit(folder, edits)
        if wrong:
            return name, "broken", wrong, 0, 0.0
        files = sorted({file for file, _, _ in edits})
        objects = [compile_one(how[file], build, folder, file) for file in files]
        told = story(link(build, folder, objects, "stories"))
        found = (f"stories: {told}", 0) if told else \
            hunt(link(build, folder, objects, "sim"), seeds)
    except RuntimeError as error:
        return name, "broken", str(error), 0, 0.0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    if not found:
        return name, "missed", f"nothing objects in {seeds} seeds", 0, seconds
    return name, "caught", found[0], found[1], seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*")
    options = parser.parse_intermixed_args()
    build = os.path.abspath(options.build)
    how = commands(build)
    chosen = [m for m in MUTANTS if not options.names or any(n in m[0] for n in options.names)]
    counts = {"caught": 0, "missed": 0, "broken": 0}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        rows = pool.map(lambda mutant: work(build, how, mutant, options.seeds), chosen)
        for name, verdict, why, seed, seconds in rows:
            counts[verdict] += 1
            at = f"seed {seed:3}" if seed else " " * 8
            print(f"{verdict:6} {name:46} {at} {seconds:5.1f} s  {why[:110]}", flush=True)
    print(f"{counts['caught']} passed, {counts['missed'] + counts['broken']} failed, 0 skipped")
    return 0 if counts["caught"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
