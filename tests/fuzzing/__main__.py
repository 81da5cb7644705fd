"""Cases drawn anew for SECONDS (60), over the same properties as tests/test_fuzz.py.

`fields [KIND …]` in place of SECONDS: every field of every file that is read back, or of these
kinds, with every wrong value. `states [VERB …]`: every verb, or these, in every state of a process.
"""

import contextlib
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.fuzzing.cases import run_case
from tests.fuzzing.fields import Subjects
from tests.fuzzing.folder_bucket import folder_served
from tests.fuzzing.ground import Ground, read_by_gnu_tar
from tests.fuzzing.inputs import inputs
from tests.fuzzing.states import STATES, VERBS, Places, problem_of

_CASES_A_TURN = 300


def main() -> None:
    """Turn after turn until the time is over, or a case breaks a property."""
    of_words = {"fields": _fields, "states": _states}
    if sys.argv[1:] and sys.argv[1] in of_words:
        of_words[sys.argv[1]](sys.argv[2:])
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder) / "ground")
        checks: dict[str, tuple[Any, Any]] = {}
        for name, form in ground.forms.items():
            by_gnu = form._replace(read=read_by_gnu_tar)
            checks[name] = form.drawn, lambda body, form=by_gnu: ground.check(form, body)
        for name, known in inputs(ground.packed, ground.organized(), Path(folder)).items():
            checks[name] = known.drawn, known.check
        cases, end = dict.fromkeys(checks, 0), time.monotonic() + seconds
        while time.monotonic() < end:
            for name, (drawn, check) in checks.items():
                if not _holds(drawn, check):
                    sys.exit(f"{name}: a property is broken; put the case above into the corpus")
                cases[name] += _CASES_A_TURN
    print(", ".join(f"{name} {count:,}" for name, count in cases.items()))


def _fields(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "fields"
        ground = Ground(Path(name) / "ground")
        with folder_served(folder) as endpoint:
            for kind, each in Subjects(folder, ground.packed, endpoint).cases().items():
                if kinds and kind not in kinds:
                    continue
                cases, problems = 0, 0
                for case in each:
                    cases += 1
                    if problem := run_case(case):
                        problems += 1
                        print(f"{kind}: {problem}", flush=True)
                print(f"{kind}: {cases:,} cases, {problems:,} problems", flush=True)


def _states(verbs: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name, Places.open(Path(name)) as places:
        for verb in verbs or VERBS:
            problems = 0
            for state in STATES:
                if problem := problem_of(state, verb, places, Path(name)):
                    problems += 1
                    print(f"{verb}, {state}: {problem}", flush=True)
            print(f"{verb}: {len(STATES)} states, {problems} problems", flush=True)


def _holds(drawn: Any, check: Any) -> bool:
    @settings(
        max_examples=_CASES_A_TURN,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(drawn)
    def turn(case: Any) -> None:
        check(case)

    try:
        turn()
    except Exception as error:
        traceback.print_exception(error, limit=-3)
        return False
    return True


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
