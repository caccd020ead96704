"""Teaching: guess the label of each case, alone or as a class, before the models show theirs."""

import html
import random
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from kdmodels.examples import examples
from kdmodels.explain.overlays import overlay
from kdmodels.images.archives import ArchiveError
from kdmodels.images.read import ImageError, read_image
from kdmodels.predict import answer
from kdmodels.tasks import Task, get_task
from page import words
from page.compare.results import TROUBLE
from page.heatmaps import heatmaps
from page.pairs import ROLES, pair
from page.parts import QUICK, REDRAW, WORK, film, model_choice, unpacking_folder
from page.studies import MOST
from page.teach.cases import Case, CaseSet, Score, Votes, disagreements, order, read_cases
from page.turns import Superseded, Turns

WELCOME = '<p class="verdict hint">Choose a case set, or take the examples, then press Start.</p>'
LESSON_TURNS = Turns()


@dataclass
class Lesson:
    """A round of cases in one tab.

    said: (teacher, student) class ids by case name. folder: where the images are kept meanwhile.
    """

    task: Task
    teacher: str
    cases: tuple[Case, ...]
    number: int = 0
    revealed: bool = False
    votes: Votes | None = None
    score: Score = field(default_factory=Score)
    said: dict[str, tuple[str, str]] = field(default_factory=dict)
    folder: TemporaryDirectory | None = None

    @property
    def case(self) -> Case:
        return self.cases[self.number]


LESSONS: OrderedDict[str, Lesson] = OrderedDict()


def example_cases(task: Task) -> CaseSet:
    """The synthetic examples as cases with labels."""
    cases = tuple(Case(e.path.name, e.path, e.class_id, e.caption) for e in examples(task.id))
    problems = () if cases else ("There are no examples of this modality; choose a case set.",)
    return CaseSet(cases, problems)


def _name(task: Task, class_id: str | None) -> str:
    return task.class_names[task.class_ids.index(class_id)] if class_id else "not known"


def _answers(lesson: Lesson, case: Case) -> tuple[str, str]:
    if case.name not in lesson.said:
        pixels = read_image(case.path).pixels
        said = (int(answer(c, pixels).argmax()) for c in pair(lesson.task.id, lesson.teacher))
        lesson.said[case.name] = tuple(lesson.task.class_ids[k] for k in said)
    return lesson.said[case.name]


def start(request: gr.Request, uploads, task_id: str, teacher: str, only_differ: bool):
    """Begin with the uploaded case set, or the examples. Yields what `_shown` lists."""
    tab = request.session_hash
    turn = LESSON_TURNS.take(tab)
    task = get_task(task_id)
    place = None
    try:
        if uploads:
            place = unpacking_folder()
            found = read_cases(_kept(uploads, Path(place.name)), task, Path(place.name))
        else:
            found = example_cases(task)
        cases = order(found.cases, random.SystemRandom().randrange(2**32))
        problems = list(found.problems)
        lesson = Lesson(task, teacher, cases, folder=place)
        usable, shown = [], time.perf_counter()
        for number, case in enumerate(cases):
            LESSON_TURNS.check(turn)
            try:
                _answers(lesson, case) if only_differ else read_image(case.path)
                usable.append(case)
            except ImageError as error:
                problems.append(f"{case.name}: {error}")
            if time.perf_counter() - shown > REDRAW:
                shown = time.perf_counter()
                what = "Looking for disagreements" if only_differ else "Reading"
                note = f"{what}: {number + 1} of {len(cases)} cases."
                yield _blank(words.message("note", note))
        cases = tuple(usable)
        if only_differ:
            cases = disagreements(
                cases, *({n: s[k] for n, s in lesson.said.items()} for k in (0, 1))
            )
            if not cases:
                problems.append("Teacher and student agree on every case.")
        told = _listed(problems)
        if not cases:
            yield _blank(told)
            return
        lesson.cases, lesson.votes = cases, Votes.none(task)
        shown_first = _shown(lesson, told)
        LESSON_TURNS.check(turn)
        _forget(tab)
        LESSONS[tab] = lesson
        while len(LESSONS) > MOST:
            _forget(next(iter(LESSONS)))
        yield shown_first
    except Superseded:
        yield [gr.skip()] * len(_blank(""))
    except (*TROUBLE, ArchiveError) as error:
        yield _blank(words.message("error", str(error)))


def _kept(uploads: list[str], folder: Path) -> list[Path]:
    """Copies of the uploads, which would be removed after an hour; a lesson may last longer."""
    kept = []
    for number, upload in enumerate(map(Path, uploads)):
        copy = folder / f"upload-{number}" / upload.name
        copy.parent.mkdir()
        kept.append(Path(shutil.copyfile(upload, copy)))
    return kept


def _forget(tab: str | None) -> None:
    if (old := LESSONS.pop(tab, None)) and old.folder:
        old.folder.cleanup()


def _listed(problems: list[str]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<li>{html.escape(p)}</li>" for p in problems)
    return f'<div class="message note" role="status"><ul>{rows}</ul></div>'


def _blank(told: str) -> list:
    """No case: message, picture, question, choice, score, both maps, buttons (next, vote, reveal)."""
    nothing = [gr.Button(interactive=False)] * 3
    return [told, None, WELCOME, gr.Radio(visible=False), "", None, None, *nothing]


def _shown(lesson: Lesson, told: Any) -> list:
    """The case to guess, with everything that gives it away hidden."""
    case = f"Case {lesson.number + 1} of {len(lesson.cases)}. What is it?"
    choices = list(zip(lesson.task.class_names, lesson.task.class_ids, strict=True))
    return [
        told,
        gr.Image(read_image(lesson.case.path).pixels, label=f"Case {lesson.number + 1}"),
        f'<p class="verdict" role="status">{case}</p>{_tally(lesson)}',
        gr.Radio(choices, value=None, visible=True),
        _score(lesson),
        None,
        None,
        gr.Button(interactive=False),
        gr.Button(interactive=True),
        gr.Button(interactive=True),
    ]


def _tally(lesson: Lesson) -> str:
    if not lesson.votes or not lesson.votes.total:
        return ""
    said = ", ".join(f"{_name(lesson.task, c)} {n}" for c, n in lesson.votes.counts.items() if n)
    return f'<p class="legend">Votes: {html.escape(said)}.</p>'


def _score(lesson: Lesson) -> str:
    if not lesson.score.rounds:
        return ""
    players = (("You", "human"), ("Teacher", "teacher"), ("Student", "student"))
    entries = "".join(
        f"<div><dt>{name}</dt><dd>{tally.right} of {tally.of}</dd></div>"
        for name, player in players
        if (tally := lesson.score.tally(player)) is not None
    )
    return f'<dl class="numbers">{entries}</dl>'


def vote(request: gr.Request, choice: str | None):
    """One more vote of a class. Returns (question, choice)."""
    lesson = LESSONS.get(request.session_hash)
    if lesson is None or lesson.revealed or not choice:
        return gr.skip(), gr.skip()
    lesson.votes = lesson.votes.with_vote(choice)
    case = f"Case {lesson.number + 1} of {len(lesson.cases)}. Next vote?"
    return f'<p class="verdict" role="status">{case}</p>{_tally(lesson)}', gr.Radio(value=None)


def reveal(request: gr.Request, choice: str | None):
    """Show label, both answers, the score, then the heatmaps.

    Yields (question, score, both maps, buttons as in `_blank`).
    """
    tab = request.session_hash
    lesson = LESSONS.get(tab)
    skip = [gr.skip()] * 7
    if lesson is None or lesson.revealed:
        yield skip
        return
    turn = LESSON_TURNS.take(tab)
    try:
        said = _answers(lesson, lesson.case)
        guess = lesson.votes.guess if lesson.votes.total else choice
        lesson.score = lesson.score.with_answer(lesson.case, guess, *said)
        lesson.revealed = True
        buttons = [gr.Button(interactive=lesson.number + 1 < len(lesson.cases))]
        buttons += [gr.Button(interactive=False)] * 2
        yield _verdict(lesson, guess, said), _score(lesson), None, None, *buttons
        pixels = read_image(lesson.case.path).pixels
        models = dict(zip(ROLES, pair(lesson.task.id, lesson.teacher), strict=True))
        classes = dict(zip(ROLES, said, strict=True))
        for role, step in heatmaps(
            models, pixels, classes, exact=False, check=lambda: LESSON_TURNS.check(turn)
        ):
            label = f"{role.capitalize()}: {_name(lesson.task, classes[role])}"
            shown = skip.copy()
            shown[2 + ROLES.index(role)] = gr.Image(overlay(pixels, step.heatmap), label=label)
            LESSON_TURNS.check(turn)
            yield shown
    except Superseded:
        yield skip
    except TROUBLE as error:
        yield words.message("error", str(error)), *skip[1:]


def _verdict(lesson: Lesson, guess: str | None, said: tuple[str, str]) -> str:
    case, task = lesson.case, lesson.task
    parts = [f"It is labelled {_name(task, case.label)}."] if case.label else ["It has no label."]
    parts += [f"You said {_name(task, guess)}."] if guess else ["You did not guess."]
    parts.append(f"The teacher says {_name(task, said[0])}, the student {_name(task, said[1])}.")
    note = f'<p class="legend">{html.escape(f"{case.name}. {case.note}")}</p>'
    sentence = html.escape(" ".join(parts))
    return f'<p class="verdict" role="status">{sentence}</p>{_tally(lesson)}{note}'


def go_on(request: gr.Request):
    """The next case; the score goes on."""
    lesson = LESSONS.get(request.session_hash)
    if lesson is None or lesson.number + 1 >= len(lesson.cases):
        return [gr.skip()] * len(_blank(""))
    LESSON_TURNS.take(request.session_hash)
    now = lesson.number, lesson.revealed, lesson.votes
    lesson.number, lesson.revealed = lesson.number + 1, False
    lesson.votes = Votes.none(lesson.task)
    try:
        return _shown(lesson, gr.skip())
    except TROUBLE as error:
        lesson.number, lesson.revealed, lesson.votes = now
        told = words.message("error", str(error))
        return [told, *[gr.skip()] * (len(_blank("")) - 1)]


def leave(request: gr.Request) -> None:
    LESSON_TURNS.leave(request.session_hash)
    _forget(request.session_hash)


def build() -> None:
    """Lay the tab out and wire its events."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            task, teacher = model_choice("teach-task")
            files = gr.File(
                label="Case set (none: the examples)",
                file_count="multiple",
                elem_id="teach-files",
                height=140,
            )
            gr.HTML(
                "<p class='legend'>Images, or a zip of images, with a CSV of the columns file, label "
                "and note.</p>",
                padding=False,
            )
            differ = gr.Checkbox(False, label="Only cases on which the models differ")
            begin = gr.Button("Start", variant="primary", elem_id="teach-start")
            told = gr.HTML(elem_id="teach-message", padding=False)
            score = gr.HTML(elem_id="teach-score", padding=False)
        with gr.Column(scale=7, min_width=300):
            question = gr.HTML(WELCOME, elem_id="teach-question", padding=False)
            choice = gr.Radio(visible=False, label="Your answer", elem_id="teach-choice")
            with gr.Row():
                voting = gr.Button("Add this vote", interactive=False, elem_id="teach-vote")
                showing = gr.Button(
                    "Reveal", variant="primary", interactive=False, elem_id="teach-reveal"
                )
                more = gr.Button("Next case", interactive=False, elem_id="teach-next")
            picture = film("Case", "teach-case", 420)
            with gr.Row():
                maps = [film(role.capitalize(), f"teach-{role}", 320) for role in ROLES]
    buttons = [more, voting, showing]
    case = [told, picture, question, choice, score, *maps, *buttons]
    begin.click(start, [files, task, teacher, differ], case, **WORK)
    voting.click(vote, choice, [question, choice], **QUICK)
    showing.click(reveal, choice, [question, score, *maps, *buttons], **WORK)
    more.click(go_on, None, case, **WORK)
