"""Builds the engine with sanitizers, and says to it what libFuzzer makes of the raw tests' words.

What is found is left in the folder, as a file that reproduces it: `run.py --again FILE`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINE = HERE.parent
ROOT = ENGINE.parents[1]
SEED_TESTS = ("test_frames.py", "test_grpc.py")
MAX_INPUT_BYTES = 1_024
MAX_RSS_MIB = 1_024
"""Of the whole process; what one input holds is judged by the harness itself."""
MAX_INPUT_SECONDS = 10

# Every allocation of the engine may fail; the harness decides which.
_FAILING = [f"-D{name}=fuzz_{name}" for name in ("malloc", "calloc", "realloc")]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_COVERAGE = ["-fprofile-instr-generate", "-fcoverage-mapping"]
# Python allocates so much that remembering where would be most of the work.
_ASAN = "quarantine_size_mb=4:malloc_context_size=2:detect_stack_use_after_return=0"


def build(folder: Path, *, coverage: bool = False) -> Path:
    """Compile the harness; with ``coverage`` count the engine's lines instead of sanitizing."""
    kind = _COVERAGE if coverage else _SANITIZERS
    target = folder / ("covered" if coverage else "fuzzer")
    include = sysconfig.get_path("include")
    common = [*shlex.split(os.environ.get("CLANG", "clang")), "-g", "-O2", "-std=c11"]
    common += ["-D_GNU_SOURCE", "-fno-omit-frame-pointer", f"-isystem{include}"]
    objects = []
    for source in (*sorted(ENGINE.glob("src/*.c")), *sorted(HERE.glob("*.c"))):
        # Only the engine's own branches guide the search.
        engine = [*kind, *_FAILING, "-fsanitize=fuzzer-no-link"] if source.parent != HERE else []
        objects.append(str(folder / f"{source.stem}.o"))
        subprocess.run([*common, *engine, "-c", str(source), "-o", objects[-1]], check=True)
    libraries = sysconfig.get_config_var("LIBDIR")
    python = f"-lpython{sysconfig.get_config_var('LDVERSION')}"
    link = ["-fsanitize=fuzzer", *kind, *objects, f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    subprocess.run([*common, *link, python, "-ldl", "-lm", "-o", str(target)], check=True)
    return target


def record(seeds: Path) -> None:
    """Keep what the raw tests say."""
    seeds.mkdir(exist_ok=True)
    tests = [str(ENGINE / "tests" / name) for name in SEED_TESTS]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "record", *tests],
        env={**os.environ, "PYTHONPATH": str(HERE), "FUZZ_SEEDS": str(seeds)},
        cwd=ROOT,
        check=True,
    )


def report(folder: Path, corpus: Path) -> None:
    """Which of the engine's lines the corpus reaches."""
    covered = build(folder, coverage=True)
    raw, profile = folder / "covered.raw", folder / "covered.profile"
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(raw)}
    subprocess.run([covered, "-runs=0", corpus], env=environment, cwd=folder, check=True)
    subprocess.run(["llvm-profdata", "merge", raw, "-o", profile], check=True)
    sources = [str(path) for path in sorted(ENGINE.glob("src/*.c"))]
    subprocess.run(
        ["llvm-cov", "report", covered, f"-instr-profile={profile}", *sources], check=True
    )


def main() -> None:
    """Fuzz for a while, or try one input again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=ROOT / ".run" / "fuzz-h2")
    parser.add_argument("--again", type=Path, help="an input that was found")
    parser.add_argument("--coverage", action="store_true", help="tell the lines that were reached")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    corpus, seeds = folder / "corpus", folder / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    fuzzer = build(folder)
    limits = [f"-rss_limit_mb={MAX_RSS_MIB}", f"-timeout={MAX_INPUT_SECONDS}"]
    if arguments.again:
        inputs = [str(arguments.again.resolve())]
    else:
        record(seeds)
        limits += [f"-max_total_time={arguments.seconds}", f"-max_len={MAX_INPUT_BYTES}"]
        limits += ["-use_cmp=0", "-print_final_stats=1", "-verbosity=1", "-report_slow_units=1"]
        inputs = [str(corpus), str(seeds)]
    environment = {"ASAN_OPTIONS": _ASAN, **os.environ}
    done = subprocess.run([str(fuzzer), *limits, *inputs], env=environment, cwd=folder, check=False)
    if done.returncode == 0 and arguments.coverage:
        report(folder, corpus)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
