"""`charloom train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from charloom.cli.display import notice_only, open_display, plan_table
from charloom.cli.interrupt import asked_by_signal, graceful_interrupt
from charloom.cli.options import SettingsCommand, given_settings, settings_options
from charloom.cli.screen import write
from charloom.config import BUDGETS
from charloom.engines.torchrun import follows
from charloom.errors import SettingsError
from charloom.presets import NAMES, with_preset
from charloom.training.events import EventHandler, Finished

AUTO = Path("auto")
"""What `--resume` takes for the run in `--out`."""


@click.command(
    cls=SettingsCommand,
    epilog="""\b
    Examples:
      charloom train my.txt --minutes 5
      charloom train letters/ notes.txt.gz --hidden 512 --dropout 0.2 --minutes 30
      charloom train names.txt --records line --out names
      charloom train my.txt --preset anna --cell gru
      charloom train --resume runs/my-1 --minutes 20
      charloom train new.txt --from runs/my-1 --lr 0.002
    """,
)
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option("--out", metavar="DIR", type=Path, help="the run folder; new or empty  [runs/<corpus>-<n>]")
@click.option(
    "--resume",
    metavar="RUN",
    type=Path,
    help="continue a run exactly where it stopped; only its budget can be changed; auto: the run in --out, which is "
    "started if it has no checkpoint",
)
@click.option(
    "--from", "base_model", metavar="MODEL", help="fine-tune this model on PATH; a model folder or a run folder"
)
@click.option(
    "--preset",
    metavar="|".join(NAMES),
    help="start with the settings of this preset; other flags override them (docs/lessons/ explains them)",
)
@click.option("--plan-only", is_flag=True, help="show the plan with its reasons, and do not train")
@click.option("--quiet", is_flag=True, help="show only notices and errors, and print the model's folder at the end")
@click.option("--json", "as_json", is_flag=True, help="print each event as a JSON object on one line, and nothing else")
@click.option("--tensorboard", is_flag=True, help="also write TensorBoard events into the run folder")
@settings_options
def command(
    paths: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    base_model: str | None,
    preset: str | None,
    plan_only: bool,
    quiet: bool,
    as_json: bool,
    tensorboard: bool,
    **values: Any,
) -> None:
    """Train a model on PATH: a file, folder, glob or URL, - for stdin, or a name from `charloom corpora`.

    Reads text, and .jsonl, .json, .csv and .tsv (with --field), each also as .gz, .bz2 or .xz. Several PATHs are one
    text. No option is required: charloom chooses each setting that is not given for the text, the machine and the
    minutes, and shows the reason.

    At the end, the folder of the best model is printed on stdout. Ctrl-C saves everything and prints the command that
    resumes the run.
    """
    given = given_settings(values)
    if plan_only and resume is not None:
        raise SettingsError("--plan-only must be given without --resume: a run to resume has its settings already")
    if auto := resume == AUTO:
        _check_auto(out)
        resume = None
    if resume is not None:
        _check_resume(paths, out, base_model, preset, given)
    elif not paths:
        raise SettingsError("train needs a text; give a PATH: charloom train PATH (or try: charloom demo)")
    if preset is not None:
        given = with_preset(preset, given)
    if plan_only:
        if not follows():
            _show_plan(paths, given, base_model, as_json)
        return
    if follows():
        click.get_current_context().exit(_follow())
    with open_display(quiet, as_json, tensorboard) as report:
        finished = run(paths, given, out, AUTO if auto else resume, base_model, report)
    if not as_json:
        write(f"{Path(finished.run) / 'best'}\n")


def _show_plan(paths: tuple[str, ...], given: dict[str, Any], base_model: str | None, as_json: bool) -> None:
    from charloom.training import start

    planned = start.plan_only(paths, given, base_model, notice_only)
    write((json.dumps(planned.to_json()) if as_json else "\n".join(plan_table(planned))) + "\n")


def _check_auto(out: Path | None) -> None:
    if out is None:
        raise SettingsError("--resume auto needs the folder of the run: add --out DIR")


def _check_resume(
    paths: tuple[str, ...], out: Path | None, base_model: str | None, preset: str | None, given: dict[str, Any]
) -> None:
    """Refuses flags other than a budget: a resumed run keeps its other settings."""
    asked = {"a PATH": paths, "--out": out, "--from": base_model, "--preset": preset}
    others = [flag for flag, value in asked.items() if value]
    others += ["--" + name.replace("_", "-") for name in given if name not in BUDGETS]
    if others:
        odd = others[0]
        raise SettingsError(f"--resume can change only the budget of a run; got {odd} too; leave it out")


def run(
    paths: tuple[str, ...],
    given: dict[str, Any],
    out: Path | None,
    resume: Path | None,
    base_model: str | None,
    report: EventHandler,
) -> Finished:
    """Starts or resumes a run with Ctrl-C handled."""
    from charloom.engines.shared import open_processes
    from charloom.training import start  # imports PyTorch, so the arguments are checked first

    with graceful_interrupt(report) as (watched, asked), open_processes() as processes:

        def stop() -> bool:
            return asked() or (processes is not None and processes.stop_asked)

        if resume == AUTO:
            assert out is not None
            return start.resume_or_start(paths, given, out, base_model, watched, stop, processes)
        if resume is not None:
            budgets = {name: given[name] for name in BUDGETS if name in given}
            return start.resume(resume, budgets, watched, stop, processes)
        return start.start(paths, given, out, base_model, watched, stop, processes=processes)


def _follow() -> int:
    """Trains as a process that is not the first one; its exit status."""
    from charloom.engines.follower import follow
    from charloom.engines.shared import open_processes

    with asked_by_signal() as asked, open_processes() as processes:
        assert processes is not None
        return follow(processes, asked)
